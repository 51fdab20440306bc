import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from reward.calibration import Calibration, fit_temperature
from reward.config import RewardConfig
from reward.data import Comparison, encode_comparisons
from reward.model import RewardModel
from reward.train import RewardResult, margins, train_reward
from sft.config import Dtype, Schedule
from sft.core.errors import DataError
from sft.core.text import TokenLimits, encode_answer, encode_prompt, user
from sft.core.tracking import NullTracker
from sft.data import Example

TASKS = ("plant a tree", "cook rice", "bake bread", "hang a picture", "sew a button", "fix a tire")
ENDS = ("good luck .", "let me know .", "plan two hours .", "it takes ten minutes .")


def comparison(task: str, end: str) -> Comparison:
    return Comparison(user(f"how do i {task} ?"), f"of course . {end}", f"figure it out . {end}")


TRAIN = [comparison(task, end) for task in TASKS for end in ENDS]
VALIDATION = [comparison(task, end) for task in ("paint a wall", "cut the grass") for end in ENDS]
REFERENCES = [Example(c.prompt, c.rejected) for c in VALIDATION[:4]]
CONFIG = RewardConfig(
    learning_rate=3e-3,
    num_train_epochs=6,
    per_device_train_batch_size=8,
    eval_steps=6,
    lr_scheduler_type=Schedule.CONSTANT,
)


@pytest.fixture(scope="module")
def train(base_folder, limits, runtime):
    def trained(out_dir: Path, config: RewardConfig = CONFIG, **changes) -> RewardResult:
        settings = {
            "train": TRAIN,
            "validation": VALIDATION,
            "references": REFERENCES,
            "limits": limits,
            "seed": 0,
            "tracker": NullTracker(),
        }
        return train_reward(config, sft=base_folder, runtime=runtime, out_dir=out_dir, **(settings | changes))

    return trained


@pytest.fixture(scope="module")
def result(train, tmp_path_factory) -> RewardResult:
    return train(tmp_path_factory.mktemp("reward") / "out")


@pytest.fixture(scope="module")
def trained(result) -> RewardModel:
    return RewardModel.load(result.checkpoint, device=torch.device("cpu"), dtype=Dtype.FLOAT32, max_prompt_tokens=32)


# Rows


def test_ids_are_those_of_sft_and_ppo(tokenizer):
    (row,) = encode_comparisons(tokenizer, TRAIN[:1], TokenLimits(50, 50)).rows
    prompt = encode_prompt(tokenizer, TRAIN[0].prompt)
    assert row == {
        "chosen_ids": prompt + encode_answer(tokenizer, TRAIN[0].chosen),
        "rejected_ids": prompt + encode_answer(tokenizer, TRAIN[0].rejected),
    }


def test_what_does_not_fit_is_counted(tokenizer):
    lengths = [len(encode_answer(tokenizer, text)) - 1 for text in (TRAIN[0].chosen, TRAIN[0].rejected)]
    assert lengths[0] != lengths[1], "the longer answer decides"
    fits = encode_comparisons(tokenizer, TRAIN[:1], TokenLimits(5, max(lengths)))
    assert (fits.prompts_shortened, fits.left_out, fits.kept) == (1, 0, TRAIN[:1])
    assert fits.rows[0]["chosen_ids"][:5] == encode_prompt(tokenizer, TRAIN[0].prompt)[-5:]
    found = encode_comparisons(tokenizer, TRAIN[:1], TokenLimits(50, max(lengths) - 1))
    assert found == ([], [], 0, 1)


# Training


def test_accuracy_rises(result, trained, reward_model):
    before = float(np.mean(margins(reward_model, VALIDATION) > 0))
    assert result.metrics["validation_accuracy"] == 1.0 > before
    assert (margins(trained, VALIDATION) > 0).all()
    assert result.steps == 18
    assert result.metrics["comparisons"] == 24
    assert result.metrics["validation_comparisons"] == 8


def test_files_are_safe_and_complete(result):
    names = {path.relative_to(result.checkpoint).as_posix() for path in result.checkpoint.rglob("*")}
    assert {"model.safetensors", "config.json", "tokenizer.json", "calibration.json"} <= names
    assert {Path(name).suffix for name in names} <= {".safetensors", ".json", ".jinja"}
    config = json.loads((result.checkpoint / "config.json").read_text())
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    assert config["pad_token_id"] == 0


def test_score_0_is_the_level_of_the_references(result, trained):
    scores = trained.score_texts([(example.prompt, example.answer) for example in REFERENCES])
    assert scores.mean() == pytest.approx(0, abs=1e-4)
    stored = Calibration.load(result.checkpoint)
    assert stored == (result.metrics["offset"], result.metrics["temperature"])


def test_the_temperature_is_that_of_the_validation_margins(result, trained):
    raw = margins(trained, VALIDATION) * result.metrics["temperature"]
    assert result.metrics["temperature"] == pytest.approx(fit_temperature(raw), rel=1e-3)


def test_the_validation_loss_is_bradley_terry(train, tmp_path):
    """-log sigmoid of the raw margin; the best checkpoint is kept while the loss of turned pairs rises."""
    config = RewardConfig(**(asdict(CONFIG) | {"eval_steps": 1, "learning_rate": 1e-3}))
    turned = [Comparison(c.prompt, c.rejected, c.chosen) for c in VALIDATION]
    result = train(tmp_path / "out", config, validation=turned)
    model = RewardModel.load(result.checkpoint, device=torch.device("cpu"), dtype=Dtype.FLOAT32, max_prompt_tokens=32)
    raw = -margins(model, VALIDATION) * result.metrics["temperature"]
    losses = [point["validation"] for point in result.loss if point["validation"] is not None]
    assert np.mean(np.log1p(np.exp(-raw))) == pytest.approx(min(losses), rel=1e-3)
    assert losses[-1] > min(losses) + 0.1
    assert result.steps == losses.index(min(losses)) + 1 + CONFIG.early_stopping_patience < 18


def test_same_seed_same_weights_and_the_config_stays(train, result, tmp_path):
    before = asdict(CONFIG)
    again = load_file(train(tmp_path / "again").checkpoint / "model.safetensors")
    first = load_file(result.checkpoint / "model.safetensors")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert "score.weight" in first
    assert asdict(CONFIG) == before


def test_what_was_left_out_is_reported(train, tmp_path):
    long = Comparison(TRAIN[0].prompt, "of course .", "very long " * 40)
    far = Comparison(user("please " * 40 + "help me"), "of course .", "figure it out .")
    result = train(tmp_path / "out", train=[*TRAIN, long, far], validation=[*VALIDATION, long])
    assert result.metrics["comparisons_left_out"] == 2
    assert result.metrics["prompts_shortened"] == 1
    assert result.metrics["comparisons"] == 25


@pytest.mark.parametrize("split", ["train", "validation"])
def test_an_empty_split_is_an_error_that_says_why(train, tmp_path, split: str):
    with pytest.raises(DataError, match=rf"no usable comparison in the {split} split \(0 left out as longer than"):
        train(tmp_path / "out", **{split: []})
    assert not (tmp_path / "out").exists()
