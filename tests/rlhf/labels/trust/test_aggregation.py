import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voters import is_right, judge, rows, simulate

from rlhf.labels.records import Choice, Judgement
from rlhf.labels.trust import aggregation
from rlhf.labels.trust.aggregation import (
    Consensus,
    dawid_skene,
    right_probabilities,
    side_biases,
    skills,
    without_own_vote,
)
from rlhf.labels.trust.votes import FIRST, SECOND, Ints, Votes, tabulate, value_counts
from sft.core.durable import text_digest
from sft.core.statistics import Estimate, clustered_mean
from sft.core.text import user

SKILLS = [0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.93, 0.95]
EXAMPLE = rows({"ann": "aabbabtabbat", "bob": "aabbabtabaab", "cid": "abbbattabbaa", "dan": "babaabbbabtt"})


def truths(votes: Votes, judgements: list[Judgement]) -> Ints:
    """Return the value of the good answer of each pair."""
    answers = {j.pair_key: (j.response_a, j.response_b) for j in judgements}
    firsts = [sorted(answers[pair], key=text_digest)[0] for pair in votes.pairs]
    return np.array([FIRST if text.startswith("good") else SECOND for text in firsts])


def known_skills(votes: Votes) -> list[Estimate]:
    return [estimate for estimate in skills(votes, dawid_skene(votes)) if estimate is not None]


# Against crowd-kit 1.4.2: its DawidSkene with n_iter=1000, tol=-1 (its
# loss goes up in between, so that any tolerance stops it early) on EXAMPLE as (task,
# worker, label) rows gave these numbers (`probas_`, `errors_`); values are in the order a, tie, b.


def test_dawid_skene_against_crowd_kit():
    found = dawid_skene(tabulate(EXAMPLE), smoothing=0, symmetric=False)
    assert found.converged
    assert "".join("atb"[label] for label in found.labels_I) == "aabbabtabbat"
    assert found.posterior_I3.max(axis=1) == pytest.approx(1, abs=1e-4)
    errors = {
        "ann": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        "bob": [[1, 0, 0], [0, 0.5, 0.5], [0.2, 0, 0.8]],
        "cid": [[0.8, 0, 0.2], [0.5, 0.5, 0], [0, 0.2, 0.8]],
        "dan": [[0.4, 0.2, 0.4], [0, 0.5, 0.5], [0.4, 0, 0.6]],
    }
    for confusion, expected in zip(found.confusion_K33, errors.values(), strict=False):
        assert confusion == pytest.approx(np.array(expected), abs=1e-3)


# Simulated annotators


def test_skill_is_found_and_its_interval_holds_it():
    errors, held = [], 0
    for seed in range(20):
        votes = tabulate(simulate(SKILLS, seed=seed, pairs=700))
        estimates = known_skills(votes)
        assert min(e.n for e in estimates) >= 170
        errors.append(np.mean([abs(e.value - skill) for e, skill in zip(estimates, SKILLS, strict=True)]))
        held += sum(e.ci[0] <= skill <= e.ci[1] for e, skill in zip(estimates, SKILLS, strict=True))
    assert max(errors) <= 0.05
    assert np.mean(errors) <= 0.04
    assert 0.92 <= held / 200 <= 0.99


def test_votes_that_nobody_else_checks_say_nothing_of_skill():
    together = simulate([0.8, 0.9, 0.95], seed=0, pairs=60)
    alone = [replace(j, annotator="loner") for j in simulate([0.5], seed=1, pairs=200, votes=1)]
    away = [replace(j, prompt=user(f"other {j.prompt[-1].content}")) for j in alone]
    votes = tabulate([*together, *away, *(replace(j, annotator="ann00") for j in away[:50])])
    found = dict(zip(votes.annotators, skills(votes, dawid_skene(votes)), strict=True))
    assert found["loner"] is not None
    assert found["loner"].n == 50
    votes = tabulate([*together, *away])
    assert skills(votes, dawid_skene(votes))[-1] is None
    votes = tabulate(away)
    assert skills(votes, dawid_skene(votes)) == [None]


def test_aggregated_labels_beat_the_majority_vote():
    gains, seeds = [], []
    for seed in range(8):
        judgements = simulate(SKILLS, seed=seed, pairs=700)
        votes = tabulate(judgements)
        counts, truth = value_counts(votes), truths(votes, judgements)
        majority = np.where(counts[:, FIRST] > counts[:, SECOND], FIRST, SECOND)
        gains += [*((dawid_skene(votes).labels_I == truth).astype(float) - (majority == truth))]
        seeds += [f"{seed} {pair}" for pair in votes.pairs]
    gain = clustered_mean(gains, seeds, seed=0)
    assert gain.ci[0] > 0.01


@pytest.mark.parametrize("votes_per_pair", [1, 2])
def test_few_votes_stay_moderate(votes_per_pair: int):
    votes = tabulate(simulate([0.6, 0.8, 0.9], seed=0, pairs=30, votes=votes_per_pair))
    found = dawid_skene(votes)
    assert np.isfinite(found.posterior_I3).all()
    assert found.posterior_I3.sum(axis=1) == pytest.approx(1)
    assert found.confusion_K33[:, [0, 2]].sum(axis=2) == pytest.approx(1)
    assert found.posterior_I3[:, 1] == pytest.approx(0, abs=1e-9)  # nobody said tie


def test_votes_without_a_name_are_one_annotator():
    votes = tabulate([judge(str(i), c) for i in range(10) for c in (Choice.A, Choice.A, Choice.B)])
    found = dawid_skene(votes)
    assert found.confusion_K33.shape == (1, 3, 3)
    assert (found.labels_I == FIRST).all()
    assert skills(votes, found) == side_biases(votes, found) == []


def test_nothing_gives_nothing():
    assert dawid_skene(tabulate([])).posterior_I3.shape == (0, 3)
    only_ties = tabulate([judge("p", Choice.TIE, "ann")])
    assert dawid_skene(only_ties).labels_I.tolist() == [1]


def test_a_fit_that_was_stopped_early_says_so(monkeypatch: pytest.MonkeyPatch):
    votes = tabulate(EXAMPLE)
    assert dawid_skene(votes).converged
    monkeypatch.setattr(aggregation, "MAX_ITERATIONS", 2)
    assert not dawid_skene(votes).converged


def test_without_own_vote():
    votes = tabulate(rows({"ann": "a", "bob": "a", "cid": "b"}))
    confusion = np.tile([[0.8, 0.0, 0.2], [0.0, 1.0, 0.0], [0.2, 0.0, 0.8]], (4, 1, 1))
    # ann and bob: of the others one says a, one b. cid: both others say a, 0.64 to 0.04.
    posterior = np.array([[0.8 * 0.8 * 0.2, 0, 0.2 * 0.2 * 0.8]]) / (0.128 + 0.032)
    found = without_own_vote(votes, Consensus(posterior, np.array([0.5, 0, 0.5]), confusion, True))
    assert found[:, FIRST] == pytest.approx([0.5, 0.5, 16 / 17], abs=1e-6)


def test_probability_of_being_right_is_calibrated():
    stated, seen = [], []
    for seed in range(10):
        judgements = simulate(SKILLS, seed=seed)
        votes = tabulate(judgements)
        stated += right_probabilities(votes, dawid_skene(votes)).tolist()
        seen += [is_right(judgements[source]) for source in votes.source_N]
    bins = np.digitize(stated, [0.2, 0.4, 0.6, 0.8])
    for number in range(5):
        chosen = bins == number
        assert chosen.sum() > 500
        assert np.mean(np.array(seen)[chosen]) == pytest.approx(np.mean(np.array(stated)[chosen]), abs=0.06)


# Sides


def test_side_bias_is_found():
    # Right with chance 0.8, but left without looking in 40 % and 0 %: chance of left is 0.88 and 0.52; half the
    # difference to 1 is 0.2 of 0.5.
    judgements = simulate([0.8] * 6, seed=1, pairs=1500, left=[0.4, 0, 0, 0, 0, 0])
    votes = tabulate(judgements)
    found = side_biases(votes, dawid_skene(votes))
    assert found[0] is not None
    assert found[0].value == pytest.approx(0.2, abs=0.04)
    assert found[0].ci[0] < 0.2 < found[0].ci[1]
    others = [e for e in found[1:] if e is not None]
    assert sum(e.ci[0] <= 0 <= e.ci[1] for e in others) >= 4


def test_side_bias_is_no_matter_of_where_the_better_answer_stands():
    judgements = simulate([0.9] * 5, seed=2, pairs=1200)
    good_left = [j if j.response_a.startswith("good") else j.swapped() for j in judgements]
    judgements = [j.swapped() if number % 4 == 0 else j for number, j in enumerate(good_left)]
    votes = tabulate(judgements)
    for found in side_biases(votes, dawid_skene(votes)):
        assert found is not None
        assert found.ci[0] - 0.02 < 0 < found.ci[1] + 0.02
        assert abs(found.value) < 0.05


def test_side_bias_needs_known_sides():
    known = tabulate([judge("p", Choice.TIE, "ann")])
    assert side_biases(known, dawid_skene(known)) == [None]


# What must change nothing


several = st.lists(st.text("abt.", min_size=6, max_size=6), min_size=1, max_size=4).map(
    lambda texts: rows({f"ann{i}": text for i, text in enumerate(texts)})
)


@settings(max_examples=30, deadline=None)
@given(several, st.randoms(use_true_random=False))
def test_sides_change_nothing_but_side_bias(judgements: list[Judgement], chance: random.Random):
    turned = [j.swapped() if chance.random() < 0.5 else j for j in judgements]
    found, expected = dawid_skene(tabulate(turned)), dawid_skene(tabulate(judgements))
    assert (found.posterior_I3 == expected.posterior_I3).all()
    assert skills(tabulate(turned), found) == skills(tabulate(judgements), expected)
    everything = tabulate([j.swapped() for j in judgements])
    for turned_bias, bias in zip(
        side_biases(everything, dawid_skene(everything)),
        side_biases(tabulate(judgements), dawid_skene(tabulate(judgements))),
        strict=True,
    ):
        assert (turned_bias is None) == (bias is None)
        assert turned_bias is None or bias is None or turned_bias.value == pytest.approx(-bias.value, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(several)
def test_names_permute(judgements: list[Judgement]):
    names = {f"ann{i}": f"zed{9 - i}" for i in range(4)}
    renamed = tabulate([Judgement(**{**vars(j), "annotator": names[str(j.annotator)]}) for j in judgements])
    votes = tabulate(judgements)
    found, expected = skills(renamed, dawid_skene(renamed)), skills(votes, dawid_skene(votes))
    for one, other in zip(found, reversed(expected), strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert (one.n, one.value) == (other.n, pytest.approx(other.value, abs=1e-6))
