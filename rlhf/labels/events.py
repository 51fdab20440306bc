"""Events of the database of labels: rows with their task and person, those that hold now, and ranges of their ids."""

import json
from bisect import bisect_right
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import ColumnElement, Row, Select, and_, or_, select

from rlhf.labels.records import Choice, Judgement, TieKind
from rlhf.labels.tables import ANNOTATOR, EVENT, IMPORT, TASK
from sft.core.text import Message

EventIds = list[tuple[int, int]]
"""Ranges of ids, (first, last) inclusive, ascending."""


class EventKind(StrEnum):
    """What an annotator did with a task; a flag says something about the task and leaves the label as it is."""

    LABEL = "label"
    GOLD = "gold"
    """A label of a task whose answer is known: it measures the annotator, and trains nothing."""
    PROBE = "probe"
    """A second label of one's own task, with the sides swapped: it measures the annotator, and trains nothing."""
    SKIP = "skip"
    FLAG = "flag"
    UNDO = "undo"


class Event(NamedTuple):
    """One event as it was stored, with its task and where it came from; `judgement` is None but for labels."""

    id: int
    task_id: int
    kind: EventKind
    judgement: Judgement | None
    pseudonym: str | None
    """Of the annotator; None: unknown."""
    seconds: float | None
    reason: str | None
    guideline_version: str | None
    source: str | None
    licence: str | None


def joined_events(*conditions: ColumnElement[bool]) -> Select[tuple[object, ...]]:
    """Return the query of events with their tasks, persons and imports, where the conditions hold."""
    tasks = EVENT.join(TASK, TASK.c.id == EVENT.c.task_id)
    tables = tasks.outerjoin(ANNOTATOR, ANNOTATOR.c.id == EVENT.c.annotator_id)
    tables = tables.outerjoin(IMPORT, IMPORT.c.id == EVENT.c.import_id)
    of_task = (TASK.c.prompt, TASK.c.response_a, TASK.c.response_b, TASK.c.model_a, TASK.c.model_b)
    of_person = (ANNOTATOR.c.name, ANNOTATOR.c.pseudonym)
    return select(EVENT, *of_task, *of_person, IMPORT.c.source, IMPORT.c.licence).select_from(tables).where(*conditions)


def holds_now(attribute: str | None) -> ColumnElement[bool]:
    """Hold for the labels that nothing later of the same annotator and task has replaced.

    Of a page's answers to one lease, the last one replaces all that the others said, also where it is an undo. What a
    file brought is replaced by a file's later label for the same attribute, skip or undo. Between file and page the
    later label for an attribute holds.
    """
    later = EVENT.alias()
    ends = later.c.kind.in_([EventKind.SKIP, EventKind.UNDO])
    edits = and_(later.c.kind == EventKind.LABEL, later.c.attribute.is_not_distinct_from(EVENT.c.attribute))
    of_file = and_(EVENT.c.lease_id.is_(None), later.c.lease_id.is_(None), or_(ends, edits))
    of_page = and_(later.c.lease_id == EVENT.c.lease_id, later.c.row_digest != EVENT.c.row_digest)
    same = (later.c.task_id == EVENT.c.task_id, later.c.annotator_id == EVENT.c.annotator_id, later.c.id > EVENT.c.id)
    of_either = and_(EVENT.c.kind == EventKind.LABEL, edits)
    replaced = select(later.c.id).where(*same, or_(of_file, of_page, of_either)).exists()
    return and_(EVENT.c.attribute.is_not_distinct_from(attribute), ~replaced)


def event_of(row: Row[tuple[object, ...]]) -> Event:
    """Return a row of `joined_events` as an event, its person by pseudonym."""
    kind = EventKind(row.kind)
    return Event(
        id=row.id,
        task_id=row.task_id,
        kind=kind,
        judgement=judgement_of(row, row.pseudonym) if kind is EventKind.LABEL else None,
        pseudonym=row.pseudonym,
        seconds=row.seconds,
        reason=row.reason,
        guideline_version=row.guideline_version,
        source=row.source,
        licence=row.licence,
    )


def judgement_of(
    row: Row[tuple[object, ...]], annotator: str | None, also_models: tuple[tuple[str, str], ...] = ()
) -> Judgement:
    """Return a label in the order in which it was shown; one without a known order has its winner first.

    `also_models` are those of the same answers, in the task's order.
    """
    found = Judgement(
        prompt=tuple(Message(turn["role"], turn["content"]) for turn in json.loads(row.prompt)),
        response_a=row.response_a,
        response_b=row.response_b,
        choice=Choice(row.choice),
        annotator=annotator,
        line=row.line or 0,
        digest=row.row_digest.hex(),
        model_a=row.model_a,
        model_b=row.model_b,
        strength=row.strength,
        order_known=row.shown_left is not None,
        tie_kind=None if row.tie_kind is None else TieKind(row.tie_kind),
        time=row.time,
        attribute=row.attribute,
        split=row.split,
        also_models=also_models,
    )
    first = row.shown_left or row.choice
    return found.swapped() if first == Choice.B else found


def ranges(ids: Iterable[int]) -> EventIds:
    """Return distinct ids as ranges."""
    found: EventIds = []
    for number in sorted(ids):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def holds(event_ids: EventIds, number: int) -> bool:
    """Say whether an id is in one of the ranges."""
    position = bisect_right(event_ids, number, key=lambda span: span[0])
    return position > 0 and number <= event_ids[position - 1][1]


def count_ids(event_ids: EventIds) -> int:
    """Return how many ids the ranges hold."""
    return sum(last - first + 1 for first, last in event_ids)
