from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sft.config import Device, Dtype, RuntimeConfig, Schedule, SFTConfig
from sft.core.errors import DataError
from sft.core.generation import pad_left, pad_right
from sft.core.likelihood import token_statistics
from sft.core.text import TokenLimits, encode_answer, encode_prompt, user
from sft.core.tracking import NullTracker
from sft.data import Example
from sft.model import load_causal_lm, load_tokenizer
from sft.train import SFTResult, encode_examples, train_sft
from sft.trainer import with_lengths

CPU = torch.device("cpu")
ANSWERS = {"plant a tree": "big shovel .", "cook rice": "deep pot .", "bake bread": "hot oven ."}
TRAIN = [Example(user(f"how do i {task} {i} ?"), answer) for i in range(8) for task, answer in ANSWERS.items()]
VALIDATION = [Example(user(f"help me {task} ?"), answer) for task, answer in ANSWERS.items()]
WRONG = [Example(example.prompt, "cvxqz jwk !") for example in VALIDATION]
"""Answers that get less likely with every step that learns TRAIN."""
CONFIG = SFTConfig(
    learning_rate=1e-2,
    num_train_epochs=4,
    per_device_train_batch_size=8,
    eval_steps=4,
    lr_scheduler_type=Schedule.CONSTANT,
)


class Recorder(NullTracker):
    def __init__(self) -> None:
        self.total = 0
        self.rows: list[tuple[int, dict[str, float]]] = []

    def start(self, total: int, unit: str) -> None:
        self.total = total

    def log(self, step: int, metrics) -> None:
        self.rows.append((step, dict(metrics)))


@pytest.fixture(scope="module")
def train(base_folder, limits, runtime):
    def trained(out_dir: Path, config: SFTConfig = CONFIG, **changes) -> SFTResult:
        settings = {"train": TRAIN, "validation": VALIDATION, "limits": limits, "seed": 0, "tracker": NullTracker()}
        settings |= {"runtime": runtime}
        return train_sft(config, base=base_folder, pad_token=None, out_dir=out_dir, **(settings | changes))

    return trained


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
def result(train, recorder, tmp_path_factory) -> SFTResult:
    return train(tmp_path_factory.mktemp("sft") / "out", tracker=recorder)


def loss_of(folder: Path, examples: list[Example]) -> float:
    """Return the mean negative log-likelihood of answer tokens and EOS."""
    model, tokenizer = load_causal_lm(folder, device=CPU, dtype=Dtype.FLOAT32), load_tokenizer(folder)
    prompts = pad_left([encode_prompt(tokenizer, e.prompt) for e in examples], tokenizer.pad_token_id, CPU)
    answers = pad_right([encode_answer(tokenizer, e.answer) for e in examples], tokenizer.pad_token_id, CPU)
    with torch.no_grad():
        logprobs_BR = token_statistics(model, prompts, answers).logprobs_BR
    return float(-logprobs_BR[answers.mask_BR].mean())


# Rows


def test_labels_are_the_answer_and_its_eos_alone(tokenizer):
    (row,) = encode_examples(tokenizer, TRAIN[:1], TokenLimits(50, 50)).rows
    before = tokenizer("<|user|>how do i plant a tree 0 ?<|assistant|>", add_special_tokens=False)["input_ids"]
    answer = [*tokenizer("big shovel .", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    assert row == {"input_ids": before + answer, "labels": [-100] * len(before) + answer}


def test_what_does_not_fit_is_counted(tokenizer):
    answer = tokenizer("big shovel .", add_special_tokens=False)["input_ids"]
    prompt = encode_prompt(tokenizer, TRAIN[0].prompt)
    found = encode_examples(tokenizer, TRAIN[:1], TokenLimits(5, len(answer)))
    assert (found.prompts_shortened, found.left_out) == (1, 0)
    assert found.rows[0]["input_ids"][:5] == prompt[-5:]
    assert found.rows[0]["input_ids"][5:] == [*answer, tokenizer.eos_token_id]
    found = encode_examples(tokenizer, TRAIN[:1], TokenLimits(len(prompt), len(answer) - 1))
    assert (found.rows, found.prompts_shortened, found.left_out) == ([], 0, 1)


def test_rows_carry_the_length_they_are_grouped_by():
    rows = [{"a": [1, 2], "b": [3]}, {"a": [4], "b": [5, 6, 7]}]
    assert with_lengths(rows, "a")["length"] == [2, 1]
    assert with_lengths(rows, "a", "b").to_list() == [rows[0] | {"length": 2}, rows[1] | {"length": 3}]


# Training


def test_it_learns(result, base_folder):
    assert result.metrics["eval_loss"] < 0.5 * loss_of(base_folder, VALIDATION)
    assert result.steps == 12
    assert result.metrics["examples"] == 24
    assert result.metrics["validation_examples"] == 3
    assert result.metrics["answers_left_out"] == result.metrics["prompts_shortened"] == 0


def test_the_loss_counts_answer_and_eos_and_not_the_prompt(result):
    assert result.metrics["eval_loss"] == pytest.approx(loss_of(result.checkpoint, VALIDATION), rel=1e-4)


def test_no_pickle_and_no_checkpoint_is_left(result):
    names = {path.relative_to(result.checkpoint).as_posix() for path in result.checkpoint.rglob("*")}
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= names
    assert {Path(name).suffix for name in names} <= {".safetensors", ".json", ".jinja"}


def test_the_tracker_hears_of_steps_and_losses(result, recorder):
    assert recorder.total == 12
    assert [step for step, numbers in recorder.rows if "eval_loss" in numbers] == [4, 8, 12, 12]
    assert [point["step"] for point in result.loss if point["validation"] is not None] == [4, 8, 12, 12]
    assert all(point["train"] is not None or point["validation"] is not None for point in result.loss)


def test_same_seed_same_weights_and_the_config_stays(train, result, tmp_path):
    before = asdict(CONFIG)
    again = train(tmp_path / "again")
    first, second = (load_file(r.checkpoint / "model.safetensors") for r in (result, again))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert asdict(CONFIG) == before
    other = load_file(train(tmp_path / "other", seed=1).checkpoint / "model.safetensors")
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_the_best_checkpoint_is_kept_and_training_stops_early(train, tmp_path):
    config = SFTConfig(**(asdict(CONFIG) | {"eval_steps": 2, "early_stopping_patience": 2, "num_train_epochs": 20}))
    result = train(tmp_path / "out", config, validation=WRONG)
    losses = [point["validation"] for point in result.loss if point["validation"] is not None][:-1]
    best = losses.index(min(losses))
    assert result.steps == 2 * len(losses) == 2 * (best + 1 + 2) < 60
    assert losses[-1] > losses[best] + 0.1
    assert result.metrics["eval_loss"] == pytest.approx(min(losses), rel=1e-5)
    assert loss_of(result.checkpoint, WRONG) == pytest.approx(min(losses), rel=1e-4)


@pytest.mark.parametrize(("split", "count"), [("train", len(TRAIN)), ("validation", len(VALIDATION))])
def test_an_empty_split_is_an_error_that_says_why(train, tmp_path, split, count):
    with pytest.raises(DataError, match=rf"no usable demonstration in the {split} split \(0 left out"):
        train(tmp_path / "out", **{split: []})
    long = [Example(example.prompt, "very long " * 40) for example in (TRAIN if split == "train" else VALIDATION)]
    with pytest.raises(DataError, match=rf"{split} split \({count} left out as longer than data.max_answer_tokens=48"):
        train(tmp_path / "out", **{split: long})
    assert not (tmp_path / "out").exists()


def test_a_loss_that_is_no_number_stops_the_run(train, tmp_path):
    config = SFTConfig(**(asdict(CONFIG) | {"learning_rate": 1e30, "max_grad_norm": 1e30, "eval_steps": 2}))
    with pytest.raises(DataError, match=r"became (nan|inf) at step .*; lower the learning rate"):
        train(tmp_path / "out", config)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device that is taken is the GPU")
def test_bfloat16_trains_without_a_gpu_where_the_device_is_not_said(train, tmp_path):
    """transformers refuses bfloat16 on a CPU that it was not told of."""
    automatic = RuntimeConfig(device=Device.AUTO, dtype=Dtype.BFLOAT16, threads=1)
    found = train(tmp_path / "out", replace(CONFIG, num_train_epochs=1), runtime=automatic)
    assert found.steps > 0
