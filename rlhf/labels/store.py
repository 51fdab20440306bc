"""What is asked of the database of labels: projects, the labels that hold now, every event, exports, an erasure."""

import hashlib
import hmac
import json
import re
import secrets
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, or_, select, text

from rlhf.labels.accounts import remove_account
from rlhf.labels.database import Database
from rlhf.labels.records import Choice, Judgement, TieKind
from rlhf.labels.tables import (
    ANNOTATOR,
    EVENT,
    EXPORT,
    HOLDS_A_PLACE,
    IMPORT,
    LEASE,
    PROJECT,
    QUEUE,
    TASK,
)
from sft.core.errors import UsageError
from sft.core.text import Message

_PROJECT_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_FETCH = 1000
DATABASE_FILE = "labels.sqlite"
"""The database's file, beside the registry's folder."""

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


class Project(NamedTuple):
    """A project's row; `pseudonym_key` never leaves the database."""

    id: int
    name: str
    pseudonym_key: bytes


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


class Erased(NamedTuple):
    """What an erasure removed, and which exports (by digest) had used it."""

    pseudonym: str
    labels: int
    texts: int
    exports: list[str]
    also_in: list[str]
    """Other projects that know the same name; they keep it."""


class Exported(NamedTuple):
    """An export that was recorded."""

    digest: str
    format: str
    attribute: str | None
    event_ids: EventIds


def default_url(registry: Path) -> str:
    """Return the URL of `labels.sqlite` beside the registry's folder."""
    return f"sqlite:///{registry.absolute().parent / DATABASE_FILE}"


def now() -> str:
    """Return the time as the tables hold it: UTC, ISO 8601, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def pseudonym(key: bytes, name: str) -> str:
    """Return what stands for a person outside the database; the same name has another one in another project."""
    return f"annotator-{hmac.new(key, name.encode(), hashlib.sha256).hexdigest()[:16]}"


def check_project(name: str) -> None:
    """Raise UsageError unless `name` may be the name of a project."""
    if not _PROJECT_NAME.fullmatch(name):
        raise UsageError(
            f"project {name!r} is not allowed: use 1 to 64 of a-z, 0-9, '.', '_', '-', a letter or digit first"
        )


class LabelStore:
    """The labels of one database."""

    def __init__(self, url: str, *, create: bool = False) -> None:
        """Open the database at `url`, making its tables if `create`.

        Raises:
            UsageError: the URL is wrong, or there are no labels and `create` is false.
            StorageError: the database refuses.
        """
        self._database = Database(url)
        if create:
            self._database.create()
        self._database.check()

    @contextmanager
    def changing(self, name: str) -> Iterator[tuple[Connection, Project]]:
        """Open the one write transaction of a project, making the project where it is new."""
        check_project(name)
        with self._database.write() as connection:
            yield connection, _project(connection, name, locked=True) or _new_project(connection, name)

    @contextmanager
    def reading(self, name: str) -> Iterator["ProjectLabels"]:
        """Open one snapshot of a project. Raises UsageError that names the projects there are."""
        check_project(name)
        with self._database.read() as connection:
            yield ProjectLabels(connection, _project(connection, name) or self._no_such_project(connection, name))

    def erase(self, project: str, annotator: str) -> Erased:
        """Remove a person as `erasing` does."""
        with self.erasing(project, annotator) as erased:
            return erased

    @contextmanager
    def erasing(self, project: str, annotator: str) -> Iterator[Erased]:
        """Remove a person's name, labels and free texts from a project, in one transaction that ends with the block.

        What the block does is done before the person is gone for good: after a kill the same command carries on.
        A tombstone with the pseudonym stays, so that a later import of the same file does not bring them back.

        Raises:
            UsageError: the project does not know the person.
        """
        check_project(project)
        with self._database.write() as connection:
            found = _project(connection, project, locked=True) or self._no_such_project(connection, project)
            yield _erase(connection, found, annotator)

    def _no_such_project(self, connection: Connection, name: str) -> Project:
        names = ", ".join(connection.scalars(select(PROJECT.c.name).order_by(PROJECT.c.name))) or "none"
        raise UsageError(
            f"there is no project {name!r} in {self._database}; there are: {names}; name one with --project"
        )


class ProjectLabels:
    """What a project holds, inside one open snapshot."""

    def __init__(self, connection: Connection, project: Project) -> None:
        self.connection = connection
        self.project = project

    def labels(self, attribute: str | None = None, *, only: EventIds | None = None) -> Iterator[Event]:
        """Yield the labels that hold now for one attribute (None: the answers as a whole), task by task.

        Args:
            attribute: such as "helpful".
            only: exactly these events instead, whether they still hold or not.
        """
        kind, order = EVENT.c.kind == EventKind.LABEL, (EVENT.c.task_id, EVENT.c.id)
        if only is None:
            return self._events(kind, holds_now(attribute), order=order)
        return (event for event in self._events(kind, order=order) if holds(only, event.id))

    def events(self, *, only: EventIds | None = None) -> Iterator[Event]:
        """Yield all that happened, oldest first, or exactly the events `only`."""
        found = self._events(order=(EVENT.c.id,))
        return found if only is None else (event for event in found if holds(only, event.id))

    def judgements(self, attribute: str | None = None) -> list[Judgement]:
        """Return the labels that hold now, with the annotators' names."""
        mine = (EVENT.c.project_id == self.project.id, EVENT.c.kind == EventKind.LABEL, holds_now(attribute))
        rows = self.connection.execute(_joined(*mine).order_by(EVENT.c.id))
        return [_judgement(row, row.name) for row in rows]

    def attributes(self) -> dict[str | None, int]:
        """Return how many label events each attribute has; None stands for the answers as a whole."""
        statement = select(EVENT.c.attribute, func.count().label("labels")).group_by(EVENT.c.attribute)
        mine = (EVENT.c.project_id == self.project.id, EVENT.c.kind == EventKind.LABEL)
        rows = self.connection.execute(statement.where(*mine).order_by(func.count().desc()))
        return {row.attribute: row.labels for row in rows}

    def check_attribute(self, attribute: str | None) -> None:
        """Raise UsageError unless there are labels for an attribute; the message names those there are."""
        found = self.attributes()
        if found and attribute not in found:
            asked = "labels of the answers as a whole" if attribute is None else f"labels for {attribute!r}"
            known = ", ".join("none (leave --attribute out)" if name is None else name for name in found)
            raise UsageError(f"project {self.project.name!r} has no {asked}; give --attribute one that it has: {known}")

    def reports(self) -> list[dict[str, object]]:
        """Return the reports of the imports, oldest first."""
        chosen = select(IMPORT.c.report).where(IMPORT.c.project_id == self.project.id).order_by(IMPORT.c.id)
        return [json.loads(report) for report in self.connection.scalars(chosen)]

    def erased_before(self, annotator: str) -> Erased | None:
        """Return what there is to say of a person, known by the name they had, who was erased earlier; else None."""
        former = pseudonym(self.project.pseudonym_key, annotator)
        same = (ANNOTATOR.c.project_id == self.project.id, ANNOTATOR.c.pseudonym == former)
        found = select(ANNOTATOR.c.id).where(*same, ANNOTATOR.c.erased_at.is_not(None))
        if self.connection.scalar(found) is None:
            return None
        return Erased(former, 0, 0, [], _other_projects(self.connection, self.project, annotator))

    def export(self, digest: str) -> Exported:
        """Return the recorded export whose digest starts so. Raises UsageError unless there is exactly one."""
        matching = [found for found in _exports(self.connection, self.project) if found.digest.startswith(digest)]
        if len(matching) != 1 or not digest:
            raise UsageError(
                f"{len(matching)} exports of project {self.project.name!r} have a digest that starts with {digest!r}; "
                "give more of it, as the manifest's sha256 or the command `rlhf labels export` showed it"
            )
        return matching[0]

    def _events(self, *conditions: ColumnElement[bool], order: Sequence[ColumnElement[int]]) -> Iterator[Event]:
        statement = _joined(EVENT.c.project_id == self.project.id, *conditions).order_by(*order)
        streamed = self.connection.execution_options(yield_per=_FETCH).execute(statement)
        return (_event(row) for row in streamed)


def count_events(connection: Connection, project: Project, event_ids: EventIds) -> int:
    """Return how many of these events are still there."""
    mine = EVENT.c.project_id == project.id
    spans = (select(func.count()).where(mine, EVENT.c.id.between(first, last)) for first, last in event_ids)
    return sum(connection.scalar(span) or 0 for span in spans)


def record_export(connection: Connection, project: Project, made: Exported) -> None:
    """Remember which events an export used; the same export is remembered once."""
    same = (EXPORT.c.project_id == project.id, EXPORT.c.digest == made.digest)
    if connection.scalar(select(EXPORT.c.id).where(*same)) is None:
        values = {**made._asdict(), "event_ids": json.dumps(made.event_ids)}
        connection.execute(EXPORT.insert().values(**values, project_id=project.id, created_at=now()))


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


def search_again(connection: Connection, project_id: int, position: int | None = None) -> None:
    """Let everybody's search for a task begin at a position of the queue where a place is free, or at the first."""
    is_behind = ANNOTATOR.c.next_position > position if position is not None else ANNOTATOR.c.next_position.is_not(None)
    missed = (ANNOTATOR.c.project_id == project_id, is_behind)
    connection.execute(ANNOTATOR.update().where(*missed).values(next_position=position))


def count_ids(event_ids: EventIds) -> int:
    """Return how many ids the ranges hold."""
    return sum(last - first + 1 for first, last in event_ids)


# Statements


def _project(connection: Connection, name: str, *, locked: bool = False) -> Project | None:
    """Return a project; `locked`: once no other transaction changes it, and none will before the end of this one."""
    columns = (PROJECT.c.id, PROJECT.c.name, PROJECT.c.pseudonym_key)
    statement = select(*columns).where(PROJECT.c.name == name)
    row = connection.execute(statement.with_for_update() if locked else statement).one_or_none()
    return None if row is None else Project(*row)


def _new_project(connection: Connection, name: str) -> Project:
    """Return the project, made by this transaction or by one that was quicker."""
    columns = {"name": name, "key": secrets.token_bytes(32), "time": now()}
    unless_there = (
        "INSERT INTO project (name, pseudonym_key, created_at) VALUES (:name, :key, :time) ON CONFLICT DO NOTHING"
    )
    connection.execute(text(unless_there), columns)
    made = _project(connection, name, locked=True)
    assert made is not None
    return made


def _joined(*conditions: ColumnElement[bool]) -> Select[tuple[object, ...]]:
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


def _event(row: Row[tuple[object, ...]]) -> Event:
    kind = EventKind(row.kind)
    return Event(
        id=row.id,
        task_id=row.task_id,
        kind=kind,
        judgement=_judgement(row, row.pseudonym) if kind is EventKind.LABEL else None,
        pseudonym=row.pseudonym,
        seconds=row.seconds,
        reason=row.reason,
        guideline_version=row.guideline_version,
        source=row.source,
        licence=row.licence,
    )


def _judgement(row: Row[tuple[object, ...]], annotator: str | None) -> Judgement:
    """Return a label in the order in which it was shown; one without a known order has its winner first."""
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
    )
    first = row.shown_left or row.choice
    return found.swapped() if first == Choice.B else found


# Erasure and exports


def _exports(connection: Connection, project: Project) -> list[Exported]:
    columns = (EXPORT.c.digest, EXPORT.c.format, EXPORT.c.attribute, EXPORT.c.event_ids)
    rows = connection.execute(select(*columns).where(EXPORT.c.project_id == project.id).order_by(EXPORT.c.id))
    return [
        Exported(row.digest, row.format, row.attribute, [(first, last) for first, last in json.loads(row.event_ids)])
        for row in rows
    ]


def _erase(connection: Connection, project: Project, name: str) -> Erased:
    same = (ANNOTATOR.c.project_id == project.id, ANNOTATOR.c.name == name)
    person = connection.execute(select(ANNOTATOR.c.id, ANNOTATOR.c.pseudonym).where(*same)).one_or_none()
    also_in = _other_projects(connection, project, name)
    if person is None:
        where = f"; the projects {', '.join(also_in)} do" if also_in else ""
        raise UsageError(
            f"project {project.name!r} knows no annotator {name!r}{where}; give the name as the imported file has it"
        )
    mine = EVENT.c.annotator_id == person.id
    ids = list(connection.scalars(select(EVENT.c.id).where(mine).order_by(EVENT.c.id)))
    labels = connection.scalar(select(func.count()).where(mine, EVENT.c.kind == EventKind.LABEL)) or 0
    texts = connection.scalar(select(func.count()).where(mine, EVENT.c.reason.is_not(None))) or 0
    used_in = [found.digest for found in _exports(connection, project) if any(holds(found.event_ids, i) for i in ids)]
    connection.execute(EVENT.delete().where(mine))
    _return_places(connection, project, person.id)
    remove_account(connection, person.id)
    connection.execute(ANNOTATOR.update().where(ANNOTATOR.c.id == person.id).values(name=None, erased_at=now()))
    return Erased(person.pseudonym, labels, texts, used_in, also_in)


def _return_places(connection: Connection, project: Project, annotator_id: int) -> None:
    """Open the places of the queue that an annotator held to others, and forget what was given to them."""
    held = select(LEASE.c.task_id).where(LEASE.c.annotator_id == annotator_id, HOLDS_A_PLACE)
    connection.execute(QUEUE.update().where(QUEUE.c.task_id.in_(held)).values(taken=QUEUE.c.taken - 1))
    connection.execute(LEASE.delete().where(LEASE.c.annotator_id == annotator_id))
    search_again(connection, project.id)


def _other_projects(connection: Connection, project: Project, name: str) -> list[str]:
    joined = PROJECT.join(ANNOTATOR, ANNOTATOR.c.project_id == PROJECT.c.id)
    chosen = select(PROJECT.c.name).select_from(joined).where(ANNOTATOR.c.name == name, PROJECT.c.id != project.id)
    return list(connection.scalars(chosen.order_by(PROJECT.c.name)))
