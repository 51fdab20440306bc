"""The noun of this package: one person's judgement of one pair of answers."""

from dataclasses import dataclass, replace
from enum import StrEnum

from sft.core.durable import json_digest, text_digest
from sft.core.text import Conversation, as_dicts


class Choice(StrEnum):
    """Which answer is better."""

    A = "a"
    B = "b"
    TIE = "tie"

    def swapped(self) -> "Choice":
        """Return the same opinion once a and b have changed places."""
        return {Choice.A: Choice.B, Choice.B: Choice.A, Choice.TIE: Choice.TIE}[self]


class TieKind(StrEnum):
    """Why neither answer is better, where the file says so."""

    BOTH_GOOD = "both_good"
    BOTH_BAD = "both_bad"


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
    """False when nothing is known of left and right; where a file names only a winner, that is then answer a."""
    tie_kind: TieKind | None = None
    """Of a tie: whether both were good or both bad; None: not said."""
    time: float | None = None
    """When it was judged, in seconds since 1970 (UTC); None: unknown."""
    attribute: str | None = None
    """What was asked, such as "harmless"; None: which answer is better overall."""
    split: str | None = None
    """The part of the dataset that the row belongs to, in the file's own word; None: not said."""
    also_models: tuple[tuple[str, str], ...] = ()
    """Other models that wrote the same two answers, of a and b; nobody is asked again for them."""

    def __post_init__(self) -> None:
        """Refuse a kind of tie where there is none."""
        if self.tie_kind is not None and self.choice is not Choice.TIE:
            raise ValueError(f"tie_kind={self.tie_kind.value} with choice={self.choice.value}; only a tie has a kind")

    @property
    def a_is_first(self) -> bool:
        """Whether answer a comes first in the order of the pair's own, by hash, whoever saw which as a."""
        return text_digest(self.response_a) <= text_digest(self.response_b)

    def swapped(self) -> "Judgement":
        """Return the same judgement with a and b changed."""
        return replace(
            self,
            response_a=self.response_b,
            response_b=self.response_a,
            choice=self.choice.swapped(),
            model_a=self.model_b,
            model_b=self.model_a,
            also_models=tuple((b, a) for a, b in self.also_models),
        )

    @property
    def pair_key(self) -> str:
        """The pair that was judged, whichever answer was a: a hash of the prompt and both answers."""
        return json_digest([as_dicts(self.prompt), sorted([self.response_a, self.response_b])])
