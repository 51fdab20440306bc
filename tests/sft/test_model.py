import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sft.config import Device, Dtype, ModelConfig, RuntimeConfig
from sft.core.errors import ConfigError, DataError
from sft.model import build_tiny, load_causal_lm, load_tokenizer, torch_device, train_tokenizer

CONFIG = ModelConfig(vocab_size=300, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2)
TEXTS = ["use a patch kit .", "to fix a tire , use a patch kit ."] * 5


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_the_same_seed_gives_the_same_folder(tmp_path: Path):
    before = asdict(CONFIG)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        build_tiny(CONFIG, TEXTS, seed=seed, out_dir=tmp_path / name)
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)
    assert (tmp_path / "a" / "tokenizer.json").read_bytes() == (tmp_path / "b" / "tokenizer.json").read_bytes()
    assert asdict(CONFIG) == before


def test_the_folder_holds_what_was_asked_for_and_no_pickle(base_folder: Path):
    config = json.loads((base_folder / "config.json").read_text())
    assert (config["hidden_size"], config["num_hidden_layers"], config["vocab_size"]) == (32, 2, 400)
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert {path.suffix for path in base_folder.iterdir()} <= {".safetensors", ".json", ".jinja"}


def test_special_tokens_are_distinct_and_whole(tokenizer):
    specials = ["<|pad|>", "<|eos|>", "<|system|>", "<|user|>", "<|assistant|>"]
    ids = tokenizer.convert_tokens_to_ids(specials)
    assert len(set(ids)) == 5
    assert [tokenizer.pad_token_id, tokenizer.eos_token_id] == ids[:2]
    assert tokenizer("".join(specials), add_special_tokens=False)["input_ids"] == ids
    assert tokenizer.padding_side == "left"


def test_every_text_reads_back():
    tokenizer = train_tokenizer(TEXTS, 300)
    for text in ("use a patch kit .", "ünïcode 漢字 \n\t tabs", "it 's 100 % , ok ?"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_another_existing_token_pads(base_folder: Path):
    tokenizer = load_tokenizer(base_folder, pad_token="<|system|>")
    assert tokenizer.pad_token_id == tokenizer.convert_tokens_to_ids("<|system|>")
    assert len(tokenizer) == 400
    with pytest.raises(DataError, match="name another, existing token as pad_token"):
        load_tokenizer(base_folder, pad_token="<|eos|>")


def test_models_load_in_evaluation_mode_and_in_the_dtype_asked_for(base_folder: Path):
    for dtype, expected in ((Dtype.FLOAT32, torch.float32), (Dtype.BFLOAT16, torch.bfloat16)):
        model = load_causal_lm(base_folder, device=torch.device("cpu"), dtype=dtype)
        assert model.dtype == expected
        assert not model.training


def test_weights_outside_safetensors_are_not_read(base_folder: Path, tmp_path: Path):
    (tmp_path / "config.json").write_bytes((base_folder / "config.json").read_bytes())
    torch.save(weights(base_folder), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        load_causal_lm(tmp_path, device=torch.device("cpu"), dtype=Dtype.FLOAT32)


def test_device(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert torch_device(RuntimeConfig(device=Device.AUTO)) == torch_device(RuntimeConfig(device=Device.CPU))
    with pytest.raises(ConfigError, match=r"runtime\.device='cuda'.*use runtime\.device=cpu"):
        torch_device(RuntimeConfig(device=Device.CUDA))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert torch_device(RuntimeConfig(device=Device.AUTO)).type == "cuda"
    assert torch_device(RuntimeConfig(device=Device.CPU)).type == "cpu"
