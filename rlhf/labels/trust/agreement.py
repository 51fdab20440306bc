"""How far judges agree: judgements as a table of votes, and the field's coefficients on it.

Letters: N votes, I pairs ("items"), K known annotators, R resamples, 3 values in the order FIRST, TIE, SECOND, which is
also their order for the ordinal coefficient. Each pair's answers have a fixed order of their own (by hash), so no
number here depends on which answer an annotator happened to see as a.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rlhf.labels.records import Choice, Judgement
from sft.core.statistics import Estimate
from sft.core.text import prompt_key

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FIRST, TIE, SECOND = range(3)
VALUES = 3
UNKNOWN = -1


class Votes(NamedTuple):
    """Judgements as numbers: one vote for each known annotator and pair, and every vote of unknown ones."""

    pairs: tuple[str, ...]
    """Keys of the I pairs, by first appearance."""
    annotators: tuple[str, ...]
    """The K known names, sorted."""
    item_N: Ints
    annotator_N: Ints
    """Index of the annotator; UNKNOWN where there is no name."""
    value_N: Ints
    """FIRST, TIE or SECOND."""
    a_is_N: Ints
    """Which answer is the judgement's a: FIRST or SECOND."""
    left_is_N: Ints
    """Which answer was shown left: that of a, or UNKNOWN."""
    source_N: Ints
    """Index of the judgement."""
    prompt_I: Ints
    """Number of the pair's prompt; case and spacing do not tell prompts apart."""
    answers_I2: Ints
    """Numbers of the first and the second answer; the same text to the same prompt has one number."""
    repeated: int
    """Judgements left out because the same annotator judged the same pair later."""
    identical: int
    """Judgements left out because both answers are the same text: no choice between them is right or wrong."""


class Agreement(NamedTuple):
    """Coefficients over pairs with two votes or more; None where undefined."""

    raw: Estimate | None
    cohen_kappa: Estimate | None
    fleiss_kappa: Estimate | None
    krippendorff_nominal: Estimate | None
    krippendorff_ordinal: Estimate | None
    pairs: int
    """Pairs with two votes or more."""

    def as_dict(self) -> dict[str, object]:
        """Return each coefficient as `{value, ci, n}`; value and ci are None where it is undefined."""
        undefined = {"value": None, "ci": None, "n": self.pairs}
        named = self._asdict().items()
        return {name: undefined if e is None else e.as_dict() for name, e in named if name != "pairs"}


class _Vote(NamedTuple):
    value: int
    a_is: int
    left_is: int


def tabulate(judgements: Sequence[Judgement]) -> Votes:
    """Return the judgements as votes on pairs. Empty input gives no pair.

    Of several judgements of one pair by one known annotator the last counts; `repeated` says how many did not.
    """
    pairs: dict[str, int] = {}
    prompts: dict[str, int] = {}
    answers: dict[tuple[str, str], int] = {}
    prompt_I: list[int] = []
    answers_I2: list[tuple[int, int]] = []
    rows: dict[tuple[int, str | int], tuple[int, _Vote]] = {}
    known = identical = 0
    for source, judgement in enumerate(judgements):
        if judgement.response_a == judgement.response_b:
            identical += 1
            continue
        key = judgement.pair_key
        vote, texts = _oriented(judgement)
        if key not in pairs:
            prompt = prompt_key(judgement.prompt)
            prompt_I.append(prompts.setdefault(prompt, len(prompts)))
            first, second = (answers.setdefault((prompt, text), len(answers)) for text in texts)
            answers_I2.append((first, second))
        item = pairs.setdefault(key, len(pairs))
        known += judgement.annotator is not None
        rows[item, source if judgement.annotator is None else judgement.annotator] = (source, vote)
    names = tuple(sorted({name for _, name in rows if isinstance(name, str)}))
    index = {name: number for number, name in enumerate(names)}
    return Votes(
        pairs=tuple(pairs),
        annotators=names,
        item_N=_ints([item for item, _ in rows]),
        annotator_N=_ints([index[name] if isinstance(name, str) else UNKNOWN for _, name in rows]),
        value_N=_ints([vote.value for _, vote in rows.values()]),
        a_is_N=_ints([vote.a_is for _, vote in rows.values()]),
        left_is_N=_ints([vote.left_is for _, vote in rows.values()]),
        source_N=_ints([source for source, _ in rows.values()]),
        prompt_I=_ints(prompt_I),
        answers_I2=np.array(answers_I2, dtype=np.int64).reshape(-1, 2),
        repeated=known - sum(isinstance(name, str) for _, name in rows),
        identical=identical,
    )


def _oriented(judgement: Judgement) -> tuple[_Vote, tuple[str, str]]:
    a, b = judgement.response_a, judgement.response_b
    left, right, texts = (FIRST, SECOND, (a, b)) if judgement.a_is_first else (SECOND, FIRST, (b, a))
    value = {Choice.A: left, Choice.B: right, Choice.TIE: TIE}[judgement.choice]
    return _Vote(value, left, left if judgement.order_known else UNKNOWN), texts


def _ints(values: Sequence[int]) -> Ints:
    return np.array(values, dtype=np.int64)


def value_counts(votes: Votes) -> Ints:
    """Return how many votes each pair has for each value, (I, 3)."""
    cells = np.bincount(votes.item_N * VALUES + votes.value_N, minlength=VALUES * len(votes.pairs))
    return cells.reshape(-1, VALUES).astype(np.int64)


def agreement(votes: Votes, *, seed: int, resamples: int = 1000) -> Agreement:
    """Return all coefficients with 95 % percentile intervals that resample pairs.

    Only pairs with two votes or more count. Full agreement gives an interval of no width: look at n then. Resamples
    in which a coefficient is undefined (all votes the same value) do not count.

    Args:
        votes: of any pairs.
        seed: of the resampling.
        resamples: how many, at least 100.

    Raises:
        ValueError: resamples is below 100.
    """
    if resamples < 100:
        raise ValueError(f"resamples={resamples} is too few for an interval; use 100 or more, 1000 as a rule")
    counts_I3 = value_counts(votes)
    counts_I3 = counts_I3[counts_I3.sum(axis=1) > 1]
    if len(counts_I3) == 0:
        return Agreement(None, None, None, None, None, 0)
    pairs = len(counts_I3)
    # Pairs with the same counts are alike: drawing how often each kind comes is drawing the pairs.
    kinds_M3, kind_counts_M = np.unique(counts_I3, axis=0, return_counts=True)
    drawn_RM = np.random.default_rng(seed).multinomial(pairs, kind_counts_M / pairs, size=resamples)
    weights_RM = np.concatenate([kind_counts_M[None], drawn_RM]).astype(np.float64)
    return Agreement(
        raw=_estimate(raw_agreement(kinds_M3, weights_RM), pairs),
        cohen_kappa=_cohen_estimate(votes, seed=seed, resamples=resamples),
        fleiss_kappa=_estimate(fleiss_kappa(kinds_M3, weights_RM), pairs),
        krippendorff_nominal=_estimate(krippendorff_alpha(kinds_M3, weights_RM, ordinal=False), pairs),
        krippendorff_ordinal=_estimate(krippendorff_alpha(kinds_M3, weights_RM, ordinal=True), pairs),
        pairs=pairs,
    )


def _estimate(values: Floats, n: int) -> Estimate | None:
    """Return the first value with the interval of the others; None where it, or all of them, are undefined."""
    if np.isnan(values[0]) or np.isnan(values[1:]).all():
        return None
    low, high = np.nanquantile(values[1:], [0.025, 0.975])
    return Estimate(float(values[0]), (float(low), float(high)), n)


def _divided(above: Floats, below: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.abs(below) > 1e-12, above / below, np.nan)


def raw_agreement(counts_I3: Ints, weights_RI: Floats) -> Floats:
    """Return the chance that two votes on a pair agree, mean over pairs, for each row of weights, (R,).

    Args:
        counts_I3: votes per pair and value, two votes or more each.
        weights_RI: how often each pair counts.
    """
    n_I = counts_I3.sum(axis=1)
    agreeing_I = (counts_I3 * (counts_I3 - 1)).sum(axis=1) / (n_I * (n_I - 1))
    return _divided(weights_RI @ agreeing_I, weights_RI.sum(axis=1))


def fleiss_kappa(counts_I3: Ints, weights_RI: Floats) -> Floats:
    """Return Fleiss' kappa for each row of weights, (R,); nan where all votes are the same value.

    Pairs may differ in their number of votes; the shares of the values are then those among all votes.
    Source: Fleiss 1971, "Measuring nominal scale agreement among many raters".
    """
    totals_R3 = weights_RI @ counts_I3
    chance_R = ((totals_R3 / totals_R3.sum(axis=1, keepdims=True)) ** 2).sum(axis=1)
    return _divided(raw_agreement(counts_I3, weights_RI) - chance_R, 1 - chance_R)


def krippendorff_alpha(counts_I3: Ints, weights_RI: Floats, *, ordinal: bool) -> Floats:
    """Return Krippendorff's alpha for each row of weights, (R,); nan where all votes are the same value.

    Source: Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", sections C to E.
    """
    n_I = counts_I3.sum(axis=1)
    pairs_I33 = counts_I3[:, :, None] * (counts_I3[:, None, :] - np.eye(VALUES))
    observed_R33 = (weights_RI @ (pairs_I33 / (n_I - 1)[:, None, None]).reshape(-1, VALUES**2)).reshape(-1, 3, 3)
    totals_R3 = observed_R33.sum(axis=2)
    distance_R33 = _ordinal_distances(totals_R3) if ordinal else np.broadcast_to(1 - np.eye(VALUES), (1, 3, 3))
    expected_R33 = totals_R3[:, :, None] * totals_R3[:, None, :]
    observed_R = (observed_R33 * distance_R33).sum(axis=(1, 2))
    expected_R = (expected_R33 * distance_R33).sum(axis=(1, 2)) / (totals_R3.sum(axis=1) - 1)
    return 1 - _divided(observed_R, expected_R)


def _ordinal_distances(totals_R3: Floats) -> Floats:
    """Return the squared number of votes between two values, half of both ends included, (R, 3, 3)."""
    middle_R3 = np.cumsum(totals_R3, axis=1) - totals_R3 / 2
    return np.square(middle_R3[:, :, None] - middle_R3[:, None, :])


def cohen_kappa(votes: Votes, first: str, second: str) -> float | None:
    """Return Cohen's kappa of two annotators over the pairs both judged; None where there are none or it is undefined.

    Source: Cohen 1960, "A coefficient of agreement for nominal scales".
    """
    wanted = sorted(votes.annotators.index(name) for name in (first, second))
    both = _common_votes(votes)
    chosen_E = (both.people_E2 == wanted).all(axis=1)
    kappa = _pooled_kappa(both, chosen_E.astype(np.float64), len(votes.annotators))
    return None if np.isnan(kappa) else kappa


class _CommonVotes(NamedTuple):
    """Every two votes of known annotators on one pair, (E,)."""

    item_E: Ints
    people_E2: Ints
    values_E2: Ints


def _common_votes(votes: Votes) -> _CommonVotes:
    known = np.flatnonzero(votes.annotator_N != UNKNOWN)
    order = known[np.lexsort((votes.annotator_N[known], votes.item_N[known]))]
    item_N, ones, others = votes.item_N[order], [], []
    for gap in range(1, len(order)):
        at = np.flatnonzero(item_N[gap:] == item_N[:-gap])
        if len(at) == 0:
            break
        ones.append(order[at])
        others.append(order[at + gap])
    one_E, other_E = (np.concatenate([_ints([]), *parts]) for parts in (ones, others))
    people_E2 = np.stack([votes.annotator_N[one_E], votes.annotator_N[other_E]], axis=1)
    return _CommonVotes(
        votes.item_N[one_E], people_E2, np.stack([votes.value_N[one_E], votes.value_N[other_E]], axis=1)
    )


def _pooled_kappa(both: _CommonVotes, weight_E: Floats, people: int) -> float:
    """Return kappa of the mean agreement and the mean chance agreement over all common votes.

    Chance comes from each annotator's own shares of the values. With two annotators this is Cohen's kappa.
    Source: De Vries et al. 2008, "Using Pooled Kappa to Summarize Interrater Agreement across Many Items"; shares are
    of an annotator's votes with anybody, as couples with few common pairs have none to speak of.
    """
    slots_E2 = both.people_E2 * VALUES + both.values_E2
    sums = [np.bincount(slot_E, weight_E, people * VALUES) for slot_E in slots_E2.T]
    counts_K3 = (sums[0] + sums[1]).reshape(-1, VALUES)
    shares_K3 = counts_K3 / np.maximum(counts_K3.sum(axis=1, keepdims=True), 1e-12)
    by_chance_E = (shares_K3[both.people_E2[:, 0]] * shares_K3[both.people_E2[:, 1]]).sum(axis=1)
    # sums, not products of vectors: for these BLAS starts threads that cost more than they do
    agreed = float(weight_E[both.values_E2[:, 0] == both.values_E2[:, 1]].sum())
    by_chance = float((weight_E * by_chance_E).sum())
    room = float(weight_E.sum()) - by_chance
    return (agreed - by_chance) / room if room > 1e-9 else float("nan")


def _cohen_estimate(votes: Votes, *, seed: int, resamples: int) -> Estimate | None:
    """Return Cohen's kappa pooled over all couples of annotators; the interval resamples pairs."""
    both = _common_votes(votes)
    if len(both.item_E) == 0:
        return None
    items, item_E = np.unique(both.item_E, return_inverse=True)
    generator = np.random.default_rng(seed)
    values = np.empty(1 + resamples)
    for draw in range(1 + resamples):
        chosen = generator.integers(0, len(items), len(items)) if draw else np.arange(len(items))
        weight_E = np.bincount(chosen, minlength=len(items))[item_E].astype(np.float64)
        values[draw] = _pooled_kappa(both, weight_E, len(votes.annotators))
    return _estimate(values, len(items))
