import numpy as np
import pytest

from rlhf.evaluation import repetition, wins


def test_wins_by_hand_and_by_symmetry():
    own, other = np.array([1.0, 2.0, -3.0, 0.0]), np.array([0.5, 2.0, 1.0, -0.0])
    assert wins(own, other).tolist() == [1, 0.5, 0, 0.5]
    assert (wins(own, other) + wins(other, own) == 1).all()
    assert wins(np.array([]), np.array([])).shape == (0,)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0.0),
        ("one two", 0.0),
        ("a b c", 0.0),
        ("a b c d e", 0.0),
        ("a b c a b c", 1 / 4),
        ("x x x x x", 2 / 3),
        ("A b C\n a  B c", 1 / 4),
    ],
)
def test_repetition_by_hand(text: str, share: float):
    assert repetition(text) == pytest.approx(share)


def test_repetition_of_other_lengths():
    assert repetition("a b a b", n=2) == pytest.approx(1 / 3)
    assert repetition("a b a b", n=1) == pytest.approx(1 / 2)
    assert repetition("a b a b", n=4) == 0.0
