import itertools
import math
import random

import numpy as np
import pytest
from scipy import optimize
from voters import judge, rows

from rlhf.labels.records import Choice, Judgement
from rlhf.labels.trust import circles
from rlhf.labels.trust.aggregation import dawid_skene
from rlhf.labels.trust.circles import _NoisyModel, cross_checked, noisy_bradley_terry, with_other_pairs
from rlhf.labels.trust.noise import doubtful_judgements
from rlhf.labels.trust.votes import TIE, Floats, tabulate
from sft.core.text import user

EXAMPLE = rows({"ann": "aabbabtabbat", "bob": "aabbabtabaab", "cid": "abbbattabbaa", "dan": "babaabbbabtt"})


def says(winner: str, loser: str, prompt: str = "p", who: str | None = "ann") -> Judgement:
    return Judgement(user(prompt), winner, loser, Choice.A, who, 1, "d", order_known=False)


def order(better_first: str, prompt: str = "p", who: str | None = "ann") -> list[Judgement]:
    """Return all comparisons of answers that one letter names each, the best first."""
    return [says(*pair, prompt, who) for pair in itertools.combinations(better_first, 2)]


# Which pairs are checked by others


def test_five_answers_check_each_other_and_four_do_not():
    four, five = order("wxyz", "four"), order("vwxyz", "five")
    chain = [says("x", "y", "chain"), says("y", "z", "chain")]
    given = [*four, *five, *chain, judge("alone", Choice.A, "ann")]
    assert cross_checked(tabulate(given)).tolist() == [False] * 6 + [True] * 10 + [False] * 3
    assert cross_checked(tabulate([])).tolist() == []


def test_a_pair_with_two_votes_is_left_to_dawid_and_skene():
    votes = tabulate([*order("vwxyz"), says("w", "v", who="bob")])
    assert cross_checked(votes).tolist() == [False] + [True] * 9
    before = dawid_skene(votes)
    assert (with_other_pairs(votes, before).posterior_I3[0] == before.posterior_I3[0]).all()


def test_pairs_alone_change_nothing():
    votes = tabulate(EXAMPLE)
    consensus = dawid_skene(votes)
    assert with_other_pairs(votes, consensus) is consensus


# What they say


def test_the_one_vote_against_an_order_is_doubted():
    """v > w > x > y > z, but somebody said z > v."""
    given = [*order("vwxyz")[:3], says("z", "v"), *order("wxyz")]
    votes = tabulate(given)
    [found] = doubtful_judgements(given, votes, with_other_pairs(votes, dawid_skene(votes)))
    assert found.pair == given[3].pair_key
    assert (found.choice, found.likely) == (Choice.A, Choice.B)
    assert 0.5 < found.wrong < 1
    assert doubtful_judgements(given, votes, dawid_skene(votes)) == []


def test_how_probable_a_tie_is_stays():
    given = [*order("vwxyz"), Judgement(user("q"), "v", "w", Choice.TIE, "ann", 1, "d"), *order("vwxyz", "q")[1:]]
    assert cross_checked(tabulate(given)).all()
    votes = tabulate(given)
    before = dawid_skene(votes)
    after = with_other_pairs(votes, before)
    assert (after.posterior_I3[:, TIE] == before.posterior_I3[:, TIE]).all()
    assert after.posterior_I3.sum(axis=1) == pytest.approx(1)


@pytest.mark.parametrize("answers", [5, 8])
@pytest.mark.parametrize("skill", [0.7, 0.85, 0.95])
def test_doubts_are_wrong_about_as_often_as_said(answers: int, skill: float):
    """One person judges each pair once, and is wrong with the same chance however close the answers are."""
    said, wrong, everything = [], [], 0
    for seed in range(6):
        generator = random.Random(seed)
        given = [
            says(*((one, other) if generator.random() < skill else (other, one)), str(prompt))
            for prompt in range(30)
            for one, other in itertools.combinations("abcdefgh"[:answers], 2)
        ]
        votes = tabulate(given)
        found = doubtful_judgements(given, votes, with_other_pairs(votes, dawid_skene(votes)))
        is_wrong = {j.pair_key: j.response_a > j.response_b for j in given}
        said += [doubt.wrong for doubt in found]
        wrong += [is_wrong[doubt.pair] for doubt in found]
        everything += sum(is_wrong.values())
    assert np.mean(wrong) == pytest.approx(np.mean(said), abs=0.13)
    assert np.mean(wrong) > 0.5
    assert sum(wrong) / everything > 0.15


def test_a_fit_that_was_stopped_early_says_so(monkeypatch: pytest.MonkeyPatch):
    votes = tabulate([*order("vwxyz"), *order("zyxwv", "q")])
    assert with_other_pairs(votes, dawid_skene(votes)).converged
    monkeypatch.setattr(circles, "MAX_ITERATIONS", 1)
    assert not with_other_pairs(votes, dawid_skene(votes)).converged


# The fit


def comparisons(attention: list[float], left: list[float], *, seed: int) -> list[Judgement]:
    """Return what annotators say about all pairs of ten answers to each of ten prompts."""
    generator = random.Random(seed)
    given = []
    for prompt in range(10):
        scores = [generator.gauss(0, 1.5) for _ in range(10)]
        for one, other in itertools.permutations(range(10), 2):
            for who, (care, habit) in enumerate(zip(attention, left, strict=True)):
                if (one < other) == (generator.random() < 0.5):
                    continue
                follows = generator.random() < 1 / (1 + math.exp(scores[other] - scores[one]))
                choice = (
                    Choice.A if (follows if generator.random() < care else generator.random() < habit) else Choice.B
                )
                given.append(Judgement(user(f"p{prompt}"), f"x{one}", f"x{other}", choice, f"ann{who:02d}", 1, "d"))
    return given


def test_attention_and_side_are_found():
    attention, left = [0.95, 0.8, 0.6, 0.4] * 3, [0.5, 0.9, 0.2, 0.8] * 3
    found = noisy_bradley_terry(tabulate(comparisons(attention, left, seed=0)))
    assert found.converged
    assert found.attention_K[:12].reshape(3, 4).mean(axis=0) == pytest.approx(attention[:4], abs=0.1)
    assert found.left_K[:12].reshape(3, 4).mean(axis=0)[1:] == pytest.approx(left[1:4], abs=0.15)


def vector_of(model: _NoisyModel, seed: int) -> Floats:
    return np.random.default_rng(seed).normal(size=len(model.start()))


def test_noisy_bradley_terry_gradient():
    unknown = [Judgement(**{**vars(judge(str(i), Choice.A, "ann")), "order_known": False}) for i in range(3)]
    model = _NoisyModel(tabulate([*EXAMPLE, *unknown, judge("7", Choice.B)]))
    for seed in range(3):
        vector = vector_of(model, seed)
        numeric = optimize.approx_fprime(vector, lambda v: model.loss(v)[0], 1e-7)
        assert model.loss(vector)[1] == pytest.approx(numeric, abs=1e-4)


def test_noisy_bradley_terry_likelihood_by_hand():
    # One vote, first answer left and preferred: p = 0.6 * sigmoid(1 - 0) + 0.4 * 0.5.
    model = _NoisyModel(tabulate([judge("p", Choice.A, "ann")]))
    logit = np.log(0.6 / 0.4)
    vector = np.array([1.0, 0.0, logit, np.log(4), 0.0, 0.0])
    p = 0.6 / (1 + np.exp(-1)) + 0.2
    prior = 0.5 * (1 / 1.5**2 + (logit - np.log(4)) ** 2)
    assert model.loss(vector)[0] == pytest.approx(prior - np.log(p), abs=1e-9)
