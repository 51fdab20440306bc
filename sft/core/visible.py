"""Text of models and strangers, with the characters that nobody would see written out."""

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from itertools import groupby

_HIDDEN_CATEGORIES = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}
_BLANK = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x2065, 0x2800, 0x3164, 0xFFA0}
_BLANK_SPANS = (range(0xFE00, 0xFE10), range(0xFFF0, 0xFFF9), range(0xE0000, 0xE1000))
_PRINTABLE_BLANK = re.compile(
    f"[{''.join(map(chr, sorted(_BLANK)))}{''.join(f'{chr(span[0])}-{chr(span[-1])}' for span in _BLANK_SPANS)}]"
)
"""What Python calls printable and nobody sees; all other hidden characters are not printable."""
_PRESENTATION = "\ufe0e\ufe0f"
_JOINERS = "\u200c\u200d"


def visible(value: str) -> str:
    """Return the text with control, direction and zero-width characters written out as `⟨U+202E⟩`.

    Line breaks and tabs stay, and so do the joiners that emoji, Arabic and Indic scripts are written with.
    Source: Boucher & Anderson 2021, "Trojan Source", arXiv 2111.00169.
    """
    return replace_hidden(value, lambda sign, count: f"⟨{code_point(sign)}⟩" * count)


def replace_hidden(value: str, mark: Callable[[str, int], str]) -> str:
    """Return the text with each run of one hidden character replaced by `mark(character, length of the run)`."""
    if not may_hide(value):
        return value
    padded = f"\0{value}\0"
    marked = (
        sign if not _is_hidden(sign) or _belongs(before, sign, after) else (sign,)
        for before, sign, after in zip(padded, value, padded[2:], strict=False)
    )
    runs = ((found, len(list(run))) for found, run in groupby(marked))
    return "".join(mark(found[0], count) if isinstance(found, tuple) else found * count for found, count in runs)


def may_hide(value: str) -> bool:
    """Say whether a text may hold a hidden character, at a glance: to look at each of its characters takes long."""
    return not value.replace("\n", "").replace("\t", "").isprintable() or _PRINTABLE_BLANK.search(value) is not None


def code_point(sign: str) -> str:
    """Return a character's number as Unicode writes it."""
    return f"U+{ord(sign):04X}"


@lru_cache(maxsize=4096)
def _is_hidden(sign: str) -> bool:
    if sign in "\n\t":
        return False
    number = ord(sign)
    is_blank = number in _BLANK or any(number in span for span in _BLANK_SPANS)
    return is_blank or unicodedata.category(sign) in _HIDDEN_CATEGORIES


def _belongs(before: str, sign: str, after: str) -> bool:
    """Say whether a joiner or a variation selector does what it is there for, so that its effect is seen."""
    if sign in _PRESENTATION:
        return _is_symbol(before) or before in "#*0123456789"
    if sign not in _JOINERS:
        return False
    joins_emoji = sign == "\u200d" and (_is_symbol(before) or before == "\ufe0f") and _is_symbol(after)
    is_script = unicodedata.combining(before) == 9 or unicodedata.bidirectional(before) == "AL"  # 9: a virama
    return joins_emoji or (is_script and after.isalpha())


def _is_symbol(sign: str) -> bool:
    return unicodedata.category(sign) in ("So", "Sk", "Sm", "Po") and not sign.isascii()
