import json
import time
from dataclasses import replace

import numpy as np
import pytest
from voters import judge, needs_pandalm, pandalm, rows, simulate

from rlhf.labels.records import Choice, Judgement
from rlhf.labels.trust.report import TrustReport, trust_report
from sft.core.statistics import wilson_interval
from sft.core.text import user

SKILLS = [0.7, 0.75, 0.8, 0.85, 0.9, 0.95]


def report(judgements: list[Judgement], seed: int = 0) -> TrustReport:
    return trust_report(judgements, seed=seed, resamples=100)


def test_shape_of_the_json():
    named = [replace(j, model_a="x", model_b="y") for j in simulate(SKILLS, seed=0, pairs=50)]
    found = json.loads(json.dumps(report(named).as_dict(), allow_nan=False))
    for name in ("raw", "cohen_kappa", "fleiss_kappa", "krippendorff_nominal", "krippendorff_ordinal"):
        assert found["agreement"][name].keys() == {"value", "ci", "n"}
    for name in ("cohen_kappa_linear", "cohen_kappa_quadratic"):
        assert found["graded_agreement"][name].keys() == {"value", "ci", "n"}
    rates = ("agreement", "left", "longer", "tie", "skill", "side_bias")
    for annotator in found["annotators"]:
        assert annotator.keys() >= {"name", "n", "suspicious", "why", *rates}
        assert all(annotator[rate] is None or annotator[rate].keys() == {"value", "ci", "n"} for rate in rates)
    assert [model["model"] for model in found["ranking"]] in (["x", "y"], ["y", "x"])
    assert found["noise"][0].keys() >= {"line", "digest", "annotator", "choice", "likely", "wrong"}


def test_counts_add_up():
    same = Judgement(user("p"), "x", "x", Choice.A, "eve", 1, "d")
    given = [*rows({"ann": "ab", "bob": "ab"}), judge("0", Choice.B, "ann"), judge("0", Choice.A), same]
    found = report(given)
    assert (found.judgements, found.votes, found.repeated, found.identical, found.unnamed) == (7, 5, 1, 1, 1)
    assert found.judgements == found.votes + found.repeated + found.identical
    assert {a.name: a.n for a in found.annotators} == {"ann": 3, "bob": 2, "eve": 1}
    assert found.annotators[2].skill is None
    assert found.annotators[2].left is not None


def test_agreement_with_others_by_hand():
    # ann's pairs: the others say a, b (half), b (none); the last is hers alone.
    found = report(rows({"ann": "aaab", "bob": "aab.", "cid": "ab.."}))
    ann = found.annotators[0].agreement
    assert ann is not None
    assert (ann.value, ann.n) == (0.5, 3)
    assert ann.ci == wilson_interval(1.5, 3)


def test_nothing_and_too_few_resamples():
    nothing = report([])
    assert (nothing.annotators, nothing.noise, nothing.ranking.models, nothing.wrong_expected) == ((), (), (), 0.0)
    json.dumps(nothing.as_dict(), allow_nan=False)
    with pytest.raises(ValueError, match="use 100 or more"):
        trust_report([], seed=0, resamples=5)


def test_suspicious_and_why():
    skills, left = [0.1, 0.9, 0.85, 0.8, 0.85, 0.9, 0.5], [0, 0.5, 0, 0, 0, 0, 0]
    found = report(simulate(skills, seed=1, pairs=2500, left=left))
    why = {a.name: a.why for a in found.annotators if a.why}
    assert why.keys() == {"ann00", "ann01", "ann06"}
    assert "against the others" in why["ann00"][0]
    assert "leans to the left" in why["ann01"][-1]
    assert "less often than 60%" in why["ann06"][0]


def test_honest_annotators_are_not_suspicious():
    flagged = sum(bool(a.why) for seed in range(10) for a in report(simulate(SKILLS, seed=seed, pairs=400)).annotators)
    assert flagged <= 0.05 * 60


def test_sides_change_nothing_but_side_bias_and_left():
    given = [replace(j, model_a="x", model_b="y") for j in simulate(SKILLS, seed=0, pairs=60)]
    plain, turned = report(given), report([j.swapped() for j in given])
    for one, other in zip(plain.annotators, turned.annotators, strict=True):
        assert replace(one, left=None, side_bias=None) == replace(other, left=None, side_bias=None)
        assert one.left is not None
        assert other.left is not None
        assert one.left.value == pytest.approx(1 - other.left.value)
    assert (plain.agreement, plain.ranking) == (turned.agreement, turned.ranking)
    assert [(n.pair, n.annotator, n.wrong) for n in plain.noise] == [
        (n.pair, n.annotator, n.wrong) for n in turned.noise
    ]


@needs_pandalm
def test_report_of_pandalm():
    found = report(pandalm())
    assert found.judgements == 2100
    assert found.converged
    assert [a.name for a in found.annotators] == ["annotator1", "annotator2", "annotator3"]
    assert not any(a.why for a in found.annotators)
    assert all(a.skill is not None and a.skill.value > 0.9 for a in found.annotators)


def test_twenty_thousand_judgements_take_seconds():
    generator = np.random.default_rng(0)
    given = simulate(list(generator.uniform(0.6, 0.95, 40)), seed=0, pairs=6667)
    started = time.perf_counter()
    trust_report(given, seed=0, resamples=1000)
    assert time.perf_counter() - started < 30
