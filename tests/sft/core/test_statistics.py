import itertools
import math

import numpy as np
import pytest
from scipy import stats

from sft.core.statistics import (
    Estimate,
    bootstrap,
    clustered_mean,
    clustered_share,
    holm_confidences,
    proportion,
    student_interval,
    wilson_interval,
)


def test_wilson_by_hand():
    z = 1.959963984540054
    centre = (0.8 + z * z / 20) / (1 + z * z / 10)
    half = z * math.sqrt(0.8 * 0.2 / 10 + z * z / 400) / (1 + z * z / 10)
    assert wilson_interval(8, 10) == pytest.approx((centre - half, centre + half))
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (1, 2), (37, 400)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_against_scipy(successes: int, n: int, confidence: float):
    interval = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert wilson_interval(successes, n, confidence=confidence) == pytest.approx(tuple(interval), abs=1e-9)


def test_wilson_of_nothing_says_nothing():
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_proportion_counts_a_tie_half():
    share = proportion([1, 0.5, 0, 1])
    assert (share.value, share.n) == (0.625, 4)
    assert share.ci == wilson_interval(2.5, 4)


def test_clustered_mean_against_all_resamples():
    """Five clusters have 3125 equally likely resamples: their exact quantiles are known."""
    values = np.array([0.0, 1, 1, 5, 2, 2, 9, 4])
    clusters = ["a", "a", "b", "c", "d", "d", "d", "e"]
    rows = [[i for i, c in enumerate(clusters) if c == name] for name in "abcde"]
    means = [values[[i for part in drawn for i in part]].mean() for drawn in itertools.product(rows, repeat=5)]
    estimate = clustered_mean(values, clusters, seed=3, draws=40_000)
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.n == 8
    assert estimate.ci == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.08)


def test_bootstrap_of_a_mean_is_the_clustered_mean():
    generator = np.random.default_rng(0)
    values, clusters = generator.normal(size=60), generator.integers(0, 20, 60).tolist()
    slow = bootstrap(lambda rows: float(values[rows].mean()), clusters, seed=1, draws=8000)
    fast = clustered_mean(values, clusters, seed=2, draws=8000)
    assert slow.value == pytest.approx(fast.value)
    assert slow.ci == pytest.approx(fast.ci, abs=0.02)


def test_bootstrap_resamples_whole_clusters():
    seen: list[tuple[int, ...]] = []

    def statistic(rows):
        seen.append(tuple(sorted(rows.tolist())))
        return float(len(rows))

    bootstrap(statistic, ["x", "y", "x", "y"], seed=0, draws=50)
    assert set(seen[:-1]) == {(0, 0, 2, 2), (0, 1, 2, 3), (1, 1, 3, 3)}
    assert seen[-1] == (0, 1, 2, 3)


def test_interval_is_that_of_the_clusters_not_of_the_rows():
    """Four copies of each row carry no news: as own rows the interval halves, as clusters it stays."""
    values = np.random.default_rng(0).normal(size=100)
    alone = clustered_mean(values, list(range(100)), seed=0)
    copied = np.repeat(values, 4)
    clustered = clustered_mean(copied, np.repeat(np.arange(100), 4).tolist(), seed=0)
    naive = clustered_mean(copied, list(range(400)), seed=0)
    widths = [estimate.ci[1] - estimate.ci[0] for estimate in (alone, clustered, naive)]
    assert widths[1] == pytest.approx(widths[0], rel=0.05)
    assert widths[2] == pytest.approx(widths[0] / 2, rel=0.1)
    assert widths[0] == pytest.approx(2 * 1.96 * values.std() / 10, rel=0.1)


def test_higher_confidence_is_wider_and_the_seed_decides():
    values, clusters = [1.0, 2, 3, 4, 8, 1, 0, 2], list(range(8))
    wide = clustered_mean(values, clusters, seed=0, confidence=0.99)
    narrow = clustered_mean(values, clusters, seed=0, confidence=0.8)
    assert wide.ci[0] < narrow.ci[0] < narrow.ci[1] < wide.ci[1]
    assert clustered_mean(values, clusters, seed=0, confidence=0.8) == narrow
    assert (
        clustered_mean(values, clusters, seed=5, draws=101).ci != clustered_mean(values, clusters, seed=6, draws=101).ci
    )


def test_holm_by_hand():
    """Sorted: 0.005 <= 0.05/4, 0.01 <= 0.05/3, 0.03 > 0.05/2; 0.04 would pass 0.05/1 but comes after a failure."""
    levels = [1 - c for c in holm_confidences([0.01, 0.04, 0.03, 0.005])]
    assert levels == pytest.approx([0.05 / 3, 0.05 / 2, 0.05 / 2, 0.05 / 4])


def test_holm_decides_as_the_step_down_procedure():
    generator = np.random.default_rng(0)
    for _ in range(200):
        p_values = generator.beta(0.3, 2, size=generator.integers(1, 8)).tolist()
        rejected = [p <= 1 - c + 1e-12 for p, c in zip(p_values, holm_confidences(p_values), strict=True)]
        expected, going = [False] * len(p_values), True
        for rank, index in enumerate(np.argsort(p_values)):
            going = going and p_values[index] <= 0.05 / (len(p_values) - rank)
            expected[index] = going
        assert rejected == expected


def test_nothing_to_estimate_is_an_error():
    with pytest.raises(ValueError, match="no items"):
        proportion([])
    with pytest.raises(ValueError, match="no items"):
        clustered_mean([], [], seed=0)
    with pytest.raises(ValueError, match="no items"):
        bootstrap(lambda rows: 0.0, [], seed=0)
    assert holm_confidences([]) == []


def test_estimate_as_results_json_promises():
    assert Estimate(0.5, (0.25, 0.75), 8).as_dict() == {"value": 0.5, "ci": [0.25, 0.75], "n": 8}


def test_student_by_hand_and_against_scipy():
    assert student_interval([1.0, 2.0, 3.0]) == pytest.approx(
        (2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3))
    )
    values = [0.3, 0.1, 0.7, 0.2]
    expected = stats.t.interval(0.9, 3, loc=np.mean(values), scale=stats.sem(values))
    assert student_interval(values, confidence=0.9) == pytest.approx(expected)


def test_student_knows_no_spread_of_one_value():
    with pytest.raises(ValueError, match="spread"):
        student_interval([1.0])


def test_clustered_share_of_clusters_of_one_is_wilsons():
    hits = [1.0, 1, 1, 0, 1, 0, 1, 1]
    share = clustered_share(hits, list(range(8)))
    # The variance is p (1 - p) / (n - 1), so that the effective n is 7.
    assert (share.value, share.n) == (0.75, 8)
    assert share.ci == pytest.approx(wilson_interval(0.75 * 7, 7))


def test_clustered_share_counts_what_repeats_once():
    hits, clusters = [1.0, 0, 1, 1, 0.5], ["a", "b", "c", "d", "e"]
    once = clustered_share(hits, clusters)
    repeated = clustered_share(hits * 3, clusters * 3)
    assert (repeated.value, repeated.n) == (once.value, once.n)
    assert repeated.ci == pytest.approx(once.ci)
    assert clustered_share(hits * 3, list(range(15))).ci[0] > once.ci[0] + 0.05


def test_clustered_share_by_hand():
    # Residuals of the clusters: a: 1 + 0 - 2 * 0.5 = 0, b: 0.5, c: -0.5; variance (0.25 + 0.25) / 16 * 3 / 2.
    share = clustered_share([1.0, 0, 1, 0], ["a", "a", "b", "c"])
    effective = 0.25 / (0.5 / 16 * 1.5)
    assert share.value == 0.5
    assert share.ci == pytest.approx(wilson_interval(0.5 * effective, effective))


@pytest.mark.parametrize("hit", [0.0, 0.5, 1.0])
def test_clustered_share_without_spread_has_the_interval_of_its_clusters(hit: float):
    share = clustered_share([hit] * 6, ["a", "a", "b", "b", "c", "c"])
    assert share.ci == wilson_interval(3 * hit, 3)
    with pytest.raises(ValueError, match="no items"):
        clustered_share([], [])
