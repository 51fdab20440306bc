"""How SFT and reward training carry on: all that decides the next steps, between a trainer and a CheckpointStore.

transformers' own checkpoints hold pickles and are not written atomically, a missing optimiser or random state passes
without a word, and after a resume in a later epoch the rows come in another order, since the order is drawn from the
state that the generators have when an epoch begins. Here everything is kept, as safetensors and JSON, or refused.
"""

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sft.core.checkpoint import Checkpoint, CheckpointStore, LoadedCheckpoint, optimizer_tensors, restore_optimizer
from sft.core.durable import storage_errors
from sft.core.interruption import Interruption
from sft.random_state import RandomState, random_state, set_random_state
from sft.selection import Selection, Weights, put_tensors, trained_tensors

LIBRARIES = ("transformers", "trl", "accelerate")
"""They compute too, so that another version of one may give other bits."""

_WEIGHTS, _STATE = "model.safetensors", "trainer_state.json"
"""The files by which transformers knows a checkpoint."""


class Carried(NamedTuple):
    """Where a run carries on."""

    state: TrainerState
    tokens: int
    """How many were trained on."""
    finished: bool
    """Nothing is left to train."""


class Checkpoints(TrainerCallback):
    """Saves what a trainer needs to carry on, and gives it back.

    Args:
        store: where checkpoints lie; None: nowhere, then only signals are answered.
        model: what is trained.
        selection: the best weights so far, which are part of a checkpoint.
        device: where the model runs.
        examine: is called with weights and step before they are saved; raises if they must not be.
    """

    def __init__(
        self,
        store: CheckpointStore | None,
        model: torch.nn.Module,
        selection: Selection,
        *,
        device: torch.device,
        examine: Callable[[Weights, int], None],
    ) -> None:
        self.interruption = Interruption()
        self._store = store
        self._model = model
        self._selection = selection
        self._device = device
        self._examine = examine
        self._epoch_random = random_state(device)
        self._pending: LoadedCheckpoint | None = None
        self._optimizer: Any = None
        self._scheduler: Any = None
        self._last = 0

    # Saving

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Ask for a checkpoint after a signal; have the loss told before, so that none is half counted."""
        control.should_save |= self.interruption.requested is not None
        control.should_log |= control.should_save or control.should_evaluate

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Ask for a checkpoint where training ends early, or a signal came during the look."""
        control.should_save |= control.should_training_stop or self.interruption.requested is not None

    def save(self, state: TrainerState, control: TrainerControl, tokens: int) -> None:
        """Write a checkpoint of the step that was just finished, then stop if a signal came.

        Args:
            state: the trainer's.
            control: says whether training ends here.
            tokens: how many were trained on.

        Raises:
            DataError: weights that must not be kept.
            Interrupted: a signal came; the step was saved.
            StorageError: the disk refuses; the checkpoint before is as it was.
        """
        if self._store is not None:
            weights = trained_tensors(self._model)
            self._examine(weights, state.global_step)
            now, selection = random_state(self._device), self._selection
            optimizer = optimizer_tensors(self._optimizer, _names(self._model, self._optimizer))
            tensors = {"model": weights, "optimizer": optimizer.tensors}
            tensors |= {"random": now.tensors, "random-of-epoch": self._epoch_random.tensors}
            if selection.weights and selection.step != state.global_step:
                tensors["best"] = selection.weights
            stored = {
                "finished": bool(control.should_training_stop),
                "selection": selection.as_json(),
                "optimizer": optimizer.state,
                "scheduler": self._scheduler.state_dict(),
                "random": now.plain,
                "random-of-epoch": self._epoch_random.plain,
                "trainer": json.dumps(dataclasses.asdict(state)),  # a text: metrics may be NaN, which JSON lacks
                "tokens": int(tokens),
            }
            self._store.save(state.global_step, tensors, stored)
            self._last = state.global_step
        self.interruption.raise_if_requested(f"step {self._last}")

    # Carrying on

    def restore(self, loaded: LoadedCheckpoint) -> Carried:
        """Put a checkpoint's weights into the model; optimiser and generators wait until training begins."""
        stored: dict[str, Any] = loaded.state
        put_tensors(self._model, loaded.tensors["model"])
        best = loaded.tensors.get("best", loaded.tensors["model"] if stored["selection"]["loss"] is not None else {})
        self._selection.restore(stored["selection"], best)
        self._pending, self._last = loaded, loaded.step
        return Carried(TrainerState(**json.loads(stored["trainer"])), stored["tokens"], stored["finished"])

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Give optimiser and schedule what they had."""
        self._optimizer, self._scheduler = given["optimizer"], given["lr_scheduler"]
        state.save_steps = int(args.save_steps)  # the one setting that may change between two attempts
        if self._pending is not None:
            stored: dict[str, Any] = self._pending.state
            moments = self._pending.tensors.get("optimizer", {})
            restore_optimizer(self._optimizer, _names(self._model, self._optimizer), moments, stored["optimizer"])
            self._scheduler.load_state_dict(stored["scheduler"])

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Before the order of an epoch's rows is drawn: draw the one that was drawn before, or note how it is drawn."""
        if self._pending is None:
            self._epoch_random = random_state(self._device)
        elif float(state.epoch or 0).is_integer():
            set_random_state(self._random("random"), self._device)
            self._epoch_random, self._pending = self._random("random"), None
        else:
            self._epoch_random = self._random("random-of-epoch")
            set_random_state(self._epoch_random, self._device)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """After the rows that are done were passed over: put the generators where they stood."""
        if self._pending is not None:
            set_random_state(self._random("random"), self._device)
            self._pending = None

    def _random(self, name: str) -> RandomState:
        assert self._pending is not None
        plain = self._pending.state[name]
        assert isinstance(plain, dict)
        return RandomState(self._pending.tensors[name], plain)


@contextmanager
def as_transformers_likes(found: Checkpoint, state: TrainerState) -> Iterator[Path]:
    """Give a folder for `Trainer.train(resume_from_checkpoint=...)`: weights and the trainer's state, no more."""
    with storage_errors(found.folder):
        view = Path(tempfile.mkdtemp(prefix=".tmp-", dir=found.folder.parent))
        (view / _WEIGHTS).symlink_to(found.folder.absolute() / _WEIGHTS)
        state.save_to_json(str(view / _STATE))
    try:
        yield view
    finally:
        shutil.rmtree(view, ignore_errors=True)


def _names(model: torch.nn.Module, optimizer: Any) -> list[str]:
    """Return the names of an optimiser's parameters, in the order of its groups."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
