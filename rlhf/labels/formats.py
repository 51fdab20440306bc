"""File formats of preferences: which one a file has, and one parser for each, row -> Judgement.

A new format is a parser here, a line in `PARSERS`, a clue in `_format_of`, and a name in `LabelFormat`.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import takewhile

from rlhf.labels.records import Choice, Judgement
from sft.config import LabelFormat
from sft.core.errors import DataError
from sft.core.rows import Row, RowError, json_type
from sft.core.text import Conversation, Message, user
from sft.data import answered, messages_from, prompt_from, split_answer, text_from

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_CHOICES = {
    **dict.fromkeys(["a", "1", "1.0", "left"], Choice.A),
    **dict.fromkeys(["b", "2", "2.0", "right"], Choice.B),
    **dict.fromkeys(["tie", "0", "0.0"], Choice.TIE),
}
_ABSENT = {"", "nan", "none", "null"}


def detect(rows: Sequence[Row]) -> LabelFormat:
    """Return the format that most of the first rows of a file have.

    Raises:
        DataError: no row has a column that tells; the message names the columns there are and those that are needed.
    """
    votes = Counter(found for row in rows if (found := _format_of(row)))
    if votes:
        return votes.most_common(1)[0][0]
    columns = ", ".join(dict.fromkeys(name for row in rows for name in row.value)) or "none"
    raise DataError(
        f"the format of the preferences is not clear: found the columns {columns}; needed are chosen and rejected "
        "(data.format=hh for transcripts, data.format=trl with or without a prompt), or prompt, response_a, "
        "response_b and label (data.format=pairwise); rename the columns"
    )


def _format_of(row: Row) -> LabelFormat | None:
    columns = row.value
    if "response_a" in columns or "response_b" in columns:
        return LabelFormat.PAIRWISE
    if "chosen" not in columns and "rejected" not in columns:
        return None
    texts = [text for text in (columns.get("chosen"), columns.get("rejected")) if isinstance(text, str)]
    is_transcript = columns.get("prompt") is None and any(_TURN.match(text) for text in texts)
    return LabelFormat.HH if is_transcript else LabelFormat.TRL


def _column(row: Row, name: str) -> object:
    if row.value.get(name) is None:
        raise RowError(f"missing column: {name!r} (found {', '.join(row.value) or 'none'})")
    return row.value[name]


def _differing(response_a: str, response_b: str) -> None:
    if response_a == response_b:
        raise RowError("identical answers: nothing can be learned from choosing between equal texts")


def _winner(row: Row, prompts: tuple[Conversation, Conversation], chosen: str, rejected: str) -> Judgement:
    if prompts[0] != prompts[1]:
        raise RowError("prompts differ: the turns before the chosen and the rejected answer are not the same")
    _differing(chosen, rejected)
    return Judgement(
        prompt=prompts[0],
        response_a=chosen,
        response_b=rejected,
        choice=Choice.A,
        annotator=_name(row, "annotator"),
        line=row.line,
        digest=row.digest,
        strength=_strength(row, "margin"),
        order_known=False,
    )


# Anthropic HH


def _transcript(row: Row, name: str) -> Conversation:
    text = _column(row, name)
    if not isinstance(text, str):
        raise RowError(f"wrong type: {name!r} must be a transcript, found {json_type(text)}")
    before, *pieces = _TURN.split(text)
    if before.strip() or not pieces:
        raise RowError(f"no transcript: {name!r} must start with an empty line and 'Human:'")
    turns = zip(pieces[::2], pieces[1::2], strict=True)
    return tuple(Message(_ROLES[speaker], words.strip()) for speaker, words in turns)


def _hh(row: Row) -> Judgement:
    """Parse two transcripts that share all but the last answer. Source: Bai et al. 2022, arXiv 2204.05862, data.

    A turn starts only at an empty line followed by "Human:" or "Assistant:"; the same words elsewhere are text.
    """
    chosen, rejected = _transcript(row, "chosen"), _transcript(row, "rejected")
    if chosen[-1].role == rejected[-1].role == "assistant" and chosen[:-1] != rejected[:-1]:
        raise RowError("prompts differ: the turns before the chosen and the rejected answer are not the same")
    (prompt, answer), (other_prompt, other) = split_answer(chosen), split_answer(rejected)
    return _winner(row, (prompt, other_prompt), answer, other)


# TRL preference


def _trl(row: Row) -> Judgement:
    """Parse `prompt, chosen, rejected`, or `chosen, rejected` that contain the prompt; texts or message lists."""
    chosen, rejected = _column(row, "chosen"), _column(row, "rejected")
    if row.value.get("prompt") is not None:
        prompt = prompt_from(row.value["prompt"])
        (first, answer), (second, other) = answered(prompt, chosen), answered(prompt, rejected)
        return _winner(row, (first, second), answer, other)
    better, worse = messages_from(chosen), messages_from(rejected)
    if better is not None and worse is not None:
        (first, answer), (second, other) = split_answer(better), split_answer(worse)
        return _winner(row, (first, second), answer, other)
    if better is not None or worse is not None:
        raise RowError("wrong type: 'chosen' and 'rejected' must both be texts or both be lists of messages")
    first, answer, other = _shared_start(text_from(chosen, "answer"), text_from(rejected, "answer"))
    return _winner(row, (first, first), answer, other)


def _shared_start(chosen: str, rejected: str) -> tuple[Conversation, str, str]:
    """Split two texts after the last whole word they share from the start: prompt, answer, answer."""
    _differing(chosen, rejected)
    length = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False)))
    end = max((space.start() for space in re.finditer(r"\s", chosen[:length])), default=0)
    if not chosen[:end].strip():
        raise RowError("no prompt: chosen and rejected share no first words; add the column 'prompt'")
    return user(chosen[:end].strip()), text_from(chosen[end:], "answer"), text_from(rejected[end:], "answer")


# One judgement a row


def _pairwise(row: Row) -> Judgement:
    """Parse `prompt, response_a, response_b, label` and, where given, `annotator, strength, model_a, model_b`."""
    prompt = prompt_from(_column(row, "prompt"))
    first, response_a = answered(prompt, _column(row, "response_a"))
    second, response_b = answered(prompt, _column(row, "response_b"))
    if first != second:
        raise RowError("prompts differ: the turns before the two answers are not the same")
    choice = _choice(_column(row, "label"))
    _differing(response_a, response_b)
    return Judgement(
        prompt=first,
        response_a=response_a,
        response_b=response_b,
        choice=choice,
        annotator=_name(row, "annotator"),
        line=row.line,
        digest=row.digest,
        model_a=_name(row, "model_a"),
        model_b=_name(row, "model_b"),
        strength=_strength(row, "strength"),
    )


def _spelling(label: object) -> str:
    return str(label).strip().lower()


def _choice(label: object) -> Choice:
    choice = _CHOICES.get(_spelling(label))
    if choice is None:
        raise RowError(f"unknown label: {str(label)[:40]!r}, known are a, 1, left; b, 2, right; tie, 0")
    return choice


def label_spelling(row: Row) -> str:
    """Return how a row of the pairwise format spells its label, in lower case; "" where it has none."""
    return _spelling(row.value.get("label", ""))


def check_spellings(spellings: Counter[str]) -> None:
    """Refuse a file of ten or more labels that are 0 or 1 and never 2: these count the answers from 0.

    Here 0 is a tie and 1 the first answer; to read on would turn every label of such a file into a wrong one.

    Raises:
        DataError: with the remedy.
    """
    known = {spelling.removesuffix(".0"): count for spelling, count in spellings.items() if spelling in _CHOICES}
    if known.keys() == {"0", "1"} and sum(known.values()) >= 10:
        raise DataError(
            f"the column label holds 0 ({known['0']} times) and 1 ({known['1']} times) but never 2, so it seems to "
            "count the answers from 0, while 0 means a tie here and 1 the first answer; write a, b and tie instead"
        )


# Optional columns


def _is_absent(value: object) -> bool:
    return value is None or (isinstance(value, str) and value.strip().lower() in _ABSENT)


def _name(row: Row, column: str) -> str | None:
    value = row.value.get(column)
    if _is_absent(value):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RowError(f"wrong type: {column!r} must be a text, found {json_type(value)}")
    return str(value).strip()


def _strength(row: Row, column: str) -> float | None:
    value = row.value.get(column)
    if _is_absent(value):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RowError(f"wrong type: {column!r} must be a number, found {json_type(value)}")
    try:
        strength = float(value)
    except (ValueError, OverflowError):
        strength = math.nan
    if not 0 <= strength < math.inf:
        raise RowError(f"wrong {column}: found {str(value)[:40]!r}, it must be a number of 0 or more")
    return strength


PARSERS: dict[LabelFormat, Callable[[Row], Judgement]] = {
    LabelFormat.HH: _hh,
    LabelFormat.TRL: _trl,
    LabelFormat.PAIRWISE: _pairwise,
}
"""Format -> parser, which raises RowError for a row it cannot use."""
