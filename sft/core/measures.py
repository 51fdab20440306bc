"""Pure measures of answers. Letters: N answers."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def wins(own_scores_N: Floats, other_scores_N: Floats) -> Floats:
    """Return 1 where the first score is higher, 0.5 where both are equal, else 0."""
    return 0.5 + 0.5 * np.sign(own_scores_N - other_scores_N)


def repetition(text: str, *, n: int = 3) -> float:
    """Return the share of a text's word n-grams that it has said before; 0 for a text with no n-gram."""
    words = text.lower().split()
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
