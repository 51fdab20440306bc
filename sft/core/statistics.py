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


def wilson_interval(successes: float, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion; (0, 1) when n is 0.

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
