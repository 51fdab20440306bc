"""What an annotator has answered: a task's answer that holds, one that was taken back, the list, the count."""

import json
from typing import NamedTuple

from sqlalchemy import Connection, Select, and_, false, func, select, true

from rlhf.labels.collection.queue import Lease, Purpose, State, qualification_is_over
from rlhf.labels.collection.verdicts import Answer, AnswerRow, Verdict, answer_of, verdict_of
from rlhf.labels.events import EventKind
from rlhf.labels.records import Choice
from rlhf.labels.store import Project
from rlhf.labels.tables import EVENT, LEASE, QUEUE, TASK

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
    stands: bool
    """Whether it can be changed no more: it is of a qualification that is over."""


class Progress(NamedTuple):
    """How far an annotator is.

    Tasks with a known answer and probes count as labels, and so do qualification tasks until the qualification is over:
    a count that stood still would tell which they are.
    """

    labels: int
    today: int
    """Of these, in the last 24 hours."""
    skipped: int
    stands: int
    """Answers of a qualification that is over, skips too; they are none of the above."""


def current(connection: Connection, held: Lease) -> Answer | None:
    """Return the answer of a lease that holds now, so that a page can show it again; None: there is none."""
    return _answer_of(connection, held, select(LEASE.c.answer_id).where(LEASE.c.id == held.id))


def taken_back(connection: Connection, held: Lease) -> Answer | None:
    """Return what a lease without an answer was answered before it was undone, to be offered again; None: nothing."""
    same = (EVENT.c.lease_id == held.id, EVENT.c.row_part == 0, EVENT.c.kind != EventKind.UNDO)
    return _answer_of(connection, held, select(func.max(EVENT.c.id)).where(*same))


def history(connection: Connection, project: Project, annotator_id: int, limit: int = 50) -> list[Past]:
    """Return an annotator's answered tasks, newest first."""
    of_lease = (LEASE.c.id, LEASE.c.state, LEASE.c.shown_left, LEASE.c.closed_at, LEASE.c.revision, LEASE.c.purpose)
    is_over = qualification_is_over(connection, project, annotator_id)
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
            stands=is_over and row.purpose == Purpose.QUALIFICATION,
        )
        for row in rows
    ]


def progress(connection: Connection, project: Project, annotator_id: int, now: float) -> Progress:
    """Return how much an annotator has done."""
    answered = (LEASE.c.annotator_id == annotator_id, LEASE.c.answer_id.is_not(None))
    is_skip = LEASE.c.state == State.SKIPPED
    is_over = qualification_is_over(connection, project, annotator_id)
    stands = and_(LEASE.c.purpose == Purpose.QUALIFICATION, true() if is_over else false())
    counted = select(
        func.count().filter(~stands, ~is_skip),
        func.count().filter(~stands, ~is_skip, LEASE.c.closed_at > now - _DAY),
        func.count().filter(~stands, is_skip),
        func.count().filter(stands),
    )
    return Progress(*connection.execute(counted.where(*answered)).one())


def tasks_in_all(connection: Connection, project: Project) -> int:
    """Return how many tasks there are to label, or with a known answer.

    How many of them are still open is not for annotators: it would stand still at a task with a known answer.
    """
    wanted = (QUEUE.c.project_id == project.id, QUEUE.c.purpose != Purpose.QUALIFICATION)
    return connection.scalar(select(func.count()).where(*wanted)) or 0


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
