"""What an annotator can say of a task, and the events that stand for it. Pure: sides of the page in, rows out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from rlhf.labels.collection.queue import Lease, Purpose
from rlhf.labels.events import EventKind
from rlhf.labels.records import Choice, TieKind


class Side(StrEnum):
    """Which answer is better, as it stood on the page."""

    LEFT = "left"
    EQUAL = "equal"
    RIGHT = "right"


class Verdict(StrEnum):
    """What the page offers for the answers as a whole."""

    LEFT_CLEARLY = "left_clearly"
    LEFT_SLIGHTLY = "left_slightly"
    TIE = "tie"
    BOTH_BAD = "both_bad"
    RIGHT_SLIGHTLY = "right_slightly"
    RIGHT_CLEARLY = "right_clearly"


CLEARLY, SLIGHTLY = 2.0, 1.0
"""Strength of a label."""
_VERDICTS: dict[Verdict, tuple[Side, float | None, TieKind | None]] = {
    Verdict.LEFT_CLEARLY: (Side.LEFT, CLEARLY, None),
    Verdict.LEFT_SLIGHTLY: (Side.LEFT, SLIGHTLY, None),
    Verdict.TIE: (Side.EQUAL, None, None),
    Verdict.BOTH_BAD: (Side.EQUAL, None, TieKind.BOTH_BAD),
    Verdict.RIGHT_SLIGHTLY: (Side.RIGHT, SLIGHTLY, None),
    Verdict.RIGHT_CLEARLY: (Side.RIGHT, CLEARLY, None),
}
_VERDICT_OF = {meaning: verdict for verdict, meaning in _VERDICTS.items()}


@dataclass(frozen=True)
class Answer:
    """What an annotator sends for one task: a verdict, or the reason why there is none."""

    verdict: Verdict | None
    """None: skipped; `reason` says why."""
    attributes: Mapping[str, Side] = field(default_factory=dict)
    """For those of the study's attributes that were answered; a skip has none."""
    reason: str = ""
    """Free text."""
    flag: str = ""
    """What is wrong with the task (unsafe, broken); empty: nothing."""
    guideline_version: int = 0
    """Of the guidelines that the page showed."""


class AnswerRow(NamedTuple):
    """The columns of an event that its annotator decides."""

    kind: str
    choice: str | None = None
    tie_kind: str | None = None
    strength: float | None = None
    attribute: str | None = None
    reason: str | None = None


_KINDS = {
    Purpose.LABEL: EventKind.LABEL,
    Purpose.GOLD: EventKind.GOLD,
    Purpose.QUALIFICATION: EventKind.GOLD,
    Purpose.PROBE: EventKind.PROBE,
}


def rows_of(held: Lease, answer: Answer) -> Iterator[AnswerRow]:
    """Yield the events of an answer: the verdict (or skip) first, then attributes, then the flag."""
    reason = answer.reason.strip() or None
    if answer.verdict is None:
        yield AnswerRow(EventKind.SKIP.value, reason=reason)
    else:
        kind = _KINDS[held.purpose].value
        side, strength, tie_kind = _VERDICTS[answer.verdict]
        choice = _choice(held, side).value
        yield AnswerRow(kind, choice, None if tie_kind is None else tie_kind.value, strength, reason=reason)
        for name, side in sorted(answer.attributes.items()):
            yield AnswerRow(kind, _choice(held, side).value, attribute=name)
    if answer.flag.strip():
        yield AnswerRow(EventKind.FLAG.value, reason=answer.flag.strip())


def _choice(held: Lease, side: Side) -> Choice:
    if side is Side.EQUAL:
        return Choice.TIE
    return held.shown_left if side is Side.LEFT else held.shown_left.swapped()


def _side(shown_left: Choice, choice: str) -> Side:
    if choice == Choice.TIE:
        return Side.EQUAL
    return Side.LEFT if choice == shown_left else Side.RIGHT


def verdict_of(shown_left: Choice, choice: str | None, strength: float | None, tie_kind: str | None) -> Verdict | None:
    """Return what was chosen as a whole; None: skipped."""
    if choice is None:
        return None
    return _VERDICT_OF[_side(shown_left, choice), strength, None if tie_kind is None else TieKind(tie_kind)]


def answer_of(shown_left: Choice, rows: list[AnswerRow], guideline_version: int) -> Answer:
    """Return the answer that its rows stand for."""
    first = rows[0]
    verdict = verdict_of(shown_left, first.choice, first.strength, first.tie_kind)
    attributes = {row.attribute: _side(shown_left, row.choice) for row in rows if row.attribute and row.choice}
    flags = [row.reason or "" for row in rows if row.kind == EventKind.FLAG]
    return Answer(verdict, attributes, first.reason or "", "".join(flags), guideline_version)
