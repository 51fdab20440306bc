"""What was made of short texts, kept: the next annotators of a task come soon after the first."""

from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar, TypeVarTuple

_REMEMBERED = 256
"""Results of one function that are kept."""
_LONGEST = 10_000
"""Of what is kept: characters of all texts together."""
_Texts = TypeVarTuple("_Texts")
_Made = TypeVar("_Made")


def remembered(function: Callable[[*_Texts], _Made]) -> Callable[[*_Texts], _Made]:
    """Return a pure function of texts that makes the same of the same short ones only once."""
    kept = lru_cache(maxsize=_REMEMBERED)(function)

    def found(*texts: *_Texts) -> _Made:
        is_short = sum(len(text) for text in texts if isinstance(text, str)) <= _LONGEST
        return kept(*texts) if is_short else function(*texts)

    return found
