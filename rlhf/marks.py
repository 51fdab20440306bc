"""What the lines of a sweep's point begin with: its number, which its folder has too, and the words of its own."""

import re
from pathlib import Path

from rlhf.runs.naming import label
from rlhf.runs.record import Asked

_LENGTH = 60
_SECTIONS = re.compile(r"(?<![^,])[+~]*(?:\w+\.)+(?=\w+=)")
_KEY = re.compile(r"(?<![^,])(\w+)=")
_LONG_NUMBER = re.compile(r"(?<==)-?\d+\.\d+(?:e[+-]?\d+)?(?![^,])")


def mark(asked: Asked, experiment: str, folder: Path) -> str:
    """Return a mark such as `#2 kl_coef=0.3`; nothing for a run that is no point of a sweep.

    Sections are left out where the last parts of the names still differ, and numbers have four digits. A folder that
    the user has given another name than a number gives none.

    Args:
        asked: what the command line asked for.
        experiment: name of the experiment, for a point that has no words of its own.
        folder: of the run.
    """
    if asked.sweep is None:
        return ""
    number = f"#{int(folder.name)} " if folder.name.isdecimal() else ""
    own = number + _short(label(asked, experiment))
    return own if len(own) <= _LENGTH else f"{own[: _LENGTH - 1]}…"


def _short(words: str) -> str:
    short = _SECTIONS.sub("", words)
    keys = _KEY.findall(short)
    unlike = short if len(set(keys)) == len(keys) else words
    return _LONG_NUMBER.sub(lambda found: f"{float(found[0]):.4g}", unlike)
