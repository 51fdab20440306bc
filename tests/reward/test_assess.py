from collections.abc import Sequence

import numpy as np
import pytest

from reward.baselines import bag_of_words, longer_wins
from reward.data import Comparison
from reward.evaluate import assess
from sft.core.text import Conversation, user

TRAIN = [Comparison(user(f"q {i}"), f"kind x{i % 3}", f"rude x{i % 2}") for i in range(20)]
TEST = [Comparison(user(f"q {i // 4}"), "kind " * (1 + i % 3), "rude " * (1 + i % 2)) for i in range(24)]


class Fixed:
    """Scores by a function of the answer."""

    def __init__(self, score) -> None:
        self.score = score

    def score_texts(self, pairs: Sequence[tuple[Conversation, str]]) -> np.ndarray:
        return np.array([self.score(answer) for _, answer in pairs], dtype=np.float64)


def test_a_model_that_counts_words_is_the_length_baseline():
    report = assess(Fixed(lambda answer: len(answer.split())), train=TRAIN, test=TEST, seed=0)
    assert report.accuracy == report.longer_wins
    assert report.longer_wins.value == pytest.approx(longer_wins(TEST).mean())
    assert 0 < report.longer_wins.value < 1


def test_a_perfect_a_wrong_and_an_undecided_model():
    perfect = assess(Fixed(lambda answer: 3.0 * ("kind" in answer)), train=TRAIN, test=TEST, seed=0)
    assert (perfect.accuracy.value, perfect.accuracy.ci, perfect.accuracy.n) == (1.0, (1.0, 1.0), 24)
    assert perfect.ece == pytest.approx(1 - 1 / (1 + np.exp(-3)))
    assert perfect.chosen_scores == [3.0] * 24
    assert perfect.rejected_scores == [0.0] * 24
    wrong = assess(Fixed(lambda answer: 3.0 * ("rude" in answer)), train=TRAIN, test=TEST, seed=0)
    assert wrong.accuracy.value == 0.0
    assert wrong.ece == pytest.approx(1 / (1 + np.exp(-3)))
    undecided = assess(Fixed(lambda answer: 1.0), train=TRAIN, test=TEST, seed=0)
    assert (undecided.accuracy.value, undecided.ece) == (0.5, 0.0)


def test_the_bag_of_words_learns_from_train_and_is_measured_on_test():
    report = assess(Fixed(len), train=TRAIN, test=TEST, seed=0)
    assert report.bag_of_words.value == pytest.approx(bag_of_words(TRAIN, TEST).mean()) == 1.0


def test_intervals_resample_prompts():
    """All answers to a prompt agree, so six prompts stand behind the interval, not 24 rows."""
    right = {f"q {i}" for i in range(3)}

    class ByPrompt(Fixed):
        def score_texts(self, pairs):
            return np.array([float(("kind" in a) == (p[-1].content in right)) for p, a in pairs])

    report = assess(ByPrompt(None), train=TRAIN, test=TEST, seed=0)
    assert report.accuracy.value == 0.5
    width = report.accuracy.ci[1] - report.accuracy.ci[0]
    assert width == pytest.approx(2 * 1.96 * (0.25 / 6) ** 0.5, abs=0.2)
    assert width > 2 * 1.96 * (0.25 / 24) ** 0.5 * 1.4
