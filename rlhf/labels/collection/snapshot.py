"""What an owner watches, read from one snapshot: the answers that hold now, the people, the queue.

Nobody who was erased is in it, nor anything of theirs that a table may still hold.
"""

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, Row, Select, func, select

from rlhf.labels.accounts.users import DISABLED
from rlhf.labels.collection.queue import Purpose, State
from rlhf.labels.collection.study import Study, study
from rlhf.labels.events import EventKind, holds_now
from rlhf.labels.records import Choice, Judgement
from rlhf.labels.store import Project, ProjectLabels
from rlhf.labels.tables import ACCOUNT, ANNOTATOR, EVENT, GUIDELINES, LEASE, QUEUE, TASK


class Answered(NamedTuple):
    """An answer that holds now: a label, gold, probe, skip or flag, of a page or of a file."""

    id: int
    """Of its event; later answers have higher ones."""
    kind: EventKind
    purpose: Purpose | None
    """Why the task was given; None: a file brought the answer."""
    task_id: int
    annotator_id: int | None
    """None: unknown."""
    choice: Choice | None
    """In the task's own order; None: a skip or a flag."""
    known: Choice | None
    """The right choice, of a gold or qualification task."""
    reason: str
    guideline_version: str
    seconds: float | None
    """From opening the task to its first answer, later edits left out; None: not measured."""
    time: float | None
    """Seconds since 1970, of the last edit."""
    characters: int
    """Of both answers that were to be read."""


class Person(NamedTuple):
    """An annotator who was not erased."""

    id: int
    name: str
    pseudonym: str
    has_account: bool
    """False: known from a file alone."""
    paused_reason: str | None
    """None: not paused."""
    tests_left: int
    """Qualification tasks that were not given to them yet."""
    is_disabled: bool
    """Cannot log in until they get a new password."""


class Wanted(NamedTuple):
    """A task that is to be labelled, and by how many."""

    task_id: int
    overlap: int


class Version(NamedTuple):
    """A version of the guidelines."""

    version: int
    created_at: str
    """UTC, ISO 8601."""
    text: str


class TaskText(NamedTuple):
    """What a task says."""

    prompt: str
    """Its last turn."""
    response_a: str
    response_b: str


class Mark(NamedTuple):
    """The state of a project's events and people: equal marks, equal numbers, as events are only added or erased."""

    newest: int
    """Id of the newest event."""
    events: int
    people: tuple[Person, ...]


class Snapshot(NamedTuple):
    """All that the numbers of the dashboard are made of."""

    project: str
    study: Study
    time: float
    """When it was read, in seconds since 1970."""
    mark: Mark
    answers: tuple[Answered, ...]
    """By id."""
    judgements: tuple[Judgement, ...]
    """Those of `labels`, in the same order, with the annotators' names."""
    queue: tuple[Wanted, ...]
    in_hands: int
    """Tasks that somebody has open now."""

    @property
    def people(self) -> tuple[Person, ...]:
        """Everybody, by name."""
        return self.mark.people

    @property
    def labels(self) -> list[Answered]:
        """The answers that are labels."""
        return [answer for answer in self.answers if answer.kind is EventKind.LABEL]


def mark(connection: Connection, project: Project) -> Mark:
    """Return the state of a project."""
    counted = select(func.coalesce(func.max(EVENT.c.id), 0), func.count())
    newest, events = connection.execute(counted.where(EVENT.c.project_id == project.id)).one()
    return Mark(newest, events, people(connection, project))


def snapshot(connection: Connection, project: Project, now: float, kept: Snapshot | None = None) -> Snapshot:
    """Read everything at once. Raises UsageError where the project has no tasks to label.

    Args:
        connection: inside a snapshot.
        project: to look at.
        now: seconds since 1970; tasks whose time is over by then are in nobody's hands.
        kept: an earlier one; where its mark still holds, its answers are not read again.
    """
    state = mark(connection, project)
    if kept is not None and kept.mark == state:
        answers, judgements = kept.answers, kept.judgements
    else:
        answers, judgements = _answers(connection, project)
    wanted = (QUEUE.c.project_id == project.id, QUEUE.c.purpose == Purpose.LABEL)
    queue = select(QUEUE.c.task_id, QUEUE.c.overlap).where(*wanted).order_by(QUEUE.c.position)
    return Snapshot(
        project=project.name,
        study=study(connection, project),
        time=now,
        mark=state,
        answers=answers,
        judgements=judgements,
        queue=tuple(Wanted(*row) for row in connection.execute(queue)),
        in_hands=_in_hands(connection, project, now),
    )


def people(connection: Connection, project: Project) -> tuple[Person, ...]:
    """Return the annotators who were not erased, by name."""
    given = _tests_given(connection, project)
    tests = connection.scalar(
        select(func.count()).where(QUEUE.c.project_id == project.id, QUEUE.c.purpose == Purpose.QUALIFICATION)
    )
    columns = (ANNOTATOR.c.id, ANNOTATOR.c.name, ANNOTATOR.c.pseudonym, ACCOUNT.c.id.label("account_id"))
    rows = connection.execute(
        select(*columns, ACCOUNT.c.paused_at, ACCOUNT.c.paused_reason, ACCOUNT.c.password_hash)
        .select_from(ANNOTATOR.outerjoin(ACCOUNT, ACCOUNT.c.annotator_id == ANNOTATOR.c.id))
        .where(ANNOTATOR.c.project_id == project.id, ANNOTATOR.c.erased_at.is_(None))
        .order_by(ANNOTATOR.c.name, ANNOTATOR.c.id)
    )
    return tuple(
        Person(
            id=row.id,
            name=row.name,
            pseudonym=row.pseudonym,
            has_account=row.account_id is not None,
            paused_reason=None if row.paused_at is None else row.paused_reason or "no reason given",
            tests_left=(tests or 0) - given.get(row.id, 0),
            is_disabled=row.password_hash == DISABLED,
        )
        for row in rows
    )


def versions(connection: Connection, project: Project) -> list[Version]:
    """Return the versions of the guidelines, the newest first."""
    columns = (GUIDELINES.c.version, GUIDELINES.c.created_at, GUIDELINES.c.text)
    mine = select(*columns).where(GUIDELINES.c.project_id == project.id).order_by(GUIDELINES.c.version.desc())
    return [Version(*row) for row in connection.execute(mine)]


def texts(connection: Connection, project: Project, task_ids: Iterable[int]) -> dict[int, TaskText]:
    """Return the texts of a project's tasks, by id."""
    columns = (TASK.c.id, TASK.c.prompt, TASK.c.response_a, TASK.c.response_b)
    mine = select(*columns).where(TASK.c.project_id == project.id, TASK.c.id.in_(set(task_ids)))
    return {
        row.id: TaskText(json.loads(row.prompt)[-1]["content"], row.response_a, row.response_b)
        for row in connection.execute(mine)
    }


def _answers(connection: Connection, project: Project) -> tuple[tuple[Answered, ...], tuple[Judgement, ...]]:
    rows = _rows(connection, project)
    judged = zip(
        (row for row in rows if row.kind == EventKind.LABEL),
        ProjectLabels(connection, project).judgements(),
        strict=True,
    )
    kept = tuple(judgement for row, judgement in judged if row.erased_at is None)
    return tuple(_answered(row) for row in rows if row.erased_at is None), kept


def _rows(connection: Connection, project: Project) -> Sequence[Row[tuple[object, ...]]]:
    first = EVENT.alias()
    of_lease = (first.c.task_id == EVENT.c.task_id, first.c.annotator_id == EVENT.c.annotator_id)
    seconds = select(func.max(first.c.seconds)).where(*of_lease, first.c.lease_id == EVENT.c.lease_id)
    of_event = ("id", "kind", "task_id", "annotator_id", "choice", "reason", "guideline_version", "time")
    columns = [*(EVENT.c[name] for name in of_event), LEASE.c.purpose, QUEUE.c.gold_choice, ANNOTATOR.c.erased_at]
    characters = func.length(TASK.c.response_a) + func.length(TASK.c.response_b)
    tables = EVENT.join(TASK, TASK.c.id == EVENT.c.task_id).outerjoin(LEASE, LEASE.c.id == EVENT.c.lease_id)
    tables = tables.outerjoin(QUEUE, QUEUE.c.task_id == EVENT.c.task_id)
    tables = tables.outerjoin(ANNOTATOR, ANNOTATOR.c.id == EVENT.c.annotator_id)
    mine = (EVENT.c.project_id == project.id, EVENT.c.kind != EventKind.UNDO, holds_now(None))
    statement: Select[tuple[object, ...]] = (
        select(*columns, characters.label("characters"), seconds.scalar_subquery().label("seconds"))
        .select_from(tables)
        .where(*mine)
        .order_by(EVENT.c.id)
    )
    return connection.execute(statement).all()


def _answered(row: Row[tuple[object, ...]]) -> Answered:
    return Answered(
        id=row.id,
        kind=EventKind(row.kind),
        purpose=None if row.purpose is None else Purpose(row.purpose),
        task_id=row.task_id,
        annotator_id=row.annotator_id,
        choice=None if row.choice is None else Choice(row.choice),
        known=None if row.gold_choice is None else Choice(row.gold_choice),
        reason=row.reason or "",
        guideline_version=row.guideline_version or "",
        seconds=row.seconds,
        time=row.time,
        characters=row.characters,
    )


def _tests_given(connection: Connection, project: Project) -> dict[int, int]:
    mine = (LEASE.c.project_id == project.id, LEASE.c.purpose == Purpose.QUALIFICATION, LEASE.c.state != State.EXPIRED)
    given = select(LEASE.c.annotator_id, func.count()).where(*mine).group_by(LEASE.c.annotator_id)
    return dict(connection.execute(given).tuples().all())


def _in_hands(connection: Connection, project: Project, now: float) -> int:
    held = (LEASE.c.project_id == project.id, LEASE.c.state == State.OPEN, LEASE.c.expires_at >= now)
    mine = LEASE.join(ANNOTATOR, ANNOTATOR.c.id == LEASE.c.annotator_id)
    counted = select(func.count()).select_from(mine).where(*held, ANNOTATOR.c.erased_at.is_(None))
    return connection.scalar(counted) or 0
