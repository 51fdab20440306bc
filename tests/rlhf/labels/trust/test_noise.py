import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from voters import is_right, rows, simulate

from rlhf.labels.records import Choice, Judgement
from rlhf.labels.trust.aggregation import Consensus, dawid_skene
from rlhf.labels.trust.noise import SkillTest, benjamini_hochberg, doubtful_judgements, opposed_annotators
from rlhf.labels.trust.votes import Votes, tabulate

HONEST = [0.7, 0.73, 0.76, 0.8, 0.82, 0.85, 0.88, 0.9, 0.93, 0.95]


def fitted(judgements: list[Judgement]) -> tuple[Votes, Consensus]:
    votes = tabulate(judgements)
    return votes, dawid_skene(votes)


# Doubtful judgements


def test_the_odd_vote_out_is_found():
    judgements = rows({"ann": "aabbtaab", "bob": "aabbtaab", "cid": "aabbtabb"})
    [found] = doubtful_judgements(judgements, *fitted(judgements))
    assert (found.annotator, found.choice, found.likely) == ("cid", Choice.B, Choice.A)
    assert found.pair == judgements[-2].pair_key
    assert 0.5 < found.wrong < 1
    assert found.as_dict()["likely"] == "a"
    turned = [j.swapped() for j in judgements]
    [same] = doubtful_judgements(turned, *fitted(turned))
    assert (same.choice, same.likely) == (Choice.A, Choice.B)
    assert same.wrong == found.wrong


def test_a_tie_can_be_wrong_and_right():
    judgements = rows({"ann": "aabbtt", "bob": "aabbtt", "cid": "atbbta"})
    found = doubtful_judgements(judgements, *fitted(judgements))
    assert {(f.choice, f.likely) for f in found} == {(Choice.TIE, Choice.A), (Choice.A, Choice.TIE)}


def test_most_doubtful_come_first_and_are_wrong_as_often_as_said():
    hits, said = [], []
    for seed in range(10):
        judgements = simulate(HONEST, seed=seed)
        by_key = {(j.pair_key, j.annotator): is_right(j) for j in judgements}
        found = doubtful_judgements(judgements, *fitted(judgements))
        assert [f.wrong for f in found] == sorted((f.wrong for f in found), reverse=True)
        hits += [not by_key[f.pair, f.annotator] for f in found]
        said += [f.wrong for f in found]
    assert len(hits) > 1500
    assert np.mean(hits) == pytest.approx(np.mean(said), abs=0.03)


# Poisoned annotators


def test_who_flips_everything_is_found_and_nobody_else():
    found = honest_found = 0
    for seed in range(20):
        skills = list(HONEST)
        skills[seed % 10] = 1 - skills[seed % 10]
        results = opposed_annotators(*fitted(simulate(skills, seed=seed, pairs=700)))
        named = [result.tests[0].found for result in results]
        found += named[seed % 10]
        honest_found += sum(named) - named[seed % 10]
    assert found >= 19
    assert honest_found <= 0.05 * 20


@pytest.mark.parametrize("skill", [0.5, 0.6])
def test_at_the_stated_skill_false_findings_keep_the_rate(skill: float):
    # Everyone but the good ones stands exactly at the null; any finding is then false. 100 seeds, rate 0.1.
    false = sum(
        any(
            r.tests[0].found
            for r in opposed_annotators(*fitted(simulate(mix, seed=seed, pairs=250)), skills=(skill,), rate=0.1)
        )
        for seed in range(100)
        for mix in [[skill, skill, 0.85, 0.9, 0.9, 0.95]]
    )
    assert false <= stats.binom.ppf(0.999, 100, 0.1)


def test_two_annotators_accuse_nobody():
    judgements = rows({"ann": "a" * 40, "bob": "b" * 40})
    judgements += [replace(j, annotator=None) for j in judgements if j.annotator == "ann"]
    assert not any(r.tests[0].found for r in opposed_annotators(*fitted(judgements)))
    assert opposed_annotators(*fitted([])) == []


def test_who_shares_no_pair_is_not_tested():
    judgements = [*simulate([0.9] * 4, seed=0), *rows({"zed": "ab"})]
    last = opposed_annotators(*fitted(judgements))[-1]
    assert last == ("zed", None, (SkillTest(1.0, False),))


def test_p_value_by_hand():
    """Both others say a, each right with chance 0.8: so it is a with 16 / 17, and ann says b twice."""
    votes = tabulate(rows({"ann": "bb", "bob": "aa", "cid": "aa"}))
    confusion = np.tile([[0.8, 0.0, 0.2], [0.0, 1.0, 0.0], [0.2, 0.0, 0.8]], (4, 1, 1))
    consensus = Consensus(np.full((2, 3), 1 / 3), np.array([0.5, 0, 0.5]), confusion, True)
    ann, bob, _ = opposed_annotators(votes, consensus, skills=(0.5, 0.6))
    agrees = 16 / 17 * 0.6 + 1 / 17 * 0.4
    assert [test.p_value for test in ann.tests] == pytest.approx([0.25, (1 - agrees) ** 2], abs=1e-9)
    assert [test.p_value for test in bob.tests] == [1.0, 1.0]  # the others say one each


def test_several_skills_at_once_are_the_tests_of_each():
    votes, consensus = fitted(simulate([0.1, 0.5, 0.8, 0.85, 0.9], seed=3, pairs=600))
    together = opposed_annotators(votes, consensus, skills=(0.5, 0.6))
    apart = [opposed_annotators(votes, consensus, skills=(skill,)) for skill in (0.5, 0.6)]
    for result, *alone in zip(together, *apart, strict=True):
        assert result.tests == tuple(one.tests[0] for one in alone)
    assert together[0].tests[0].found
    assert together[1].tests[1].p_value < together[1].tests[0].p_value < 1


@given(st.lists(st.floats(0, 1), max_size=12))
def test_discoveries_against_scipy(p_values: list[float]):
    found = benjamini_hochberg(np.array(p_values), rate=0.05)
    adjusted = stats.false_discovery_control(p_values) if p_values else []
    assert all(is_found == (q <= 0.05) for is_found, q in zip(found, adjusted, strict=True) if abs(q - 0.05) > 1e-9)


def test_sides_change_no_finding():
    judgements = simulate([0.1, 0.9, 0.8, 0.85], seed=3, pairs=100)
    generator = random.Random(0)
    turned = [j.swapped() if generator.random() < 0.5 else j for j in judgements]
    assert opposed_annotators(*fitted(turned)) == opposed_annotators(*fitted(judgements))
