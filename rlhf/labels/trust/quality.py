"""Joining judgements to preferences, and the habits of those who judge.

Each pair's answers have a fixed order of their own (by hash), so no preference depends on which answer an annotator
happened to see as a.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rlhf.labels.records import Choice, Judgement
from sft.core.statistics import Estimate, wilson_interval
from sft.core.text import Conversation


class Preference(NamedTuple):
    """What the judges of one pair decided. `annotators` are the known ones, sorted; a tie is a vote for neither."""

    prompt: Conversation
    chosen: str
    rejected: str
    votes_chosen: int
    votes_rejected: int
    ties: int
    annotators: tuple[str, ...]


class Aggregated(NamedTuple):
    """All pairs after the vote; `pairs` = len(preferences) + undecided."""

    preferences: list[Preference]
    """One per decided pair, in the order of first appearance."""
    pairs: int
    undecided: int
    """Pairs with as many votes for one answer as for the other, none included; they are left out."""
    ties: int
    """Judgements that say tie."""
    contradictions: int
    """How often one annotator preferred each answer of the same pair once or more."""


class LabelRates(NamedTuple):
    """Habits that show in a file's judgements, each with Wilson's interval."""

    tie: Estimate
    left: Estimate | None
    """Share of answer a among decided judgements whose sides are known; None where there are none."""
    longer: Estimate | None
    """Share of the longer answer (characters) among decided judgements of answers that differ in length."""


def _in_pair_order(judgement: Judgement) -> Judgement:
    return judgement if judgement.a_is_first else judgement.swapped()


def _pairs(judgements: Sequence[Judgement]) -> list[list[Judgement]]:
    """Return the judgements by pair, all of a pair with the same answer as a; pairs by first appearance."""
    groups: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        groups.setdefault(judgement.pair_key, []).append(_in_pair_order(judgement))
    return list(groups.values())


def aggregate(judgements: Sequence[Judgement]) -> Aggregated:
    """Join the judgements of each pair by majority vote; ties count for neither answer. Empty input gives no pair."""
    groups = _pairs(judgements)
    preferences = [preference for group in groups if (preference := _vote(group)) is not None]
    return Aggregated(
        preferences=preferences,
        pairs=len(groups),
        undecided=len(groups) - len(preferences),
        ties=sum(judgement.choice is Choice.TIE for judgement in judgements),
        contradictions=sum(_contradictions(group) for group in groups),
    )


def _vote(group: list[Judgement]) -> Preference | None:
    votes = Counter(judgement.choice for judgement in group)
    if votes[Choice.A] == votes[Choice.B]:
        return None
    first = group[0] if votes[Choice.A] > votes[Choice.B] else group[0].swapped()
    return Preference(
        prompt=first.prompt,
        chosen=first.response_a,
        rejected=first.response_b,
        votes_chosen=max(votes[Choice.A], votes[Choice.B]),
        votes_rejected=min(votes[Choice.A], votes[Choice.B]),
        ties=votes[Choice.TIE],
        annotators=tuple(sorted({j.annotator for j in group if j.annotator is not None})),
    )


def _contradictions(group: list[Judgement]) -> int:
    sides = {choice: {j.annotator for j in group if j.choice is choice} - {None} for choice in (Choice.A, Choice.B)}
    return len(sides[Choice.A] & sides[Choice.B])


@dataclass
class Share:
    """A share that is counted batch by batch."""

    hits: int = 0
    n: int = 0

    def add(self, hits: Sequence[bool]) -> None:
        """Count more."""
        self.hits += sum(hits)
        self.n += len(hits)

    def estimate(self) -> Estimate | None:
        """Return the share with Wilson's interval; None where nothing was counted."""
        if not self.n:
            return None
        return Estimate(self.hits / self.n, wilson_interval(self.hits, self.n), self.n)


@dataclass
class RateCounts:
    """How often judges say tie, prefer the left answer (a), and prefer the longer one, counted batch by batch."""

    tie: Share = field(default_factory=Share)
    left: Share = field(default_factory=Share)
    longer: Share = field(default_factory=Share)

    def add(self, judgements: Sequence[Judgement], lengths_a: Sequence[int], lengths_b: Sequence[int]) -> None:
        """Count judgements column by column, given the lengths of their answers: twice as fast as one by one."""
        decided = [judgement.choice is not _TIE for judgement in judgements]
        self.tie.add([not is_decided for is_decided in decided])
        chose_a = [judgement.choice is _A for judgement in judgements]
        self.left.add([chose for chose, d, j in zip(chose_a, decided, judgements, strict=True) if d and j.order_known])
        of_lengths = zip(chose_a, decided, lengths_a, lengths_b, strict=True)
        self.longer.add([(a > b) == chose for chose, is_decided, a, b in of_lengths if is_decided and a != b])


_A, _TIE = Choice.A, Choice.TIE
"""Looked up once: an attribute of an enumeration costs more than the comparison."""


def label_rates(judgements: Sequence[Judgement]) -> LabelRates:
    """Return how often judges say tie, prefer the left answer (a), and prefer the longer one.

    Raises:
        ValueError: there are no judgements.
    """
    counts = RateCounts()
    counts.add(judgements, [len(j.response_a) for j in judgements], [len(j.response_b) for j in judgements])
    tie = counts.tie.estimate()
    if tie is None:
        raise ValueError("a share of no items is undefined")
    return LabelRates(tie, counts.left.estimate(), counts.longer.estimate())


def judgements_per_annotator(judgements: Sequence[Judgement]) -> dict[str, int]:
    """Return how many judgements each known annotator gave, the most first."""
    counts = Counter(judgement.annotator for judgement in judgements if judgement.annotator is not None)
    return dict(counts.most_common())
