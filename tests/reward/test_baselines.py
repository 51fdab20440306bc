import numpy as np

from reward.baselines import bag_of_words, longer_wins
from reward.data import Comparison
from sft.core.text import user

PROMPT = user("how ?")


def pair(chosen: str, rejected: str) -> Comparison:
    return Comparison(PROMPT, chosen, rejected)


def test_longer_counts_words():
    comparisons = [pair("a b c", "dddddddd"), pair("a", "b c"), pair("a b", "c d"), pair("", "x"), pair("a\n b", "c")]
    assert longer_wins(comparisons).tolist() == [1, 0, 0.5, 0, 1]


def test_bag_of_words_learns_which_words_win():
    generator = np.random.default_rng(0)
    filler = ["red", "green", "blue", "gray"]

    def text(word: str) -> str:
        return " ".join([*generator.choice(filler, 3), word])

    train = [pair(text("kind"), text("rude")) for _ in range(60)]
    test = [pair("kind red", "rude red"), pair("rude blue", "kind blue"), pair("kind", "unseen"), pair("new", "words")]
    assert bag_of_words(train, test).tolist() == [1, 0, 1, 0.5]


def test_bag_of_words_has_no_side():
    """Where train labels are noise, swapping a test pair swaps its verdict."""
    generator = np.random.default_rng(1)
    words = [f"w{i}" for i in range(12)]
    rows = [pair(*(" ".join(generator.choice(words, 4)) for _ in range(2))) for _ in range(80)]
    swapped = [pair(c.rejected, c.chosen) for c in rows[40:]]
    assert np.allclose(bag_of_words(rows[:40], rows[40:]) + bag_of_words(rows[:40], swapped), 1)
