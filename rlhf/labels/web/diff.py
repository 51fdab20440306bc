"""What differs between two answers, word by word, for the page."""

import re
from collections import Counter
from difflib import SequenceMatcher
from functools import lru_cache
from typing import NamedTuple

from markupsafe import Markup

from rlhf.labels.web.text import REMEMBERED_AT_MOST, marked

_WORD = re.compile(r"\w+\s*|[^\w\s]\s*|^\s+")
_CORE = re.compile(r"\S(?:.*\S)?")
_LINE = re.compile(r"[^\n]*\n|[^\n]+$")
_REMEMBERED = 256
"""Pairs whose difference is kept."""
_MOST_PIECES = 4000
_MOST_PAIRS = 150_000
"""Of equal pieces, one left and one right: what difflib walks through, again and again."""


class Difference(NamedTuple):
    """Both answers with what the other one lacks marked: `del` on the left, `ins` on the right."""

    left: Markup
    right: Markup
    unit: str
    """What was compared: "words" or "lines"."""


def difference(left: str, right: str) -> Difference | None:
    """Compare two answers by words, or by lines where that is too much work; None where both are.

    Spaces do not count.
    """
    return _remembered(left, right) if len(left) + len(right) <= REMEMBERED_AT_MOST else _difference(left, right)


@lru_cache(maxsize=_REMEMBERED)
def _remembered(left: str, right: str) -> Difference | None:
    return _difference(left, right)


def _difference(left: str, right: str) -> Difference | None:
    for unit, pattern in (("words", _WORD), ("lines", _LINE)):
        found = _compared(pattern.findall(left), pattern.findall(right))
        if found is not None:
            return Difference(*found, unit)
    return None


def _compared(left: list[str], right: list[str]) -> tuple[Markup, Markup] | None:
    keys = [piece.strip() for piece in left], [piece.strip() for piece in right]
    counts = Counter(keys[0]), Counter(keys[1])
    pairs = sum(count * counts[1][key] for key, count in counts[0].items())
    if max(len(left), len(right)) > _MOST_PIECES or pairs > _MOST_PAIRS:
        return None
    made_left, made_right = Markup(), Markup()
    for tag, start, end, other_start, other_end in SequenceMatcher(None, *keys, autojunk=False).get_opcodes():
        same = tag == "equal"
        made_left += _piece("del", left[start:end], same)
        made_right += _piece("ins", right[other_start:other_end], same)
    return made_left, made_right


def _piece(tag: str, pieces: list[str], same: bool) -> Markup:
    """Return pieces as HTML; of different ones each line is marked from its first sign to its last."""
    text = "".join(pieces)
    if same:
        return marked(text)
    made, end = Markup(), 0
    for core in _CORE.finditer(text):
        made += marked(text[end : core.start()]) + Markup(f"<{tag}>") + marked(core[0]) + Markup(f"</{tag}>")
        end = core.end()
    return made + marked(text[end:])
