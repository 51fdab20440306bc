"""Numbers that compare: every estimate carries its n and its 95 % interval.

Letters: N items, C clusters. All randomness comes from explicit seeds.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class Estimate(NamedTuple):
    """A number, its 95 % interval, and how many items stand behind it."""

    value: float
    ci: tuple[float, float]
    n: int

    def as_dict(self) -> dict[str, object]:
        """Return `{value, ci: [lo, hi], n}`, the shape that results.json promises."""
        return {"value": self.value, "ci": list(self.ci), "n": self.n}


def wilson_interval(successes: float, n: float, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion; (0, 1) when n is 0. An effective n need not be whole.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if n == 0:
        return (0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return (max(0.0, centre - half), min(1.0, centre + half))


def proportion(hits: Sequence[float] | Floats) -> Estimate:
    """Return the share of independent hits (0, 0.5 or 1 each) with Wilson's interval. Raises ValueError when empty."""
    if len(hits) == 0:
        raise ValueError("a share of no items is undefined")
    total = float(np.sum(hits))
    return Estimate(total / len(hits), wilson_interval(total, len(hits)), len(hits))


def student_interval(values: Sequence[float] | Floats, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return Student's t interval of the mean of independent values, such as one a seed.

    Raises:
        ValueError: fewer than two values, whose spread is unknown.

    Source: Student 1908, "The probable error of a mean".
    """
    if len(values) < 2:
        raise ValueError("the spread of fewer than two values is unknown")
    from scipy import special  # a tenth of a second that most who import this file do not need

    centre = float(np.mean(values))
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = float(special.stdtrit(len(values) - 1, 0.5 + confidence / 2)) * error
    return (centre - half, centre + half)


def clustered_share(hits: Sequence[float] | Floats, clusters: Sequence[str] | Sequence[int]) -> Estimate:
    """Return the mean of N hits (each between 0 and 1) with an interval for clusters of dependent ones.

    The interval is Wilson's, at the effective number of hits p (1 - p) / SE^2 with the clustered standard error, so
    that it stays within 0 and 1; where all clusters agree it is that of as many hits as clusters. n counts clusters.

    Args:
        hits: length N.
        clusters: length N, the cluster of each hit, such as its prompt.

    Raises:
        ValueError: there are no hits.

    Source: Miller 2024, arXiv 2411.00640 (standard error); Dean & Pagano 2015, "Evaluating confidence interval methods
    for binomial proportions in clustered surveys", J. Survey Statistics and Methodology 3(4) (modified Wilson).
    """
    if len(hits) == 0:
        raise ValueError("a share of no items is undefined")
    hits_N = np.asarray(hits, dtype=np.float64)
    assert len(hits_N) == len(clusters)
    _, cluster_N = np.unique(np.asarray(clusters), return_inverse=True)
    share = float(hits_N.mean())
    residuals_C = np.bincount(cluster_N, weights=hits_N - share)
    count = len(residuals_C)
    variance = float(np.sum(residuals_C**2)) / len(hits_N) ** 2 * count / max(1, count - 1)
    spread = share * (1 - share)
    effective = spread / variance if variance > 0 and spread > 0 else float(count)
    return Estimate(share, wilson_interval(share * effective, effective), count)


def bootstrap(
    statistic: Callable[[npt.NDArray[np.int64]], float],
    clusters: Sequence[str] | Sequence[int],
    *,
    seed: int,
    draws: int = 2000,
    confidence: float = 0.95,
) -> Estimate:
    """Return a statistic with its percentile interval, resampling whole clusters of items.

    Args:
        statistic: takes item indices (repeats allowed) and returns the number.
        clusters: length N, the cluster of each item, such as its prompt.
        seed: of the resampling.
        draws: number of resamples.
        confidence: e.g. 0.95; a Bonferroni or Holm step passes a higher one.

    Raises:
        ValueError: there are no items.

    Source: Miller 2024, arXiv 2411.00640 (clustered evaluation); Efron & Tibshirani 1993, ch. 13.
    """
    if len(clusters) == 0:
        raise ValueError("an estimate over no items is undefined")
    _, cluster_N = np.unique(np.asarray(clusters), return_inverse=True)
    order = np.argsort(cluster_N, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(cluster_N))[:-1])
    generator = np.random.default_rng(seed)
    values = np.empty(draws)
    for draw in range(draws):
        chosen = generator.integers(0, len(members), len(members))
        values[draw] = statistic(np.concatenate([members[c] for c in chosen]))
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return Estimate(float(statistic(np.arange(len(clusters)))), (float(low), float(high)), len(clusters))


def clustered_mean(
    values: Sequence[float] | Floats,
    clusters: Sequence[str] | Sequence[int],
    *,
    seed: int,
    draws: int = 2000,
    confidence: float = 0.95,
) -> Estimate:
    """Return the mean of N values with a bootstrap interval that resamples whole clusters."""
    if len(values) == 0:
        raise ValueError("a mean of no items is undefined")
    values_N = np.asarray(values, dtype=np.float64)
    assert len(values_N) == len(clusters)
    _, cluster_N = np.unique(np.asarray(clusters), return_inverse=True)
    sums_C = np.bincount(cluster_N, weights=values_N)
    counts_C = np.bincount(cluster_N)
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, len(sums_C), (draws, len(sums_C)))
    means = sums_C[drawn].sum(axis=1) / counts_C[drawn].sum(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(float(values_N.mean()), (float(low), float(high)), len(values_N))


def holm_confidences(p_values: Sequence[float], *, alpha: float = 0.05) -> list[float]:
    """Return for each test the confidence its interval needs so that "excludes 0" is Holm's decision.

    The smallest p value is held to alpha / m, the next to alpha / (m - 1), and so on; once one fails, all larger
    ones are held to that same strict level. Source: Holm 1979, "A simple sequentially rejective procedure".
    """
    levels = [0.0] * len(p_values)
    stopped_at: float | None = None
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        level = alpha / (len(p_values) - rank)
        if stopped_at is None and p_values[index] > level:
            stopped_at = level
        levels[index] = 1 - (stopped_at if stopped_at is not None else level)
    return levels
