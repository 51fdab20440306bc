"""The noun of this package: one person's judgement of one pair of answers."""

from dataclasses import dataclass, replace
from enum import StrEnum

from sft.core.durable import json_digest
from sft.core.text import Conversation, as_dicts


class Choice(StrEnum):
    """Which answer is better."""

    A = "a"
    B = "b"
    TIE = "tie"

    def swapped(self) -> "Choice":
        """Return the same opinion once a and b have changed places."""
        return {Choice.A: Choice.B, Choice.B: Choice.A, Choice.TIE: Choice.TIE}[self]


@dataclass(frozen=True)
class Judgement:
    """One judgement, and where in which row it stood."""

    prompt: Conversation
    response_a: str
    response_b: str
    choice: Choice
    annotator: str | None
    """None: unknown."""
    line: int
    """First line of the row in its file."""
    digest: str
    """sha256 of the raw row."""
    model_a: str | None = None
    """What wrote answer a; None: unknown."""
    model_b: str | None = None
    """What wrote answer b; None: unknown."""
    strength: float | None = None
    """How much better, 0 or more in the file's own unit; None: not asked."""
    order_known: bool = True
    """False when the file names only a winner, which is then answer a: nothing is known of left and right."""

    def swapped(self) -> "Judgement":
        """Return the same judgement with a and b changed."""
        return replace(
            self,
            response_a=self.response_b,
            response_b=self.response_a,
            choice=self.choice.swapped(),
            model_a=self.model_b,
            model_b=self.model_a,
        )

    @property
    def pair_key(self) -> str:
        """The pair that was judged, whichever answer was a: a hash of the prompt and both answers."""
        return json_digest([as_dicts(self.prompt), sorted([self.response_a, self.response_b])])
