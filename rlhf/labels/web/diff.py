"""What differs between two answers, word by word, for the page."""

import re
from collections import Counter
from difflib import Match, SequenceMatcher
from itertools import accumulate
from typing import NamedTuple

from markupsafe import Markup

from rlhf.labels.web.remembered import remembered
from rlhf.labels.web.text import beside_hidden, marked

_CORE = re.compile(r"\S(?:.*\S)?")
_MOST_PIECES = 4000
_STEPS_BESIDE_HIDDEN = 5
"""What a character beside a hidden one costs when it is written out."""


class _Unit(NamedTuple):
    """What is compared."""

    name: str
    pieces: re.Pattern[str]
    most_steps: int
    """Each up to 0.15 µs: pieces that are looked at, and for each the equal ones of the other answer."""


_UNITS = (
    _Unit("words", re.compile(r"\w+\s*|[^\w\s]\s*|^\s+"), 800_000),
    _Unit("lines", re.compile(r"[^\n]*\n\s*|[^\n]+$"), 300_000),
)


class Difference(NamedTuple):
    """Both answers with what the other one lacks marked: `del` on the left, `ins` on the right."""

    left: Markup
    right: Markup
    unit: str
    """What was compared: "words" or "lines"."""


@remembered
def difference(left: str, right: str) -> Difference | None:
    """Compare two answers by words, or by lines where that is too much work; None where both are.

    Spaces do not count.
    """
    for unit in _UNITS:
        found = _compared(unit.pieces.findall(left), unit.pieces.findall(right), unit.most_steps)
        if found is not None:
            return Difference(*found, unit.name)
    return None


def _compared(left: list[str], right: list[str], most_steps: int) -> tuple[Markup, Markup] | None:
    if max(len(left), len(right)) > _MOST_PIECES:
        return None
    try:
        keys = [piece.strip() for piece in left], [piece.strip() for piece in right]
        compared = _Comparison(*keys, most_steps).get_opcodes()
    except _TooMuch:
        return None
    made_left, made_right = [], []
    for tag, start, end, other_start, other_end in compared:
        same = tag == "equal"
        made_left.append(_piece("del", left[start:end], same))
        made_right.append(_piece("ins", right[other_start:other_end], same))
    return Markup("").join(made_left), Markup("").join(made_right)


class _TooMuch(Exception):
    """A comparison takes more steps than anybody waits for."""


class _Comparison(SequenceMatcher[str]):
    """difflib's comparison, which may take the cube of its pieces, given up after so many steps."""

    def __init__(self, left: list[str], right: list[str], most_steps: int) -> None:
        super().__init__(None, left, right, autojunk=False)
        counts = Counter(right)
        self._steps = [0, *accumulate(1 + counts[key] for key in left)]
        self._left_over = most_steps - _STEPS_BESIDE_HIDDEN * sum(map(beside_hidden, (*left, *right)))

    def find_longest_match(self, alo: int = 0, ahi: int | None = None, blo: int = 0, bhi: int | None = None) -> Match:
        """Find it, and count the steps: no more than all equal pieces of these of the left answer."""
        self._left_over -= self._steps[-1 if ahi is None else ahi] - self._steps[alo]
        if self._left_over < 0:
            raise _TooMuch
        return super().find_longest_match(alo, ahi, blo, bhi)


def _piece(tag: str, pieces: list[str], same: bool) -> Markup:
    """Return pieces as HTML; of different ones each line is marked from its first sign to its last."""
    text = "".join(pieces)
    if same:
        return marked(text)
    made, end = [], 0
    for core in _CORE.finditer(text):
        made += [marked(text[end : core.start()]), Markup(f"<{tag}>"), marked(core[0]), Markup(f"</{tag}>")]
        end = core.end()
    return Markup("").join([*made, marked(text[end:])])
