"""Joining judgements to preferences, and how far the judges agree.

Letters: N pairs. Each pair's answers have a fixed order of their own (by hash), so no number here depends on which
answer an annotator happened to see as a.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import krippendorff
import numpy as np
import numpy.typing as npt

from rlhf.labels.records import Choice, Judgement
from sft.core.statistics import Estimate, bootstrap, proportion
from sft.core.text import Conversation

Counts = npt.NDArray[np.int64]


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


def krippendorff_alpha(judgements: Sequence[Judgement], *, seed: int, draws: int = 2000) -> Estimate | None:
    """Return Krippendorff's nominal alpha (1: full agreement, 0: as by chance) over pairs judged twice or more.

    The values are first answer, second answer and tie. The interval resamples pairs.

    Args:
        judgements: of any pairs; those judged once do not count.
        seed: of the resampling.
        draws: number of resamples.

    Returns:
        Alpha with n = pairs judged twice or more; None when there are none, or when all their judgements are the
        same value: alpha is then undefined.

    Source: Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability".
    """
    counts_N3 = _value_counts([group for group in _pairs(judgements) if len(group) > 1])
    if _is_constant(counts_N3):
        return None
    return bootstrap(
        lambda chosen: _nominal_alpha(counts_N3[chosen]), list(range(len(counts_N3))), seed=seed, draws=draws
    )


def _value_counts(groups: list[list[Judgement]]) -> Counts:
    rows = [[sum(j.choice is choice for j in group) for choice in Choice] for group in groups]
    return np.array(rows, dtype=np.int64).reshape(-1, len(Choice))


def _is_constant(counts_N3: Counts) -> bool:
    return bool(np.count_nonzero(counts_N3.sum(axis=0)) < 2)


def _nominal_alpha(counts_N3: Counts) -> float:
    if _is_constant(counts_N3):
        return float("nan")
    return float(krippendorff.alpha(value_counts=counts_N3, level_of_measurement="nominal"))


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
