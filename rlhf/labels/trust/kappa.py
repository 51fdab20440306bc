"""Cohen's kappa, plain and weighted, pooled over all couples of annotators.

Letters: N votes, K known annotators, E couples of votes on one pair, C couples of annotators, S points of a scale.
"""

from typing import NamedTuple

import numpy as np

from rlhf.labels.trust.votes import UNKNOWN, VALUES, Floats, Ints, Votes
from sft.core.statistics import Estimate


class GradedAgreement(NamedTuple):
    """Weighted kappas of votes that say how much better an answer is; None where undefined."""

    cohen_kappa_linear: Estimate | None
    """Two votes are as far apart as their grades."""
    cohen_kappa_quadratic: Estimate | None
    """As the square of that: being two points apart is four times as bad as one."""
    pairs: int
    """Pairs with two such votes or more, of named annotators."""

    def as_dict(self) -> dict[str, object]:
        """Return each coefficient as `{value, ci, n}`; value and ci are None where it is undefined."""
        return coefficients(self._asdict(), self.pairs)


_NOMINAL = 1 - np.eye(VALUES)
"""How far apart two values are when nothing lies between them."""


class _CommonVotes(NamedTuple):
    """Every two votes of known annotators on one pair."""

    item_E: Ints
    couple_E: Ints
    """Number of the couple of annotators."""
    people_C2: Ints
    values_E2: Ints
    """Points of the scale."""
    distance_SS: Floats
    """How far apart two points are; 0 on the diagonal."""


def _common_votes(votes: Votes, point_N: Ints, distance_SS: Floats) -> _CommonVotes:
    """Return the couples of votes, each vote being a point of a scale, or UNKNOWN and left out."""
    known = np.flatnonzero((votes.annotator_N != UNKNOWN) & (point_N != UNKNOWN))
    order = known[np.lexsort((votes.annotator_N[known], votes.item_N[known]))]
    item_N, ones, others = votes.item_N[order], [], []
    for gap in range(1, len(order)):
        at = np.flatnonzero(item_N[gap:] == item_N[:-gap])
        if len(at) == 0:
            break
        ones.append(order[at])
        others.append(order[at + gap])
    one_E, other_E = (np.concatenate([np.array([], dtype=np.int64), *parts]) for parts in (ones, others))
    people_E2 = np.stack([votes.annotator_N[one_E], votes.annotator_N[other_E]], axis=1)
    people_C2, couple_E = np.unique(people_E2, axis=0, return_inverse=True)
    values_E2 = np.stack([point_N[one_E], point_N[other_E]], axis=1)
    return _CommonVotes(votes.item_N[one_E], couple_E.reshape(-1), people_C2, values_E2, distance_SS)


def _pooled_kappa(both: _CommonVotes, weight_E: Floats) -> float:
    """Return 1 - the mean distance / the mean distance by chance, over all common votes; nan where chance gives none.

    Chance comes from each annotator's own shares of the points. With two annotators this is Cohen's kappa, weighted
    where the distances are.
    Source: De Vries et al. 2008, "Using Pooled Kappa to Summarize Interrater Agreement across Many Items"; shares are
    of an annotator's votes with anybody, as couples with few common pairs have none to speak of. Cohen 1968, "Weighted
    kappa".
    """
    people, points = 1 + int(both.people_C2.max(initial=-1)), len(both.distance_SS)
    slots_E2 = both.people_C2[both.couple_E] * points + both.values_E2
    sums = [np.bincount(slot_E, weight_E, people * points) for slot_E in slots_E2.T]
    counts_KS = (sums[0] + sums[1]).reshape(-1, points)
    shares_KS = counts_KS / np.maximum(counts_KS.sum(axis=1, keepdims=True), 1e-12)
    one_C, other_C = both.people_C2.T
    # einsum and sums, not products of matrices: for these BLAS starts threads that cost more than they do
    from_one_KS = np.einsum("ks,st->kt", shares_KS, both.distance_SS)
    by_chance_C = (from_one_KS[one_C] * shares_KS[other_C]).sum(axis=1)
    by_chance = float((np.bincount(both.couple_E, weight_E, len(by_chance_C)) * by_chance_C).sum())
    found = float((weight_E * both.distance_SS[both.values_E2[:, 0], both.values_E2[:, 1]]).sum())
    return 1 - found / by_chance if by_chance > 1e-9 else float("nan")


def cohen_kappa(votes: Votes, *, seed: int, resamples: int) -> Estimate | None:
    """Return Cohen's kappa pooled over all couples of annotators; None where no pair has two, or it is undefined.

    Source: Cohen 1960, "A coefficient of agreement for nominal scales".
    """
    return _estimate(_common_votes(votes, votes.value_N, _NOMINAL), seed=seed, resamples=resamples)


def _estimate(both: _CommonVotes, *, seed: int, resamples: int) -> Estimate | None:
    """Return the pooled kappa; the interval resamples pairs."""
    if len(both.item_E) == 0:
        return None
    items, item_E = np.unique(both.item_E, return_inverse=True)
    generator = np.random.default_rng(seed)
    values = np.empty(1 + resamples)
    for draw in range(1 + resamples):
        chosen = generator.integers(0, len(items), len(items)) if draw else np.arange(len(items))
        weight_E = np.bincount(chosen, minlength=len(items))[item_E].astype(np.float64)
        values[draw] = _pooled_kappa(both, weight_E)
    return percentile_estimate(values, len(items))


def graded_agreement(votes: Votes, *, seed: int, resamples: int = 1000) -> GradedAgreement:
    """Return Cohen's weighted kappas, pooled over all couples of annotators, of the votes that say how strong they are.

    The scale goes from "first, clearly" by way of the tie to "second, clearly", in the labels' own unit of strength;
    what lies between two votes is the difference of their grades. Ties count for whoever gave a strength elsewhere.
    Intervals and arguments as for `agreement`.
    Source: Cohen 1968, "Weighted kappa: Nominal scale agreement with provision for scaled disagreement".
    """
    graders = np.unique(votes.annotator_N[np.abs(votes.grade_N) > 0])
    said_N = ~np.isnan(votes.grade_N) & np.isin(votes.annotator_N, graders)
    scale_S, point = np.unique(votes.grade_N[said_N], return_inverse=True)
    point_N = np.full(len(said_N), UNKNOWN, dtype=np.int64)
    point_N[said_N] = point
    linear_SS = np.abs(scale_S[:, None] - scale_S[None, :])
    both = _common_votes(votes, point_N, linear_SS)
    linear, quadratic = (
        _estimate(both._replace(distance_SS=distances), seed=seed, resamples=resamples)
        for distances in (linear_SS, np.square(linear_SS))
    )
    return GradedAgreement(linear, quadratic, len(np.unique(both.item_E)))


def percentile_estimate(values: Floats, n: int) -> Estimate | None:
    """Return the first value with the interval of the others; None where it, or all of them, are undefined."""
    if np.isnan(values[0]) or np.isnan(values[1:]).all():
        return None
    low, high = np.nanquantile(values[1:], [0.025, 0.975])
    return Estimate(float(values[0]), (float(low), float(high)), n)


def coefficients(fields: dict[str, Estimate | None], pairs: int) -> dict[str, object]:
    """Return each coefficient as `{value, ci, n}`; value and ci are None, and n is `pairs`, where it is undefined."""
    undefined = {"value": None, "ci": None, "n": pairs}
    return {name: undefined if e is None else e.as_dict() for name, e in fields.items() if name != "pairs"}
