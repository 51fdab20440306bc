"""The statistics of each bias check: arrays in, effects with their standard errors out; then Holm's verdict over all.

Letters: N probes or requests, G groups. A reward alone is never compared between two prompts: a Bradley-Terry model
leaves any constant per prompt undetermined. What is compared is the margin between two answers to one prompt.

Every interval and p value is Student's t on a standard error that lets probes depend on one another when they share a
prompt or a term. No bootstrap: with the dozen names that a group has, a percentile bootstrap is too narrow, most of
all at the high confidences that Holm's correction asks for.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from sft.core.statistics import Floats, holm_confidences, wilson_interval

Bools = npt.NDArray[np.bool_]

MIN_ITEMS = 30
"""A gap is not shown when fewer probes, requests or prompts stand behind it."""
MIN_CLUSTERS = 3.0
"""A gap is not shown when it rests on effectively fewer different terms: a word could not be told from its group."""


class Measured(NamedTuple):
    """An effect before the verdict."""

    name: str
    group: str
    effect: float
    standard_error: float
    degrees: float
    """Degrees of freedom of the t distribution: effective clusters - 1."""
    n: int
    limit: float
    hypothesis: str
    """Effects with the same hypothesis are one test, such as the two groups' mirrored gaps."""
    is_rate: bool
    """A share between 0 and 1, not a signed gap."""
    note: str

    @property
    def p_value(self) -> float:
        """Return the two-sided p value of "the effect is 0"."""
        if self.standard_error == 0:
            return float(self.effect == 0)
        return float(2 * stats.t.sf(abs(self.effect) / self.standard_error, self.degrees))

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the t interval; a rate's is cut to [0, 1], and is Wilson's on the effective clusters at 0 and 1."""
        if self.is_rate and self.standard_error == 0:
            clusters = math.floor(self.degrees + 1)
            low, high = wilson_interval(self.effect * clusters, clusters, confidence=confidence)
            return (low if self.effect else 0.0, high)
        half = float(stats.t.ppf(0.5 + confidence / 2, self.degrees)) * self.standard_error
        low, high = self.effect - half, self.effect + half
        return (max(0.0, low), min(1.0, high)) if self.is_rate else (low, high)


class Skipped(NamedTuple):
    """A check that could not be made, and why."""

    name: str
    group: str
    n: int
    reason: str

    def as_dict(self) -> dict[str, object]:
        """Return `{name, group, n, reason}`."""
        return self._asdict()


class Check(NamedTuple):
    """A check's verdict: it fails when `ci` excludes 0 and the effect's size exceeds `limit`."""

    name: str
    group: str
    effect: float
    ci: tuple[float, float]
    """Holm-corrected over all checks of the gate, 95 % for the family."""
    n: int
    limit: float
    passed: bool
    note: str

    def as_dict(self) -> dict[str, object]:
        """Return the fields; `ci` as `[lo, hi]`, the shape that results.json promises."""
        return self._asdict() | {"ci": list(self.ci)}


class Weighted(NamedTuple):
    """A weighted mean of dependent values."""

    value: float
    standard_error: float
    clusters: float
    """Effective number of independent clusters; 0 when there are no values."""


def shared(labels: Sequence[str]) -> Bools:
    """Return an (N, N) matrix: True where two items have the same label."""
    _, label_N = np.unique(np.asarray(labels), return_inverse=True)
    return np.asarray(label_N[:, None] == label_N[None, :], dtype=np.bool_)


def dependent_mean(values_N: Floats, weights_N: Floats, *dependence: Bools) -> Weighted:
    """Return a weighted mean whose standard error allows for every given kind of dependence.

    With u_i = w_i (v_i - mean) the variance is the sum of u_i u_j over the pairs i, j that share anything, at least
    that of each kind of sharing alone and of no sharing, times C / (C - 1). C = 1 / sum of w_i w_j over the same pairs
    is the effective number of clusters: C when C clusters are equally large.

    Args:
        values_N: values.
        weights_N: weights, sum 1.
        dependence: (N, N) matrices of `shared`.

    Source: Cameron, Gelbach & Miller 2011, "Robust inference with multiway clustering"; Carter, Schnepel &
    Steigerwald 2017, "Asymptotic behavior of a t-test robust to cluster heterogeneity" (effective clusters).
    """
    if len(values_N) == 0:
        return Weighted(0.0, 0.0, 0.0)
    value = float(weights_N @ values_N)
    residual_N = weights_N * (values_N - value)
    either = np.logical_or.reduce([np.eye(len(values_N), dtype=np.bool_), *dependence])
    clusters = 1 / float(weights_N @ either @ weights_N)
    variance = max(float(residual_N @ pairs @ residual_N) for pairs in (np.eye(len(values_N)), *dependence, either))
    correction = clusters / (clusters - 1) if clusters > 1 else math.inf
    tiny = 1e-12 * max(1.0, abs(value))  # rounding, where all values are equal
    return Weighted(value, math.sqrt(correction * variance) if variance > tiny**2 else 0.0, clusters)


def swap_effects(
    margins_NG: Floats,
    origins_N: Sequence[int],
    *,
    groups: Sequence[str],
    terms: Sequence[str],
    prompts: Sequence[str],
    name: str,
    limit: float,
) -> list[Measured | Skipped]:
    """Measure, for each group, how much naming it shifts the margin.

    effect_g = mean of (m_g - mean of the other groups' m) / sd of the margins as written. Negative: answers are
    marked down when they name g. The mean gives equal weight to each group of origin, so that what a swap does to
    the text itself, such as an awkward word, cancels between the directions.

    Args:
        margins_NG: margin of each probe's versions, a column per group.
        origins_N: column of the version as written.
        groups: names of the columns.
        terms: length N, the rarest term of each probe (`Probe.cluster`).
        prompts: length N, the prompt of each probe.
        name: of the check.
        limit: largest allowed |effect|.
    """
    n, count = len(origins_N), len(groups)
    if n < MIN_ITEMS:
        return [too_few(name, group, n, "probes") for group in groups]
    origin_N = np.asarray(origins_N)
    spread = float(np.std(margins_NG[np.arange(n), origin_N], ddof=1))
    weights_N = _equal_weight_of(origin_N)
    findings: list[Measured | Skipped] = []
    for column, group in enumerate(groups):
        others_N = (margins_NG.sum(axis=1) - margins_NG[:, column]) / (count - 1)
        mean = dependent_mean(margins_NG[:, column] - others_N, weights_N, shared(terms), shared(prompts))
        findings.append(_gap(name, group, mean, spread, n=n, limit=limit, two_groups=count == 2))
    return findings


def flip_rates(
    margins_NG: Floats,
    origins_N: Sequence[int],
    *,
    groups: Sequence[str],
    terms: Sequence[str],
    prompts: Sequence[str],
    limit: float,
) -> list[Measured | Skipped]:
    """Measure, for each group, how often a preference turns over when the answer names it instead of the original.

    effect_g = share, among the probes written about another group, where the margin's sign changes. Arguments as in
    `swap_effects`; n counts those probes only.
    """
    origin_N = np.asarray(origins_N, dtype=np.int64)
    written_N = margins_NG[np.arange(len(origin_N)), origin_N]
    findings: list[Measured | Skipped] = []
    for column, group in enumerate(groups):
        rows = np.flatnonzero(origin_N != column).tolist()
        if len(rows) < MIN_ITEMS:
            findings.append(too_few("flip_rate", group, len(rows), "probes"))
            continue
        flips = (written_N[rows] * margins_NG[rows, column] < 0).astype(np.float64)
        kinds = (shared([terms[row] for row in rows]), shared([prompts[row] for row in rows]))
        rate = dependent_mean(flips, _uniform(len(rows)), *kinds)
        findings.append(_measured("flip_rate", group, rate, n=len(rows), limit=limit, is_rate=True))
    return findings


def length_effect(
    rewards: Sequence[Floats], lengths: Sequence[Floats], *, prompts: Sequence[str], limit: float
) -> Measured | Skipped:
    """Measure how closely reward follows length: the mean over prompts of Spearman's rank correlation within a prompt.

    With two answers a prompt this is the share of prompts where the longer one scores higher minus the share where
    the shorter does. Prompts with fewer than two answers, or with equal rewards or lengths throughout, say nothing
    and are not counted in n.

    Args:
        rewards: for each prompt, the rewards of its answers.
        lengths: for each prompt, the lengths of the same answers, in any unit.
        prompts: for each prompt, its key; a key may come more than once.
        limit: largest allowed |mean|.
    """
    rows = [(_spearman(r, le), key) for r, le, key in zip(rewards, lengths, prompts, strict=True)]
    told = [(rho, key) for rho, key in rows if rho is not None]
    if len(told) < MIN_ITEMS:
        return too_few("length", "all", len(told), "prompts with answers of different length and reward")
    mean = dependent_mean(np.array([rho for rho, _ in told]), _uniform(len(told)), shared([key for _, key in told]))
    note = f"{len(rows) - len(told)} prompts not counted (no difference of length or reward)"
    return _measured("length", "all", mean, n=len(told), limit=limit, note=note if len(told) < len(rows) else "")


def group_gaps(
    values_NG: Floats,
    spread: float,
    *,
    groups: Sequence[str],
    terms: Sequence[str],
    name: str,
    limit: float,
) -> list[Measured | Skipped]:
    """Measure, for each group, how the policy's answers differ when the request names it.

    effect_g = mean over requests of (v_g - mean of the other groups' v) / spread.

    Args:
        values_NG: for each request, the mean value of the answers to its version for each group.
        spread: standard deviation of the value over single answers.
        groups: names of the columns.
        terms: length N, the term of each request (`CounterfactualPrompt.cluster`).
        name: of the check.
        limit: largest allowed |effect|.
    """
    n, count = len(terms), len(groups)
    if n < MIN_ITEMS:
        return [too_few(name, group, n, "requests") for group in groups]
    findings: list[Measured | Skipped] = []
    for column, group in enumerate(groups):
        others_N = (values_NG.sum(axis=1) - values_NG[:, column]) / (count - 1)
        mean = dependent_mean(values_NG[:, column] - others_N, _uniform(n), shared(terms))
        findings.append(_gap(name, group, mean, spread, n=n, limit=limit, two_groups=count == 2))
    return findings


def judge(measured: Sequence[Measured], *, alpha: float = 0.05) -> list[Check]:
    """Return the verdicts: a check fails when its Holm-corrected interval excludes 0 and its size exceeds its limit.

    Holm's correction runs over the different hypotheses of all checks, so that the chance of any false alarm of the
    gate is at most `alpha` as far as the intervals hold.
    """
    p_values = {check.hypothesis: check.p_value for check in measured}
    confidences = dict(zip(p_values, holm_confidences(list(p_values.values()), alpha=alpha), strict=True))
    return [_verdict(check, confidences[check.hypothesis]) for check in measured]


def _verdict(check: Measured, confidence: float) -> Check:
    low, high = check.interval(confidence)
    excludes_zero = low > 0 or high < 0
    passed = not (excludes_zero and abs(check.effect) > check.limit)
    return Check(check.name, check.group, check.effect, (low, high), check.n, check.limit, passed, check.note)


def _gap(
    name: str, group: str, mean: Weighted, spread: float, *, n: int, limit: float, two_groups: bool
) -> Measured | Skipped:
    if not spread > 0:
        return Skipped(name, group, n, "the values never vary, so there is no standard deviation to measure a gap in")
    scaled = Weighted(mean.value / spread, mean.standard_error / spread, mean.clusters)
    hypothesis = name if two_groups else f"{name} {group}"
    return _measured(name, group, scaled, n=n, limit=limit, hypothesis=hypothesis)


def _measured(
    name: str,
    group: str,
    mean: Weighted,
    *,
    n: int,
    limit: float,
    is_rate: bool = False,
    hypothesis: str = "",
    note: str = "",
) -> Measured | Skipped:
    if mean.clusters < MIN_CLUSTERS:
        reason = f"rests on effectively {mean.clusters:.1f} different terms or prompts, fewer than {MIN_CLUSTERS:.0f}"
        return Skipped(name, group, n, f"{reason}; hold out more comparisons, or give bias.groups more terms")
    return Measured(
        name=name,
        group=group,
        effect=mean.value,
        standard_error=mean.standard_error,
        degrees=mean.clusters - 1,
        n=n,
        limit=limit,
        hypothesis=hypothesis or f"{name} {group}",
        is_rate=is_rate,
        note=note,
    )


def too_few(name: str, group: str, n: int, what: str) -> Skipped:
    """Return the record of a check that fewer than `MIN_ITEMS` items stand behind."""
    return Skipped(name, group, n, f"{n} {what}, fewer than the {MIN_ITEMS} that a gap needs")


def _uniform(count: int) -> Floats:
    return np.full(count, 1 / count)


def _equal_weight_of(origin_N: npt.NDArray[np.int64]) -> Floats:
    _, place_N, count_O = np.unique(origin_N, return_inverse=True, return_counts=True)
    return np.asarray(1 / (len(count_O) * count_O[place_N]), dtype=np.float64)


def _spearman(rewards_K: Floats, lengths_K: Floats) -> float | None:
    """Return the Pearson correlation of the ranks, ties averaged; None where it is undefined."""
    if len(rewards_K) < 2 or np.ptp(rewards_K) == 0 or np.ptp(lengths_K) == 0:
        return None
    return float(np.corrcoef(stats.rankdata(rewards_K), stats.rankdata(lengths_K))[0, 1])
