"""The guard against numbers that are no numbers: it stops training before they become a step or a checkpoint."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import torch
from transformers import PreTrainedTokenizerBase

from sft.core.durable import write_json
from sft.core.errors import DataError


class Diverged(DataError):
    """Training met a number that is no number."""


class Batch(NamedTuple):
    """One micro-batch: its loss (a tensor of one number), token ids and mask, both [rows, tokens]."""

    loss: torch.Tensor
    ids: torch.Tensor
    mask: torch.Tensor


class Guard:
    """Looks at each step's loss and gradients before the optimiser takes them, and at the weights before they are kept.

    Args:
        folder: where the batch of a step that went wrong is written.
        rows: the training rows; `columns` hold token ids.
        columns: as above.
        tokenizer: for the texts of that batch.
    """

    def __init__(
        self,
        folder: Path,
        rows: Sequence[Mapping[str, list[int]]],
        columns: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        self._folder = folder
        self._rows = rows
        self._columns = tuple(columns)
        self._tokenizer = tokenizer
        self._batches: list[Batch] = []
        self._examined = True

    def note(self, batch: Batch) -> None:
        """Remember a micro-batch until the next step begins."""
        if self._examined:
            self._batches, self._examined = [], False
        self._batches.append(batch)

    def examine_step(self, model: torch.nn.Module, step: int) -> None:
        """Check the losses and gradients of all micro-batches of a step.

        Raises:
            Diverged: one is NaN or infinite. It names the file with the batch.
        """
        self._examined = True
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0
        losses = torch.stack([batch.loss.detach().float() for batch in self._batches]).tolist()
        wrong = next((loss for loss in losses if not math.isfinite(loss)), None)
        if wrong is not None:
            self._stop(f"the training loss became {wrong}", step, losses, norm)
        if not math.isfinite(norm):
            self._stop(f"the gradient's norm became {norm}", step, losses, norm)

    def examine_weights(self, weights: Mapping[str, torch.Tensor], step: int) -> None:
        """Check what is about to be saved.

        Raises:
            Diverged: a weight is NaN or infinite.
        """
        wrong = [name for name, value in weights.items() if not bool(value.isfinite().all())]
        if wrong:
            losses = [float(batch.loss) for batch in self._batches]
            shown = f"{', '.join(wrong[:3])}{' and more' if len(wrong) > 3 else ''}"
            self._stop(f"weights became NaN or infinite ({shown})", step, losses, None)

    def _stop(self, what: str, step: int, losses: Sequence[float], norm: float | None) -> NoReturn:
        path = self._folder / f"diverged-step-{step:08d}.json"
        numbers = {"step": step, "losses": [str(loss) for loss in losses], "gradient_norm": str(norm)}
        write_json(path, numbers | {"batch": self._described()})
        raise Diverged(
            f"{what} at step {step}; lower the learning rate or look for broken rows: the batch is in {path}. "
            "The same command would meet it again"
        )

    def _described(self) -> list[dict[str, object]]:
        """Return the rows of the batch: their numbers among the training rows that fit, ids and texts."""
        numbers: dict[tuple[int, ...], list[int]] = {}
        for number, row in enumerate(self._rows):
            for column in self._columns:
                numbers.setdefault(tuple(row[column]), []).append(number)
        found = []
        for batch in self._batches:
            for ids, mask in zip(batch.ids, batch.mask, strict=True):
                kept = ids[mask.bool()].tolist()
                text = self._tokenizer.decode(kept)
                found.append({"rows": numbers.get(tuple(kept), []), "text": text, "token_ids": kept})
        return found
