"""Hostile model folders: each is refused with one problem, before transformers sees it."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch

from rlhf.inputs import file_problems
from rlhf.model_folders import MAX_JSON_BYTES, folder_problems
from rlhf.preflight import check
from sft.config import Dtype
from sft.core.errors import ConfigError
from sft.core.template_limits import MAX_TEMPLATE_BYTES
from sft.model import load_causal_lm, load_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder that looks like a model."""
    made = tmp_path / "model"
    made.mkdir()
    write(made / "config.json", {"model_type": "llama", "eos_token_id": 0, "pad_token_id": 1})
    write(
        made / "tokenizer.json", {"added_tokens": [{"id": 0, "content": "</s>"}], "model": {"vocab": {"auto_map": 2}}}
    )
    write(made / "tokenizer_config.json", {"eos_token": "</s>", "pad_token": "<pad>"})
    (made / "model.safetensors").write_bytes(b"")
    assert folder_problems(made) == []
    return made


def write(path: Path, value: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def only(folder: Path) -> str:
    (found,) = folder_problems(folder, "sft.from")
    assert (found.field, found.value) == ("sft.from", str(folder))
    assert found.remedy
    return found.rule


CODE = {"AutoModelForCausalLM": "modeling_evil.Evil"}


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("config.json", {"auto_map": CODE}, "has `auto_map`, which would run code"),
        ("config.json", {"text_config": {"auto_map": CODE}}, "has `auto_map`, which would run code"),
        ("config.json", {"parts": [{"deep": [{"auto_map": CODE}]}]}, "has `auto_map`, which would run code"),
        ("config.json", {"auto_map": {}}, "has `auto_map`, which would run code"),
        ("config.json", {"custom_pipelines": {"x": {"impl": "evil.X"}}}, "has `custom_pipelines`"),
        ("config.json", {"trust_remote_code": True}, "sets `trust_remote_code`"),
        ("config.json", {"_attn_implementation": "org/evil-kernel"}, "would download and run a kernel"),
        ("config.json", {"_attn_implementation_internal": "org/evil:attention"}, "would download and run a kernel"),
        ("config.json", {"vision_config": {"attn_implementation": "org/evil"}}, "would download and run a kernel"),
        ("config.json", {"_attn_implementation": {"text_config": "org/evil"}}, "would download and run a kernel"),
        ("config.json", {"transformers_weights": "../other/model.safetensors"}, "names another file of weights"),
        ("generation_config.json", {"auto_map": CODE}, "has `auto_map`"),
        ("generation_config.json", {"trust_remote_code": "yes"}, "sets `trust_remote_code`"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.T", None]}}, "has `auto_map`"),
        ("processor_config.json", {"auto_map": CODE}, "has `auto_map`"),
        (
            "config.9.9.9.json",
            {"auto_map": CODE},
            "has `auto_map`",
        ),  # read in place of config.json by transformers 9.9.9
        ("config.json", "[]", "no JSON objects below 16 MiB: config.json"),
        ("generation_config.json", "{", "no JSON objects below 16 MiB: generation_config.json"),
        ("tokenizer.json", "[" * 100_000, "no JSON objects below 64 MiB: tokenizer.json"),
        ("config.json", '{"eos_token_id": ' + "9" * 5000 + "}", "no JSON objects"),
        ("model.safetensors.index.json", {"weight_map": {"a": "../x.safetensors"}}, "names '../x.safetensors'"),
        ("model.safetensors.index.json", {"weight_map": {"a": "/etc/x.safetensors"}}, "names '/etc/x.safetensors'"),
        ("model.safetensors.index.json", {"weight_map": {"a": "pytorch_model.bin"}}, "names 'pytorch_model.bin'"),
        ("model.safetensors.index.json", {"weight_map": ["x"]}, "names ''"),
        ("model.safetensors.index.json", {"weight_map": {"a": "b.safetensors"}}, "lacks 1 files"),
        ("chat_template.jinja", "x" * (MAX_TEMPLATE_BYTES + 1), "chat_template.jinja holds a chat template of"),
        ("additional_chat_templates/rag.jinja", "x" * (MAX_TEMPLATE_BYTES + 1), "rag.jinja holds a chat template of"),
        ("tokenizer_config.json", {"chat_template": "x" * MAX_TEMPLATE_BYTES}, "tokenizer_config.json holds a chat"),
        ("tokenizer_config.json", {"chat_template": [{"template": "x" * MAX_TEMPLATE_BYTES}]}, "holds a chat"),
    ],
)
def test_each_hostile_file_is_one_problem(folder: Path, name: str, value: object, rule: str):
    write(folder / name, value)
    assert rule in only(folder)


def test_an_adapter_is_told_twice_when_it_brings_code(folder: Path):
    write(folder / "adapter_config.json", {"base_model_name_or_path": "org/other"})
    assert "adapter_config.json makes it an adapter" in only(folder)
    write(folder / "adapter_config.json", {"auto_mapping": {"base_model_class": "X", "parent_library": "evil"}})
    assert ["adapter" in p.rule or "`auto_mapping`" in p.rule for p in folder_problems(folder)] == [True, True]


def test_giant_json_is_not_read(folder: Path):
    os.truncate(folder / "tokenizer.json", MAX_JSON_BYTES + 1)  # a hole in the file: no disk, no memory
    assert "below 64 MiB: tokenizer.json" in only(folder)
    write(folder / "tokenizer.json", {})
    write(folder / "trainer_state.json", {})
    os.truncate(folder / "trainer_state.json", MAX_JSON_BYTES + 1)
    assert folder_problems(folder) == []


def test_links_may_not_leave_the_folder(folder: Path, tmp_path: Path):
    (folder / "same.txt").symlink_to("config.json")
    assert folder_problems(folder) == []
    (tmp_path / "secret").write_text("x")
    (folder / "vocab.txt").symlink_to(tmp_path / "secret")
    assert only(folder) == "vocab.txt is a link to a file outside of it"
    (folder / "vocab.txt").unlink()
    (folder / "sub").symlink_to("/")
    assert only(folder) == "sub is a link to a file outside of it"


def test_the_hub_s_cache_may_link_into_its_own_blobs(folder: Path, tmp_path: Path):
    snapshot = tmp_path / "models--org--name" / "snapshots" / "abc"
    blobs = tmp_path / "models--org--name" / "blobs"
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    (snapshot / "config.json").rename(tmp_path / "moved")
    blobs.mkdir()
    (tmp_path / "moved").rename(blobs / "123")
    (snapshot / "config.json").symlink_to("../../blobs/123")
    assert folder_problems(snapshot) == []
    (snapshot / "other").symlink_to("../../../elsewhere")
    assert only(snapshot) == "other is a link to a file outside of it"


def test_what_is_no_file(folder: Path):
    os.mkfifo(folder / "pipe.json")
    (found, *_) = folder_problems(folder)
    assert found.rule == "pipe.json is neither a file nor a folder"


def test_harmless_settings_of_real_models_pass(folder: Path):
    settings = {
        "_attn_implementation_autoset": True,
        "attn_implementation": "eager",
        "_attn_implementation": "sdpa",
        "trust_remote_code": False,
        "vision_config": {"_attn_implementation": None},
    }
    write(folder / "config.json", settings)
    write(folder / "model.safetensors.index.json", {"weight_map": {"a": "model.safetensors"}})
    (folder / "training_args.bin").write_bytes(b"never opened")
    assert folder_problems(folder) == []


def test_pickles_in_place_of_safetensors_are_named(folder: Path):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert only(folder) == "lacks weights (*.safetensors); pytorch_model.bin may be a pickle, which runs code when read"


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("evil_was_here",)


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "training_args.bin", "model.pt", "tokenizer.pkl", "rng_state.pth"]
)
def test_a_pickle_beside_safetensors_is_never_opened(
    base_folder: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    for path in base_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_bytes(pickle.dumps(_Evil()))
    load_tokenizer(tmp_path)
    load_causal_lm(tmp_path, device=torch.device("cpu"), dtype=Dtype.FLOAT32)
    assert not Path("evil_was_here").exists()
    pickle.loads((tmp_path / name).read_bytes())
    assert Path("evil_was_here").exists(), "the pickle would have worked"


def test_every_place_that_names_a_model_is_checked(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder.parent)
    write(folder / "config.json", {"auto_map": CODE, "eos_token_id": 0, "pad_token_id": 1})
    words = ["model=pretrained", "model.path=model", "sft.from=./model", "reward.from=./model"]
    with pytest.raises(ConfigError) as caught:
        check([*words, "ppo.reward_models=[./model]"])
    fields = [problem.field for problem in caught.value.problems if "`auto_map`" in problem.rule]
    assert fields == ["model.path", "sft.from", "reward.from", "ppo.reward_models"]


def test_a_good_folder_has_no_problems_of_files(base_folder: Path, sft_folder: Path, reward_folder: Path):
    for made in (base_folder, sft_folder, reward_folder):
        assert folder_problems(made) == []
    (point,) = check([f"sft.from={sft_folder}"])
    assert file_problems(point.config) == []
