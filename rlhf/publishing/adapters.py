"""The adapters that a reward model kept, in the form in which peft reads and writes them."""

import shutil
from pathlib import Path

from reward.adapter import FOLDER
from rlhf.registry import Artifact
from sft.core.errors import DataError

_COPIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "calibration.json",
)


def keeps_adapters(folder: Path) -> bool:
    """Tell whether a model's folder holds its adapters beside the merged weights."""
    return (folder / FOLDER).is_dir()


def write_adapters(artifact: Artifact, base: Artifact, target: Path) -> None:
    """Write a reward model's adapters and head as peft does, with what reads its texts and calibrates its scores.

    Raises DataError where the adapters stand on other weights than those of `base`.
    """
    import torch
    from safetensors.torch import save_file

    from reward.adapter import load_adapter
    from sft.config import Dtype
    from sft.core.lora import lora_config
    from sft.model import load_causal_lm

    adapter = load_adapter(artifact.path, base=base.path)
    if adapter is None:
        raise DataError(f"the adapters of {artifact.ref} do not stand on {base.ref}; add --merge-adapters")
    model = load_causal_lm(base.path, device=torch.device("cpu"), dtype=Dtype.FLOAT32)
    config = lora_config(model, r=adapter.r, alpha=adapter.alpha, task="SEQ_CLS")
    config.target_modules = sorted({name.split(".")[-2] for name in adapter.matrices})
    config.base_model_name_or_path = base.ref
    config.inference_mode = True
    config.save_pretrained(str(target))
    weights = {f"base_model.model.{name}.weight": matrix for name, matrix in adapter.matrices.items()}
    save_file(weights | {"base_model.model.score.weight": adapter.head}, target / "adapter_model.safetensors")
    for name in _COPIED:
        if (artifact.path / name).is_file():
            shutil.copyfile(artifact.path / name, target / name)
