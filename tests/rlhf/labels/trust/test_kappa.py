from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from voters import judge, rows

from rlhf.labels.records import Choice, Judgement
from rlhf.labels.trust.kappa import GradedAgreement, cohen_kappa, graded_agreement
from rlhf.labels.trust.votes import tabulate
from sft.core.statistics import Estimate

SCALE = "AatbB"
"""Clearly a, slightly a, tie, slightly b, clearly b."""
two_of_eight = (st.text("abt", min_size=8, max_size=8), st.text("abt", min_size=8, max_size=8))
two_graded = (st.text(SCALE, min_size=8, max_size=8), st.text(SCALE, min_size=8, max_size=8))


def graded(votes: dict[str, str]) -> list[Judgement]:
    """Return judgements as `rows` does; a capital letter has strength 2, a small one 1."""
    strengths = [2.0 if v.isupper() else None if v == "t" else 1.0 for row in votes.values() for v in row if v != "."]
    plain = rows({name: row.lower() for name, row in votes.items()})
    return [replace(judgement, strength=strength) for judgement, strength in zip(plain, strengths, strict=True)]


def kappas(judgements: list[Judgement], seed: int = 0) -> GradedAgreement:
    return graded_agreement(tabulate(judgements), seed=seed, resamples=100)


def value(estimate: Estimate | None) -> float:
    assert estimate is not None
    return estimate.value


def plain_kappa(judgements: list[Judgement]) -> Estimate | None:
    return cohen_kappa(tabulate(judgements), seed=0, resamples=100)


# Plain


@settings(max_examples=40, deadline=None)
@given(*two_of_eight)
def test_kappa_against_scikit_learn(ann: str, bob: str):
    kappa = plain_kappa(rows({"ann": ann, "bob": bob}))
    if len(set(ann + bob)) == 1:
        assert kappa is None
    elif kappa is not None:
        assert kappa.value == pytest.approx(cohen_kappa_score(list(ann), list(bob)), abs=1e-12)


def test_pooled_over_three_by_hand():
    """ann aab, bob abb, cid a.b: couples agree on 2 of 3, 2 of 2 and 2 of 2 pairs.

    Votes with anybody: ann says a in 3 of 5, bob in 2 of 5, cid in 2 of 4. By chance ann and bob agree with
    .6 * .4 + .4 * .6 = .48, ann and cid with .5, bob and cid with .5.
    """
    found = plain_kappa(rows({"ann": "aab", "bob": "abb", "cid": "a.b"}))
    by_chance = (3 * 0.48 + 2 * 0.5 + 2 * 0.5) / 7
    assert value(found) == pytest.approx((6 / 7 - by_chance) / (1 - by_chance), abs=1e-12)


def test_strangers_and_the_unnamed_have_none():
    assert plain_kappa(rows({"ann": "ab..", "bob": "..ab"})) is None
    assert plain_kappa([replace(j, annotator=None) for j in rows({"ann": "ab", "bob": "ab"})]) is None


# Weighted


def test_weighted_by_hand():
    """ann A a t, bob a a B: the votes are 1, 0 and 2 points apart.

    ann has 2, 1, 0 and bob 1, 1, -2: the nine couples are 1, 1, 4, 0, 0, 3, 1, 1, 2 apart, 13 / 9 on average; the
    squares are 1, 1, 16, 0, 0, 9, 1, 1, 4, 33 / 9 on average.
    """
    found = kappas(graded({"ann": "Aat", "bob": "aaB"}))
    assert value(found.cohen_kappa_linear) == pytest.approx(1 - 1 / (13 / 9), abs=1e-12)
    assert value(found.cohen_kappa_quadratic) == pytest.approx(1 - (5 / 3) / (33 / 9), abs=1e-12)
    assert found.pairs == 3


@settings(max_examples=40, deadline=None)
@given(*two_graded)
def test_weighted_against_scikit_learn(ann: str, bob: str):
    found = kappas(graded({"ann": ann, "bob": bob}))
    numbers = [[SCALE.index(vote) for vote in row] for row in (ann, bob)]
    both_grade = set(ann) != {"t"} and set(bob) != {"t"}
    for weights, kappa in (("linear", found.cohen_kappa_linear), ("quadratic", found.cohen_kappa_quadratic)):
        if kappa is not None:
            expected = cohen_kappa_score(*numbers, weights=weights, labels=range(5))
            assert kappa.value == pytest.approx(expected, abs=1e-12)
            assert kappa.n == found.pairs == 8
        else:
            assert (
                not both_grade
                or len(set(ann + bob)) == 1
                or not np.isfinite(cohen_kappa_score(*numbers, weights=weights, labels=range(5)))
            )


def test_one_scale_for_everybody_and_the_interval_follows_the_seed():
    given = graded({"ann": "AabBtAabBt" * 3, "bob": "AabbtAtbBa" * 3, "cid": "aabBtAaBBt" * 3})
    found = kappas(given)
    assert found == kappas(given) != kappas(given, seed=1)
    for estimate in (found.cohen_kappa_linear, found.cohen_kappa_quadratic):
        assert estimate is not None
        assert estimate.ci[0] < estimate.value < estimate.ci[1]


def test_strength_in_any_unit():
    given = graded({"ann": "AabBt", "bob": "abtBA"})
    tenths = [replace(j, strength=j.strength and j.strength / 10) for j in given]
    for one, other in zip(kappas(given)[:2], kappas(tenths)[:2], strict=True):
        assert isinstance(one, Estimate)
        assert isinstance(other, Estimate)
        assert one.value == pytest.approx(other.value, abs=1e-12)


def test_only_those_who_say_how_strong_count():
    with_file = [*graded({"ann": "Aat", "bob": "aaB"}), *rows({"cid": "abt"}), judge("2", Choice.TIE)]
    assert kappas(with_file) == kappas(graded({"ann": "Aat", "bob": "aaB"}))
    nobody = kappas(rows({"ann": "abt", "bob": "abt"}))
    assert nobody == GradedAgreement(None, None, 0)
    assert nobody.as_dict() == {
        name: {"value": None, "ci": None, "n": 0} for name in ("cohen_kappa_linear", "cohen_kappa_quadratic")
    }
    assert kappas([]) == GradedAgreement(None, None, 0)
