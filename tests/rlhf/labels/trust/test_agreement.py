import random

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voters import judge, needs_pandalm, pandalm, rows

from rlhf.labels.records import Choice, Judgement
from rlhf.labels.trust.agreement import Agreement, agreement, raw_agreement
from rlhf.labels.trust.votes import tabulate, value_counts
from sft.core.statistics import Estimate

A, B, TIE = Choice.A, Choice.B, Choice.TIE
EXAMPLE = rows({"ann": "aabbabtabbat.", "bob": "aabbabtab.aab", "cid": "abbbattabbaab"})


def value(estimate: Estimate | None) -> float:
    assert estimate is not None
    return estimate.value


def agreed(judgements: list[Judgement], seed: int = 0) -> Agreement:
    return agreement(tabulate(judgements), seed=seed, resamples=100)


# The coefficients


def test_by_hand():
    # Items AAB, BB, TT. Pairs that agree: 1 / 3, 1, 1. Shares 2/7, 3/7, 2/7: by chance 17 / 49.
    found = agreed(rows({"ann": "abt", "bob": "abt", "cid": "b.."}))
    assert value(found.raw) == pytest.approx(7 / 9, abs=1e-12)
    assert value(found.fleiss_kappa) == pytest.approx((7 / 9 - 17 / 49) / (1 - 17 / 49), abs=1e-12)
    assert found.pairs == 3


def test_fleiss_of_the_paper_of_two_raters_is_scotts_pi():
    # Both say a: 4, both b: 3, they differ: 3. Shares 11 / 20 and 9 / 20: by chance 202 / 400.
    found = agreed(rows({"ann": "aaaabbbaab", "bob": "aaaabbbbba"}))
    assert value(found.raw) == pytest.approx(0.7)
    assert value(found.fleiss_kappa) == pytest.approx((0.7 - 0.505) / (1 - 0.505), abs=1e-12)


def matrix(judgements: list[Judgement]) -> list[list[float]]:
    votes = tabulate(judgements)
    cells = np.full((len(votes.annotators), len(votes.pairs)), np.nan)
    cells[votes.annotator_N, votes.item_N] = votes.value_N
    return [list(row) for row in cells]


several = st.lists(st.text("abt.", min_size=6, max_size=6), min_size=2, max_size=4).map(
    lambda texts: rows({f"ann{i}": text for i, text in enumerate(texts)})
)


@settings(max_examples=60, deadline=None)
@given(several)
def test_alpha_against_krippendorff(judgements: list[Judgement]):
    found = agreed(judgements)
    cells = matrix(judgements)
    judged_twice = [column for column in zip(*cells, strict=True) if np.isfinite(column).sum() > 1]
    if len({v for column in judged_twice for v in column if np.isfinite(v)}) < 2:
        assert found.krippendorff_nominal is found.krippendorff_ordinal is None
        return
    for level, estimate in (("nominal", found.krippendorff_nominal), ("ordinal", found.krippendorff_ordinal)):
        assert value(estimate) == pytest.approx(krippendorff.alpha(cells, level_of_measurement=level), abs=1e-9)


@needs_pandalm
def test_alpha_of_pandalm_against_krippendorff():
    found = agreed(pandalm())
    cells = matrix(pandalm())
    assert value(found.krippendorff_nominal) == pytest.approx(krippendorff.alpha(cells, level_of_measurement="nominal"))
    assert value(found.krippendorff_ordinal) == pytest.approx(krippendorff.alpha(cells, level_of_measurement="ordinal"))
    assert 0.8 < value(found.krippendorff_nominal) < value(found.krippendorff_ordinal) < 0.9


# Intervals


def test_interval_is_that_of_resampled_pairs():
    judgements = EXAMPLE
    counts = value_counts(tabulate(judgements))
    generator = np.random.default_rng(5)
    drawn = generator.integers(0, len(counts), (4000, len(counts)))
    weights = np.stack([np.bincount(draw, minlength=len(counts)) for draw in drawn]).astype(float)
    low, high = np.quantile(raw_agreement(counts, weights), [0.025, 0.975])
    raw = agreement(tabulate(judgements), seed=1, resamples=4000).raw
    assert raw is not None
    assert raw.ci == pytest.approx((low, high), abs=0.02)
    assert raw.n == 13


@pytest.mark.parametrize("seed", [0, 1])
def test_intervals_hold_the_value_and_follow_the_seed(seed: int):
    found = agreed(EXAMPLE, seed)
    assert found == agreed(EXAMPLE, seed)
    for estimate in found[:5]:
        assert isinstance(estimate, Estimate)
        assert estimate.ci[0] < estimate.value < estimate.ci[1]
        assert estimate.n == 13
    assert found.raw != agreed(EXAMPLE, seed + 5).raw


def test_interval_covers_the_truth():
    # Two annotators who are right with chance 0.8 agree with chance 0.68.
    hits = 0
    for seed in range(100):
        generator = random.Random(seed)
        texts = ["".join("a" if generator.random() < 0.8 else "b" for _ in range(150)) for _ in range(2)]
        raw = agreed(rows(dict(zip(("ann", "bob"), texts, strict=True))), seed).raw
        assert raw is not None
        hits += raw.ci[0] <= 0.68 <= raw.ci[1]
    assert hits >= 88


def test_undefined_is_none_and_keeps_its_shape_in_json():
    nothing = agreed([judge("p", A, "ann"), judge("q", B, "bob")])
    assert nothing == Agreement(None, None, None, None, None, 0)
    assert nothing.as_dict()["raw"] == {"value": None, "ci": None, "n": 0}
    constant = agreed([judge("p", A, "ann"), judge("p", A, "bob")])
    assert value(constant.raw) == 1
    assert constant.krippendorff_nominal is constant.fleiss_kappa is constant.cohen_kappa is None
    assert agreed([]).pairs == 0


def test_few_resamples_are_refused():
    with pytest.raises(ValueError, match="use 100 or more"):
        agreement(tabulate(EXAMPLE), seed=0, resamples=99)


# What must change nothing


@settings(max_examples=30, deadline=None)
@given(several, st.randoms(use_true_random=False))
def test_sides_and_names_change_nothing(judgements: list[Judgement], chance: random.Random):
    turned = [j.swapped() if chance.random() < 0.5 else j for j in judgements]
    assert agreed(turned) == agreed(judgements)
    names = {f"ann{i}": f"zed{9 - i}" for i in range(4)}
    renamed = [Judgement(**{**vars(j), "annotator": names[str(j.annotator)]}) for j in judgements]
    for found, expected in zip(agreed(renamed)[:5], agreed(judgements)[:5], strict=True):
        assert (found is None) == (expected is None)
        if isinstance(found, Estimate) and isinstance(expected, Estimate):
            assert (found.value, *found.ci) == pytest.approx((expected.value, *expected.ci), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(several, st.sampled_from(Choice), st.booleans())
def test_a_pair_judged_once_changes_nothing(judgements: list[Judgement], choice: Choice, first: bool):
    alone = judge("nobody else", choice, "newcomer")
    assert agreed([alone, *judgements] if first else [*judgements, alone]) == agreed(judgements)
