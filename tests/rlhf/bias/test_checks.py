import numpy as np
import pytest
from scipy import stats

from rlhf.bias.checks import (
    Check,
    Measured,
    Skipped,
    dependent_mean,
    flip_rates,
    group_gaps,
    judge,
    length_effect,
    shared,
    swap_effects,
)
from sft.core.statistics import clustered_mean

TWO = ["women", "men"]
THREE = ["women", "men", "nonbinary"]


def measured(found: list[Measured | Skipped]) -> list[Measured]:
    assert all(isinstance(finding, Measured) for finding in found), found
    return [finding for finding in found if isinstance(finding, Measured)]


def made_up(effect: float, standard_error: float, **changes: object) -> Measured:
    base = Measured("swap_one", "women", effect, standard_error, 20.0, 100, 0.25, "", False, "")
    base = base._replace(hypothesis=f"{effect} {standard_error}")
    return base._replace(**changes)  # type: ignore[arg-type]


def labels(count: int, kinds: int) -> list[str]:
    return [f"t{index % kinds}" for index in range(count)]


def uniform(count: int) -> np.ndarray:
    return np.full(count, 1 / count)


# The mean and its standard error


def test_without_dependence_the_error_is_the_textbook_one() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0])
    mean = dependent_mean(values, uniform(4))
    assert (mean.value, mean.clusters) == (2.5, pytest.approx(4.0))
    assert mean.standard_error == pytest.approx(np.std(values, ddof=1) / 2)


def test_equal_clusters_give_the_error_of_the_cluster_means() -> None:
    values, cluster = np.array([1.0, 3.0, 2.0, 6.0, 0.0, 0.0]), ["a", "a", "b", "b", "c", "c"]
    mean = dependent_mean(values, uniform(6), shared(cluster))
    assert mean.clusters == pytest.approx(3.0)
    assert mean.standard_error == pytest.approx(np.std([2.0, 4.0, 0.0], ddof=1) / np.sqrt(3))


def test_two_kinds_of_dependence_add_up_by_inclusion_and_exclusion() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=60)
    terms, prompts = labels(60, 6), [f"p{index // 4}" for index in range(60)]
    residual = (values - values.mean()) / 60

    def sum_of_squares(keys: list[str]) -> float:
        return sum(float(residual[[k == key for k in keys]].sum()) ** 2 for key in set(keys))

    by_hand = sum_of_squares(terms) + sum_of_squares(prompts)
    by_hand -= sum_of_squares([t + p for t, p in zip(terms, prompts, strict=True)])
    mean = dependent_mean(values, uniform(60), shared(terms), shared(prompts))
    least = max(by_hand, sum_of_squares(terms), sum_of_squares(prompts), float(residual @ residual))
    correction = mean.clusters / (mean.clusters - 1)
    assert mean.standard_error == pytest.approx(np.sqrt(correction * least))


def test_many_clusters_agree_with_the_cluster_bootstrap() -> None:
    generator = np.random.default_rng(1)
    cluster = np.repeat(np.arange(150), 2)
    values = generator.normal(size=150)[cluster] + generator.normal(size=300)
    mean = dependent_mean(values, uniform(300), shared([str(c) for c in cluster]))
    low, high = clustered_mean(values, cluster.tolist(), seed=0, draws=4000).ci
    assert 2 * 1.96 * mean.standard_error == pytest.approx(high - low, rel=0.06)


def test_equal_values_have_no_error_in_spite_of_rounding() -> None:
    assert dependent_mean(np.full(90, 0.1), uniform(90), shared(labels(90, 7))).standard_error == 0


# Swaps


def test_the_swap_effect_by_hand() -> None:
    """Margins as written alternate 1, -1 (mean 0, sd sqrt(n / (n - 1))); naming women takes 0.5."""
    women = np.array([1.0, -1.0] * 20)
    margins = np.stack([women - 0.5, women], axis=1)
    written_by_men = [1] * 40
    effects = measured(
        swap_effects(
            margins, written_by_men, groups=TWO, terms=labels(40, 8), prompts=labels(40, 40), name="s", limit=0.25
        )
    )
    sd = np.sqrt(40 / 39)
    assert [(e.group, e.effect) for e in effects] == [
        ("women", pytest.approx(-0.5 / sd)),
        ("men", pytest.approx(0.5 / sd)),
    ]
    assert effects[0].degrees == pytest.approx(7.0)
    assert effects[0].hypothesis == effects[1].hypothesis


def test_a_group_is_compared_with_the_mean_of_the_others() -> None:
    base = np.linspace(-1, 1, 45)
    margins = np.stack([base - 0.6, base, base + 0.3], axis=1)
    origins = [1] * 45
    found = measured(
        swap_effects(margins, origins, groups=THREE, terms=labels(45, 9), prompts=labels(45, 45), name="s", limit=1)
    )
    sd = np.std(base, ddof=1)
    expected = np.array([-0.6 - 0.15, 0 + 0.15, 0.3 + 0.3])
    np.testing.assert_allclose([f.effect for f in found], expected / sd)
    assert len({f.hypothesis for f in found}) == 3


def test_the_order_of_groups_changes_nothing_but_the_place() -> None:
    generator = np.random.default_rng(2)
    margins, origins = generator.normal(size=(60, 2)), generator.integers(0, 2, 60)
    kwargs = {"groups": TWO, "terms": labels(60, 6), "prompts": labels(60, 60), "name": "s", "limit": 0.25}
    women, men = measured(swap_effects(margins, origins.tolist(), **kwargs))
    flipped = measured(swap_effects(margins[:, ::-1], (1 - origins).tolist(), **kwargs))
    assert women.effect == pytest.approx(-men.effect)
    assert flipped[0].effect == pytest.approx(-women.effect)
    assert flipped[0].standard_error == pytest.approx(women.standard_error)


def test_what_a_swap_does_to_the_text_cancels_however_unequal_the_origins() -> None:
    """Every swapped version loses 1; 50 of 60 answers were written about women. That is no bias."""
    for groups in (TWO, THREE):
        count = len(groups)
        origins = np.array([0] * 50 + [1 + i % (count - 1) for i in range(10)])
        margins = np.linspace(-2, 2, 60)[:, None] - (np.arange(count)[None, :] != origins[:, None])
        found = measured(
            swap_effects(
                margins,
                origins.tolist(),
                groups=groups,
                terms=labels(60, 6),
                prompts=labels(60, 60),
                name="s",
                limit=0.25,
            )
        )
        np.testing.assert_allclose([f.effect for f in found], 0, atol=1e-12)


def test_names_widen_the_interval_that_prompts_alone_would_give() -> None:
    generator = np.random.default_rng(3)
    terms = labels(400, 8)
    by_name = generator.normal(size=8)
    shift = np.array([by_name[int(t[1:])] for t in terms])
    base = generator.normal(size=400)
    margins = np.stack([base + shift, base], axis=1)
    kwargs = {"groups": TWO, "prompts": labels(400, 400), "name": "s", "limit": 0.25}
    with_names = measured(swap_effects(margins, [1] * 400, terms=terms, **kwargs))[0]
    prompts_only = measured(swap_effects(margins, [1] * 400, terms=labels(400, 400), **kwargs))[0]
    sd = np.std(base, ddof=1)
    assert with_names.standard_error == pytest.approx(np.std(by_name, ddof=1) / np.sqrt(8) / sd, rel=0.02)
    assert prompts_only.standard_error < with_names.standard_error / 5


def test_the_flip_rate_by_hand_counts_only_probes_of_other_groups() -> None:
    """Of 40 probes about men, 10 turn over when women are named; the 35 about women never do."""
    men = np.stack([np.where(np.arange(40) < 10, -1.0, 1.0), np.ones(40)], axis=1)
    women = np.full((35, 2), -2.0)
    women_rate, men_rate = measured(
        flip_rates(
            np.concatenate([men, women]),
            [1] * 40 + [0] * 35,
            groups=TWO,
            terms=labels(75, 75),
            prompts=labels(75, 75),
            limit=0.15,
        )
    )
    assert (women_rate.group, women_rate.effect, women_rate.n) == ("women", 0.25, 40)
    assert (men_rate.group, men_rate.effect, men_rate.n) == ("men", 0.0, 35)
    assert women_rate.standard_error == pytest.approx(np.sqrt(0.25 * 0.75 / 39))


def test_a_margin_of_zero_is_no_flip() -> None:
    margins = np.stack([np.zeros(30), np.ones(30)], axis=1)
    kwargs = {"groups": TWO, "terms": labels(30, 6), "prompts": labels(30, 30), "limit": 0.1}
    women, men = flip_rates(margins, [1] * 30, **kwargs)
    assert isinstance(women, Measured)
    assert women.effect == 0
    assert men == Skipped("flip_rate", "men", 0, "0 probes, fewer than the 30 that a gap needs")


# Length and group gaps


def test_length_effect_with_two_answers_is_longer_minus_shorter() -> None:
    rewards = [np.array([0.0, 1.0])] * 40
    lengths = [np.array([3.0, 9.0])] * 30 + [np.array([9.0, 3.0])] * 10
    found = length_effect(rewards, lengths, prompts=labels(40, 40), limit=0.6)
    assert isinstance(found, Measured)
    assert (found.effect, found.n, found.group) == (pytest.approx(0.5), 40, "all")


def test_length_effect_is_the_mean_of_spearman_and_counts_what_it_leaves_out() -> None:
    generator = np.random.default_rng(4)
    rewards = [generator.normal(size=5) for _ in range(35)]
    lengths = [generator.integers(1, 6, size=5).astype(float) for _ in range(35)]
    expected = np.mean([stats.spearmanr(r, le).statistic for r, le in zip(rewards, lengths, strict=True)])
    silent = [np.array([1.0, 1.0]), np.array([1.0]), np.array([])]
    found = length_effect(
        [*rewards, *silent],
        [*lengths, np.array([1.0, 2.0]), np.array([4.0]), np.array([])],
        prompts=labels(38, 38),
        limit=0.6,
    )
    assert isinstance(found, Measured)
    assert found.effect == pytest.approx(expected)
    assert found.n == 35
    assert found.note.startswith("3 prompts not counted")


def test_group_gaps_by_hand() -> None:
    """Answers to requests naming women are 3 words shorter; single answers vary with sd 6."""
    women = np.linspace(10, 20, 40)
    found = measured(
        group_gaps(np.stack([women, women + 3], axis=1), 6.0, groups=TWO, terms=labels(40, 8), name="gap", limit=0.35)
    )
    assert [(f.group, f.effect) for f in found] == [("women", pytest.approx(-0.5)), ("men", pytest.approx(0.5))]
    assert found[0].degrees == pytest.approx(7.0), "requests with the same name depend on one another"


# Skips


def test_fewer_than_thirty_items_are_skipped_with_their_number() -> None:
    margins = np.zeros((29, 2))
    kwargs = {"groups": TWO, "terms": labels(29, 29), "prompts": labels(29, 29)}
    assert swap_effects(margins, [0] * 29, name="swap_one", limit=0.25, **kwargs) == [
        Skipped("swap_one", group, 29, "29 probes, fewer than the 30 that a gap needs") for group in TWO
    ]
    assert isinstance(flip_rates(margins, [0] * 29, limit=0.1, **kwargs)[0], Skipped)
    assert isinstance(group_gaps(margins, 1.0, groups=TWO, terms=labels(29, 29), name="gap", limit=1)[0], Skipped)
    few = length_effect([np.array([0.0, 1.0])] * 29, [np.array([1.0, 2.0])] * 29, prompts=labels(29, 29), limit=1)
    assert isinstance(few, Skipped)
    assert few.n == 29


def test_too_few_terms_are_skipped_because_a_word_is_not_its_group() -> None:
    margins = np.random.default_rng(5).normal(size=(200, 2))
    found = swap_effects(
        margins, [0] * 200, groups=TWO, terms=labels(200, 2), prompts=labels(200, 200), name="swap_one", limit=0.25
    )
    assert all(isinstance(f, Skipped) and "effectively 2.0 different terms" in f.reason for f in found)


def test_margins_that_never_vary_are_skipped() -> None:
    found = swap_effects(
        np.zeros((40, 2)), [0] * 40, groups=TWO, terms=labels(40, 8), prompts=labels(40, 40), name="s", limit=1
    )
    assert all(isinstance(f, Skipped) and "never vary" in f.reason for f in found)


# The verdict


def test_a_check_fails_only_when_significant_and_large() -> None:
    large_and_sure, large_unsure, small_sure = made_up(-0.5, 0.05), made_up(0.5, 0.4), made_up(0.1, 0.01)
    assert [c.passed for c in judge([large_and_sure, large_unsure, small_sure])] == [False, True, True]
    assert [c.passed for c in judge([large_and_sure._replace(limit=0.6)])] == [True]


def test_intervals_are_holm_corrected() -> None:
    """p = 0.03 and 0.04: alone each would exclude 0, together the smaller is held to 0.025 and both include it."""
    pair = [made_up(float(stats.t.isf(p / 2, 20.0)), 1.0) for p in (0.03, 0.04)]
    assert [c.ci[0] > 0 for check in pair for c in judge([check])] == [True, True]
    together = judge(pair)
    assert [c.ci[0] > 0 for c in together] == [False, False]
    half = stats.t.ppf(1 - 0.025 / 2, 20.0)
    assert together[0].ci == pytest.approx((pair[0].effect - half, pair[0].effect + half))


def test_a_mirrored_gap_is_one_hypothesis() -> None:
    mirrored = [made_up(x, 1.0, hypothesis="same") for x in (2.3, -2.3)]
    alone = judge(mirrored[:1])[0]
    assert judge(mirrored)[0].ci == alone.ci


def test_a_rates_interval_stays_within_0_and_1() -> None:
    rates = [made_up(e, s, is_rate=True) for e, s in ((0.0, 0.0), (0.02, 0.02), (0.98, 0.02), (1.0, 0.0))]
    none, rare, most, every = judge(rates)
    assert none.ci[0] == 0.0
    assert 0.1 < none.ci[1] < 0.4, "21 effective clusters without a flip do not prove a rate of 0"
    assert rare.ci[0] == 0.0
    assert most.ci[1] == 1.0
    assert 0.6 < every.ci[0] < 0.9


def test_a_check_as_dict_is_what_results_json_promises() -> None:
    check = Check("swap_one", "women", -0.5, (-0.6, -0.4), 100, 0.25, False, "")
    assert check.as_dict() == {
        "name": "swap_one",
        "group": "women",
        "effect": -0.5,
        "ci": [-0.6, -0.4],
        "n": 100,
        "limit": 0.25,
        "passed": False,
        "note": "",
    }
