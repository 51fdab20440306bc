"""What SFT and reward training share: TRL's arguments from our settings, and training that can be carried on."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import datasets
import torch
from safetensors import SafetensorError
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from sft.checkpoints import LIBRARIES, Checkpoints, as_transformers_likes
from sft.config import Dtype, RuntimeConfig, TrainerConfig
from sft.core.checkpoint import CheckpointStore, Saving
from sft.core.durable import storage_errors
from sft.core.errors import StorageError
from sft.core.out_of_memory import memory_errors
from sft.core.quiet import quiet_libraries
from sft.core.tracking import Tracker
from sft.divergence import Batch, Diverged, Guard
from sft.model import torch_device
from sft.selection import Selection

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
        save_steps=config.save_steps or config.eval_steps,
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


def begin(tracker: Tracker, state: TrainerState) -> None:
    """Start the progress bar; where training carries on, at its step, and say so in the ledger."""
    tracker.start(state.max_steps, "step")
    if state.global_step:
        tracker.log(state.global_step, {"resumed": 1.0})


class TrackerCallback(TrainerCallback):
    """Sends what the trainer logs to a Tracker."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Start the progress bar, where training carries on at its step."""
        begin(self.tracker, state)

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


def with_lengths(rows: Sequence[Mapping[str, list[int]]], *columns: str) -> datasets.Dataset:
    """Return rows as a dataset with the length of the longest of the given columns."""
    return datasets.Dataset.from_list([{**row, LENGTH: max(len(row[column]) for column in columns)} for row in rows])


class Resumable(Trainer):
    """Goes before TRL's trainer among the bases of ours: guards every step, and saves in our own form."""

    checkpoints: Checkpoints
    guard: Guard
    _total_train_tokens: int
    """TRL's count of tokens, which it reports."""

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Compute gradients, and raise DataError where a loss or a gradient is no number."""
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.guard.note(Batch(loss, ids, mask))
        if self.accelerator.sync_gradients:
            self.guard.examine_step(model, self.state.global_step + 1)
        return loss

    def _save_checkpoint(self, model: torch.nn.Module, trial: object) -> None:
        self.checkpoints.save(self.state, self.control, self._total_train_tokens)


def train_or_carry_on(
    trainer: Resumable,
    model: torch.nn.Module,
    guard: Guard,
    *,
    patience: int,
    device: torch.device,
    saving: Saving | None,
    tracker: Tracker,
) -> None:
    """Train, or carry on from the newest checkpoint; leave the weights with the lowest validation loss in the model.

    Args:
        trainer: with all it needs but callbacks.
        model: what it trains.
        guard: stops steps that must not be.
        patience: looks without a better validation loss before training stops.
        device: where the model is.
        saving: where checkpoints lie; a run with the same fingerprint carries on. None: no checkpoints.
        tracker: where the numbers go.

    Raises:
        ConfigError: the newest checkpoint was made in another environment, see `CheckpointStore.latest`.
        DataError: a loss, gradient or weight that is no number.
        Interrupted: a signal came; the step was finished and saved.
        OutOfMemory: memory did not suffice.
        StorageError: the disk refuses.
    """
    assert trainer.model is model
    store, selection = _open(saving, device), Selection(model, patience)
    trainer.guard = guard
    trainer.checkpoints = Checkpoints(store, model, selection, device=device, examine=guard.examine_weights)
    trainer.remove_callback(PrinterCallback)  # prints every log as a dict; the Tracker has it
    for callback in (TrackerCallback(tracker), selection, trainer.checkpoints):
        trainer.add_callback(callback)
    with memory_errors(_remedy(trainer.args)), trainer.checkpoints.interruption:
        try:
            _carry_on(trainer, store, tracker)
        except Diverged as error:
            tracker.alert("training: not a number", str(error), "ERROR")
            raise
    selection.apply()


def _open(saving: Saving | None, device: torch.device) -> CheckpointStore | None:
    if saving is None:
        return None
    return CheckpointStore(
        saving.folder, fingerprint=saving.fingerprint, device=device, allow=saving.allow, libraries=LIBRARIES
    )


def _carry_on(trainer: Resumable, store: CheckpointStore | None, tracker: Tracker) -> None:
    found = None if store is None else store.latest()
    for message in store.refused if store is not None else ():
        tracker.note(message)
    if store is None or found is None:
        trainer.train()
        return
    carried = trainer.checkpoints.restore(store.read(found))
    trainer.state, trainer._total_train_tokens = carried.state, carried.tokens
    tracker.note(f"carries on after step {found.step} of {carried.state.max_steps}")
    if carried.finished:
        begin(tracker, carried.state)
        return
    with as_transformers_likes(found, carried.state) as view:
        trainer.train(resume_from_checkpoint=str(view))


def _remedy(args: TrainingArguments) -> str:
    size, accumulated = args.per_device_train_batch_size, args.gradient_accumulation_steps
    halve = (
        f"halve per_device_train_batch_size={size} and double gradient_accumulation_steps={accumulated}, which keeps "
        "the rows of a step together, or "
    )
    return f"{halve if size > 1 else ''}give more memory: the same command then carries on after the last checkpoint"


def save_trained(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a model and its tokenizer as Hugging Face lays them out. Raises StorageError when the disk refuses."""
    with storage_errors(folder):
        try:
            model.save_pretrained(folder)
        except SafetensorError as error:
            remedy = "free space or fix permissions, then run the same command again"
            raise StorageError(f"cannot write {folder}: {error}; {remedy}") from error
        tokenizer.save_pretrained(folder)


def loss_history(state: TrainerState) -> list[LossPoint]:
    """Return the losses in the order of their steps, as the report plots them."""
    points = []
    for entry in state.log_history:
        train, validation = entry.get("loss"), entry.get("eval_loss")
        if train is not None or validation is not None:
            points.append(LossPoint(step=int(entry["step"]), train=train, validation=validation))
    return points
