import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_reward_train import CONFIG, REFERENCES, TRAIN, VALIDATION

from reward.adapter import FOLDER, adapter_rank, load_adapter
from reward.model import RewardModel
from reward.train import RewardResult, train_reward
from sft.config import Dtype
from sft.core.errors import DataError
from sft.core.tracking import NullTracker

RANK, ALPHA = 3, 5.0


@pytest.fixture(scope="module")
def result(base_folder, limits, runtime, tmp_path_factory) -> RewardResult:
    return train_reward(
        replace(CONFIG, lora_r=RANK, lora_alpha=ALPHA),
        sft=base_folder,
        train=TRAIN,
        validation=VALIDATION,
        references=REFERENCES,
        limits=limits,
        runtime=runtime,
        seed=0,
        out_dir=tmp_path_factory.mktemp("reward") / "out",
        tracker=NullTracker(),
    )


@pytest.fixture
def copied(result: RewardResult, tmp_path: Path) -> Path:
    return Path(shutil.copytree(result.checkpoint, tmp_path / "copy"))


def test_it_learns_and_only_adapted_weights_and_the_head_differ_from_the_base(result, base_folder):
    assert result.metrics["validation_accuracy"] >= 0.9
    base, trained = load_file(base_folder / "model.safetensors"), load_file(result.checkpoint / "model.safetensors")
    changed = {name for name, weight in trained.items() if name not in base or not torch.equal(weight, base[name])}
    linear = {name for name in trained if "_proj." in name}
    assert len(linear) == 7 * 2
    assert changed == linear | {"score.weight"}


def test_merged_weights_are_the_base_and_the_scaled_product(result, base_folder):
    adapter = load_adapter(result.checkpoint, base=base_folder)
    assert adapter is not None
    assert (adapter.r, adapter.alpha) == (RANK, ALPHA)
    base, trained = load_file(base_folder / "model.safetensors"), load_file(result.checkpoint / "model.safetensors")
    name = "model.layers.1.mlp.up_proj"
    product = adapter.matrices[f"{name}.lora_B"] @ adapter.matrices[f"{name}.lora_A"]
    torch.testing.assert_close(base[f"{name}.weight"] + ALPHA / RANK * product, trained[f"{name}.weight"])
    assert torch.equal(adapter.head, trained["score.weight"])


def test_the_calibration_is_that_of_the_merged_model(result):
    model = RewardModel.load(result.checkpoint, device=torch.device("cpu"), dtype=Dtype.FLOAT32, max_prompt_tokens=50)
    scores = model.score_texts([(example.prompt, example.answer) for example in REFERENCES])
    assert abs(scores.mean()) < 1e-5


def test_adapters_of_another_base_are_not_taken(result, base_folder, tmp_path):
    other = Path(shutil.copytree(base_folder, tmp_path / "other"))
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"] += 1e-3
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    assert load_adapter(result.checkpoint, base=other) is None
    assert adapter_rank(result.checkpoint, base=other) is None
    assert adapter_rank(result.checkpoint, base=base_folder) == RANK


def test_a_model_that_was_trained_whole_has_none(base_folder):
    assert load_adapter(base_folder, base=base_folder) is None


@pytest.mark.parametrize("text", ["", "[]", '{"r": "x", "alpha": 1, "base": ""}', '{"r": 1}'])
def test_a_damaged_description_is_an_error_that_names_the_file(copied, base_folder, text):
    (copied / FOLDER / "adapter.json").write_text(text)
    with pytest.raises(DataError, match=r"adapter\.json does not describe adapters"):
        load_adapter(copied, base=base_folder)


def test_a_lost_head_is_an_error(copied, base_folder):
    path = copied / FOLDER / "adapter.safetensors"
    weights = load_file(path)
    del weights["score.weight"]
    save_file(weights, path)
    with pytest.raises(DataError, match=r"has no score\.weight"):
        load_adapter(copied, base=base_folder)


def test_the_description_names_rank_scale_and_base(result):
    about = json.loads((result.checkpoint / FOLDER / "adapter.json").read_text())
    assert about.keys() == {"r", "alpha", "base"}
