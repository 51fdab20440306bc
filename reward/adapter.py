"""The LoRA adapters of a reward model, beside its merged weights, so that PPO can put them on a base in memory."""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from sft.core.durable import make_folder, write_json
from sft.core.errors import DataError
from sft.model import weights_digest

FOLDER = "adapter"
"""Inside the reward model's folder: two files of its own, since it has a head that peft's format does not name."""
_WEIGHTS, _ABOUT, _HEAD = "adapter.safetensors", "adapter.json", "score.weight"
_PEFT_PREFIX, _PEFT_NAME = "base_model.model.", ".default"


class Adapter(NamedTuple):
    """Trained adapters of a decoder's linear layers, and the head on its final hidden state."""

    r: int
    alpha: float
    matrices: dict[str, torch.Tensor]
    """float32, by layer and matrix as the language model names them: "model.layers.0.self_attn.q_proj.lora_A"."""
    head: torch.Tensor
    """float32, shape (1, width)."""


def save_adapter(folder: Path, model: PeftModel, *, base: Path, r: int, alpha: float) -> None:
    """Write a trained scorer's adapters and head to `folder`/adapter, and by digest what they stand on.

    Args:
        folder: of the reward model.
        model: a sequence classifier with one adapter of peft's usual name.
        base: folder of the model that was adapted.
        r: rank.
        alpha: scale, as in LoRA.
    """
    weights: dict[str, torch.Tensor] = {}
    for name, weight in model.named_parameters():
        plain = name.removeprefix(_PEFT_PREFIX).removesuffix(".weight")
        if ".lora_" in plain:
            weights[plain.removesuffix(_PEFT_NAME)] = weight.detach().float().contiguous()
        elif plain.startswith("score.modules_to_save"):
            weights[_HEAD] = weight.detach().float().contiguous()
    assert _HEAD in weights, "the head was trained"
    make_folder(folder / FOLDER)
    save_file(weights, folder / FOLDER / _WEIGHTS)
    write_json(folder / FOLDER / _ABOUT, {"r": r, "alpha": alpha, "base": weights_digest(base)})


def adapter_rank(folder: Path, *, base: Path) -> int | None:
    """Return the rank of a reward model's adapters where these stand on exactly the weights in `base`, else None.

    Raises:
        DataError: there is a description of adapters that makes no sense.
    """
    about = _fitting(folder, base)
    return None if about is None else about.r


def load_adapter(folder: Path, *, base: Path) -> Adapter | None:
    """Return a reward model's adapters where these stand on exactly the weights in `base`, else None.

    Raises:
        DataError: what describes the adapters makes no sense.
    """
    about = _fitting(folder, base)
    if about is None:
        return None
    weights = load_file(folder / FOLDER / _WEIGHTS)
    head = weights.pop(_HEAD, None)
    if head is None:
        raise DataError(f"{folder / FOLDER / _WEIGHTS} has no {_HEAD}; train the reward model again")
    return Adapter(about.r, about.alpha, weights, head)


class _About(NamedTuple):
    r: int
    alpha: float
    base: str


def _fitting(folder: Path, base: Path) -> _About | None:
    about = _about(folder)
    return about if about is not None and about.base == weights_digest(base) else None


def _about(folder: Path) -> _About | None:
    path = folder / FOLDER / _ABOUT
    if not path.is_file():
        return None
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return _About(int(stored["r"]), float(stored["alpha"]), str(stored["base"]))
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{path} does not describe adapters ({error}); it needs r, alpha and base, or remove its folder"
        ) from None
