"""Which weights are kept: those with the lowest validation loss; training stops after looks without a better one."""

import math
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sft.core.checkpoint import check_alike
from sft.core.errors import DataError

Weights = dict[str, torch.Tensor]


def trained_tensors(model: torch.nn.Module) -> Weights:
    """Return what training changes, by name: parameters with a gradient, and buffers that belong to the weights.

    The tensors share memory with the model. Tied parameters appear once.
    """
    every = dict(model.named_parameters(remove_duplicate=False))
    trained = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    return trained | {name: value for name, value in model.state_dict().items() if name not in every}


def put_tensors(model: torch.nn.Module, tensors: Weights) -> None:
    """Give a model what `trained_tensors` took from one like it, bit by bit.

    Raises:
        DataError: the model is another one: other names, shapes or number formats.
    """
    targets = trained_tensors(model)
    check_alike("model", targets, tensors)
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(tensors[name])


class Selection(TrainerCallback):
    """Keeps a copy of the best weights in CPU memory, and asks to stop when patience ends."""

    loss: float | None = None
    """The lowest validation loss so far; None before the first look."""
    step: int = 0
    """Where it was seen."""
    looks_without: int = 0
    """Looks since then."""
    weights: Weights
    """Those of `step`."""

    def __init__(self, model: torch.nn.Module, patience: int) -> None:
        """Watch a model; allow `patience` looks without a better loss."""
        self.weights = {}
        self._model = model
        self._patience = patience
        self._training = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Count looks from here on."""
        self._training = True

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Look no more: a later evaluation is of the weights that were selected."""
        self._training = False

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Keep the weights if they are the best so far. Raises DataError where the validation loss is no number."""
        if not self._training:
            return
        loss = float(given["metrics"]["eval_loss"])
        if not math.isfinite(loss):
            raise DataError(
                f"the validation loss became {loss} at step {state.global_step}; "
                "lower the learning rate or look for broken rows among the validation data, then run again"
            )
        if self.loss is None or loss < self.loss:
            self.loss, self.step, self.looks_without = loss, state.global_step, 0
            self.weights = {name: value.to("cpu", copy=True) for name, value in trained_tensors(self._model).items()}
        else:
            self.looks_without += 1
        if self.looks_without >= self._patience:
            control.should_training_stop = True

    def as_json(self) -> dict[str, object]:
        """Return all but the weights."""
        return {"loss": self.loss, "step": self.step, "looks_without": self.looks_without}

    def restore(self, stored: dict[str, Any], weights: Weights) -> None:
        """Take over what `as_json` gave, and the weights that it left out."""
        self.loss, self.step, self.looks_without = stored["loss"], stored["step"], stored["looks_without"]
        self.weights = weights

    def apply(self) -> None:
        """Give the model the weights that were selected."""
        if self.weights:
            put_tensors(self._model, self.weights)
