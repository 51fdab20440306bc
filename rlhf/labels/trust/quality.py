"""Joining judgements to preferences, and the habits of those who judge.

Each pair's answers have a fixed order of their own (by hash), so no preference depends on which answer an annotator
happened to see as a.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from rlhf.labels.records import Choice, Judgement
from sft.core.statistics import Estimate, proportion
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


def label_rates(judgements: Sequence[Judgement]) -> LabelRates:
    """Return how often judges say tie, prefer the left answer (a), and prefer the longer one.

    Raises:
        ValueError: there are no judgements.
    """
    decided = [judgement for judgement in judgements if judgement.choice is not Choice.TIE]
    left = [float(j.choice is Choice.A) for j in decided if j.order_known]
    gaps = [(len(j.response_a) - len(j.response_b), j.choice) for j in decided]
    longer = [float((gap > 0) == (choice is Choice.A)) for gap, choice in gaps if gap]
    return LabelRates(
        tie=proportion([float(judgement.choice is Choice.TIE) for judgement in judgements]),
        left=proportion(left) if left else None,
        longer=proportion(longer) if longer else None,
    )


def judgements_per_annotator(judgements: Sequence[Judgement]) -> dict[str, int]:
    """Return how many judgements each known annotator gave, the most first."""
    counts = Counter(judgement.annotator for judgement in judgements if judgement.annotator is not None)
    return dict(counts.most_common())
