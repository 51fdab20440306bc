"""What SFT and reward training share: TRL's arguments from our settings, and a callback that reports to a Tracker."""

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import datasets
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from sft.config import Dtype, RuntimeConfig, TrainerConfig
from sft.core.errors import DataError
from sft.core.quiet import quiet_libraries
from sft.core.tracking import Tracker
from sft.model import torch_device

LENGTH = "length"
"""Column with the number of tokens of a row; rows of similar length share a batch, which saves padding."""


class LossPoint(TypedDict):
    """One look at the loss, as the report plots it."""

    step: int
    train: float | None
    validation: float | None


def quiet_trainers() -> None:
    """Stop progress bars and advice of the training libraries too; our own Tracker speaks."""
    quiet_libraries()
    # TRL turns this old name on by default, so it must be turned off by this name.
    warnings.filterwarnings("ignore", message="`gradient_checkpointing` is deprecated", category=FutureWarning)
    datasets.disable_progress_bars()


class TrainingSettings(TypedDict):
    """The arguments that `trl.SFTConfig` and `trl.RewardConfig` get in common."""

    output_dir: str
    learning_rate: float
    num_train_epochs: float
    per_device_train_batch_size: int
    per_device_eval_batch_size: int
    gradient_accumulation_steps: int
    lr_scheduler_type: str
    warmup_steps: int
    weight_decay: float
    max_grad_norm: float
    eval_strategy: str
    eval_steps: int
    save_strategy: str
    save_steps: int
    save_total_limit: int
    save_only_model: bool
    load_best_model_at_end: bool
    metric_for_best_model: str
    greater_is_better: bool
    logging_steps: int
    logging_nan_inf_filter: bool
    report_to: list[str]
    disable_tqdm: bool
    seed: int
    data_seed: int
    bf16: bool
    gradient_checkpointing: bool
    use_cpu: bool
    max_length: None
    dataloader_pin_memory: bool
    restore_callback_states_from_checkpoint: bool
    train_sampling_strategy: str
    length_column_name: str
    remove_unused_columns: bool


def training_settings(config: TrainerConfig, runtime: RuntimeConfig, *, seed: int, out_dir: Path) -> TrainingSettings:
    """Return the arguments of both trainers; `max_length=None` since rows are measured and counted before."""
    return TrainingSettings(
        output_dir=str(out_dir),
        learning_rate=config.learning_rate,
        num_train_epochs=config.num_train_epochs,
        per_device_train_batch_size=config.per_device_train_batch_size,
        per_device_eval_batch_size=4 * config.per_device_train_batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        lr_scheduler_type=str(config.lr_scheduler_type),
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        eval_strategy="steps",
        eval_steps=config.eval_steps,
        save_strategy="steps",
        save_steps=config.eval_steps,
        save_total_limit=1,
        save_only_model=True,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        logging_steps=max(1, config.eval_steps // 5),
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        seed=seed,
        data_seed=seed,
        bf16=runtime.dtype is Dtype.BFLOAT16,
        gradient_checkpointing=False,
        use_cpu=torch_device(runtime).type == "cpu",
        max_length=None,
        dataloader_pin_memory=False,
        restore_callback_states_from_checkpoint=True,
        train_sampling_strategy="group_by_length",
        length_column_name=LENGTH,
        remove_unused_columns=False,  # would remove the lengths; the collators take only what they know
    )


class TrackerCallback(TrainerCallback):
    """Sends what the trainer logs to a Tracker, and stops at the first loss that is no number."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Start the progress bar."""
        self.tracker.start(state.max_steps, "step")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        """Forward the numbers."""
        numbers = {key: float(value) for key, value in (logs or {}).items() if isinstance(value, int | float)}
        self.tracker.log(state.global_step, numbers)
        if not math.isfinite(numbers.get("loss", 0.0)):
            raise DataError(
                f"the training loss became {numbers['loss']} at step {state.global_step}; "
                "lower the learning rate or look for broken rows, then run the same command again"
            )


def with_lengths(rows: Sequence[Mapping[str, list[int]]], *columns: str) -> datasets.Dataset:
    """Return rows as a dataset with the length of the longest of the given columns."""
    return datasets.Dataset.from_list([{**row, LENGTH: max(len(row[column]) for column in columns)} for row in rows])


def silence(trainer: Trainer) -> None:
    """Remove the callback that prints every log as a dict; the Tracker has it."""
    trainer.remove_callback(PrinterCallback)


def callbacks(config: TrainerConfig, tracker: Tracker) -> list[TrainerCallback]:
    """Return the callbacks of both trainers."""
    return [TrackerCallback(tracker), EarlyStoppingCallback(config.early_stopping_patience)]


def loss_history(state: TrainerState) -> list[LossPoint]:
    """Return the losses in the order of their steps, as the report plots them."""
    points = []
    for entry in state.log_history:
        train, validation = entry.get("loss"), entry.get("eval_loss")
        if train is not None or validation is not None:
            points.append(LossPoint(step=int(entry["step"]), train=train, validation=validation))
    return points
