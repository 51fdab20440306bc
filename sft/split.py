"""Train, validation and test, decided by the prompt alone, so that no prompt is in two splits.

A prompt keeps its split when other rows come or go, and in every run: the split does not depend on the seed.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from sft.core.errors import DataError
from sft.core.text import Conversation, prompt_key

T = TypeVar("T")


class Split(StrEnum):
    """The part of the data that a prompt belongs to."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


def fraction_of(prompt: Conversation, *, salt: str) -> float:
    """Return a number in [0, 1) that depends on the prompt and the salt alone."""
    digest = hashlib.sha256(f"{salt}\n{prompt_key(prompt)}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_of(prompt: Conversation, *, validation_fraction: float, test_fraction: float) -> Split:
    """Return the split of a prompt."""
    fraction = fraction_of(prompt, salt="split")
    if fraction < test_fraction:
        return Split.TEST
    return Split.VALIDATION if fraction < test_fraction + validation_fraction else Split.TRAIN


@dataclass(frozen=True)
class Splits(Generic[T]):
    """Items by the split of their prompt."""

    train: list[T]
    validation: list[T]
    unsealed_test: list[T] | None
    """None while test data are sealed: a search that saw them would choose what fits them by chance."""

    @property
    def test(self) -> list[T]:
        """Items that nothing was chosen by.

        Raises:
            DataError: they are sealed.
        """
        if self.unsealed_test is None:
            raise DataError("test data are sealed in a search; measure on validation data (`held_out`)")
        return self.unsealed_test

    @property
    def held_out(self) -> list[T]:
        """What to measure on: test data, or validation data where test data are sealed."""
        return self.validation if self.unsealed_test is None else self.unsealed_test


def split_by_prompt(
    items: Sequence[T],
    prompt: Callable[[T], Conversation],
    *,
    validation_fraction: float,
    test_fraction: float,
    seal_test: bool = False,
) -> Splits[T]:
    """Return the items in their order, parted by the split of their prompt; sealed test items are left out."""
    parts: dict[Split, list[T]] = {split: [] for split in Split}
    for item in items:
        where = split_of(prompt(item), validation_fraction=validation_fraction, test_fraction=test_fraction)
        parts[where].append(item)
    return Splits(parts[Split.TRAIN], parts[Split.VALIDATION], None if seal_test else parts[Split.TEST])
