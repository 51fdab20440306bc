"""Small trainings of language model and reward model, with dropout, accumulation and uneven epochs, to be killed."""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from kills import Train

from reward.config import RewardConfig
from reward.data import Comparison
from reward.train import train_reward
from sft.config import RuntimeConfig, Schedule, SFTConfig
from sft.core.text import TokenLimits, user
from sft.data import Example
from sft.train import train_sft

ANSWERS = {"plant a tree": "big shovel .", "cook rice": "deep pot .", "bake bread": "hot oven ."}
ENDS = ("good luck .", "let me know .", "plan two hours .", "it takes ten minutes .")

DEMONSTRATIONS = [
    Example(user(f"how do i {task} {'please ' * (i % 4)}?"), f"{answer} {'and a friend . ' * (i % 3)}".strip())
    for i in range(8)
    for task, answer in ANSWERS.items()
][:-1]
"""23 rows of many lengths: the last batch of an epoch is smaller, and the last step has one batch less."""
VALIDATION = [Example(user(f"help me {task} ?"), answer) for task, answer in ANSWERS.items()]
WRONG = [Example(example.prompt, "cvxqz jwk !") for example in VALIDATION]
"""Answers that get less likely with every step."""
SFT = SFTConfig(
    learning_rate=5e-3,
    num_train_epochs=2.5,
    per_device_train_batch_size=3,
    gradient_accumulation_steps=3,
    warmup_steps=2,
    weight_decay=0.01,
    eval_steps=3,
    save_steps=2,
    lr_scheduler_type=Schedule.COSINE,
)
"""Three steps an epoch, 8 in all; validation after 3, 6 and 8, checkpoints after 2, 4, 6 and 8."""
SFT_STEPS = 8
SFT_EARLY = dataclasses.replace(SFT, num_train_epochs=20, eval_steps=2, save_steps=None, early_stopping_patience=2)


def comparison(task: str, end: str) -> Comparison:
    return Comparison(user(f"how do i {task} ?"), f"of course . {end}", f"figure it out . {end}")


TASKS = (*ANSWERS, "hang a picture", "sew a button")
COMPARISONS = [comparison(task, end) for task in TASKS for end in ENDS][:-1]
HELD_OUT = [comparison("paint a wall", end) for end in ENDS]
TURNED = [Comparison(c.prompt, c.rejected, c.chosen) for c in HELD_OUT]
REFERENCES = [Example(c.prompt, c.rejected) for c in HELD_OUT]
REWARD = RewardConfig(
    learning_rate=3e-3,
    num_train_epochs=3,
    per_device_train_batch_size=6,
    warmup_steps=2,
    eval_steps=3,
    save_steps=2,
    lr_scheduler_type=Schedule.LINEAR,
)
"""Four steps an epoch of which the last is smaller, 12 in all; checkpoints after 2, 4 ... 12."""
REWARD_STEPS = 12
REWARD_ADAPTERS = dataclasses.replace(REWARD, lora_r=2, learning_rate=2e-3, warmup_steps=0, early_stopping_patience=2)


def with_dropout(base: Path, folder: Path) -> Path:
    """Copy a model with dropout, so that its training draws random numbers too."""
    shutil.copytree(base, folder)
    config = json.loads((folder / "config.json").read_text())
    assert config["attention_dropout"] == 0
    (folder / "config.json").write_text(json.dumps(config | {"attention_dropout": 0.2}))
    return folder


def sft(
    base: Path,
    limits: TokenLimits,
    runtime: RuntimeConfig,
    config: SFTConfig = SFT,
    validation: Sequence[Example] = VALIDATION,
) -> Train:
    """Return the command that trains a language model."""

    def train(out_dir, tracker, saving):
        return train_sft(
            config,
            base=base,
            pad_token=None,
            train=DEMONSTRATIONS,
            validation=validation,
            limits=limits,
            runtime=runtime,
            seed=0,
            out_dir=out_dir,
            tracker=tracker,
            saving=saving,
        )

    return train


def reward(
    base: Path,
    limits: TokenLimits,
    runtime: RuntimeConfig,
    config: RewardConfig = REWARD,
    validation: Sequence[Comparison] = HELD_OUT,
) -> Train:
    """Return the command that trains a reward model."""

    def train(out_dir, tracker, saving):
        return train_reward(
            config,
            sft=base,
            train=COMPARISONS,
            validation=validation,
            references=REFERENCES,
            limits=limits,
            runtime=runtime,
            seed=0,
            out_dir=out_dir,
            tracker=tracker,
            saving=saving,
        )

    return train
