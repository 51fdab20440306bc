"""What an annotator has answered: a task's answer that holds, one that was taken back, the list, the count."""

import json
from typing import NamedTuple

from sqlalchemy import Connection, Select, and_, func, select

from rlhf.labels.collection.queue import Lease, State
from rlhf.labels.collection.verdicts import Answer, AnswerRow, Verdict, answer_of, verdict_of
from rlhf.labels.events import EventKind
from rlhf.labels.records import Choice
from rlhf.labels.tables import EVENT, LEASE, TASK

_DAY = 86_400.0
_EXCERPT = 120


class Past(NamedTuple):
    """One task of an annotator's history."""

    lease_id: int
    excerpt: str
    """The start of the last turn of its prompt."""
    state: State
    verdict: Verdict | None
    closed_at: float
    revision: int


class Progress(NamedTuple):
    """How far an annotator is."""

    done: int
    """Tasks answered or skipped, of every purpose."""
    today: int
    """Of these, in the last 24 hours."""


def current(connection: Connection, held: Lease) -> Answer | None:
    """Return the answer of a lease that holds now, so that a page can show it again; None: there is none."""
    return _answer_of(connection, held, select(LEASE.c.answer_id).where(LEASE.c.id == held.id))


def taken_back(connection: Connection, held: Lease) -> Answer | None:
    """Return what a lease without an answer was answered before it was undone, to be offered again; None: nothing."""
    same = (EVENT.c.lease_id == held.id, EVENT.c.row_part == 0, EVENT.c.kind != EventKind.UNDO)
    return _answer_of(connection, held, select(func.max(EVENT.c.id)).where(*same))


def history(connection: Connection, annotator_id: int, limit: int = 50) -> list[Past]:
    """Return an annotator's answered tasks, newest first."""
    of_lease = (LEASE.c.id, LEASE.c.state, LEASE.c.shown_left, LEASE.c.closed_at, LEASE.c.revision)
    of_answer = (EVENT.c.choice, EVENT.c.strength, EVENT.c.tie_kind)
    tables = LEASE.join(EVENT, EVENT.c.id == LEASE.c.answer_id).join(TASK, TASK.c.id == LEASE.c.task_id)
    answered = select(*of_lease, *of_answer, TASK.c.prompt).select_from(tables)
    mine = answered.where(LEASE.c.annotator_id == annotator_id, LEASE.c.answer_id.is_not(None))
    rows = connection.execute(mine.order_by(LEASE.c.answer_id.desc()).limit(limit))
    return [
        Past(
            lease_id=row.id,
            excerpt=" ".join(json.loads(row.prompt)[-1]["content"].split())[:_EXCERPT],
            state=State(row.state),
            verdict=verdict_of(Choice(row.shown_left), row.choice, row.strength, row.tie_kind),
            closed_at=row.closed_at,
            revision=row.revision,
        )
        for row in rows
    ]


def progress(connection: Connection, annotator_id: int, now: float) -> Progress:
    """Return how much an annotator has done."""
    answered = (LEASE.c.annotator_id == annotator_id, LEASE.c.answer_id.is_not(None))
    today = func.count().filter(LEASE.c.closed_at > now - _DAY)
    return Progress(*connection.execute(select(func.count(), today).where(*answered)).one())


def _answer_of(connection: Connection, held: Lease, event_id: Select[tuple[int]]) -> Answer | None:
    """Return the answer that an event belongs to; None: there is no such event."""
    first = EVENT.alias()
    whole = (EVENT.c.project_id == first.c.project_id, EVENT.c.row_digest == first.c.row_digest)
    columns = (*(EVENT.c[name] for name in AnswerRow._fields), EVENT.c.guideline_version)
    chosen = select(*columns).select_from(first.join(EVENT, and_(*whole)))
    rows = connection.execute(chosen.where(first.c.id == event_id.scalar_subquery()).order_by(EVENT.c.row_part)).all()
    if not rows:
        return None
    return answer_of(held.shown_left, [AnswerRow(*row[:-1]) for row in rows], int(rows[0].guideline_version))
