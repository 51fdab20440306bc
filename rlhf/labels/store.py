"""What is asked of the database of labels: projects, the labels that hold now, every event, exports."""

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, func, select, text

from rlhf.labels.database import Database
from rlhf.labels.events import Event, EventIds, EventKind, event_of, holds, holds_now, joined_events, judgement_of
from rlhf.labels.origins import Origins, Texts, models_of_same_texts, origins
from rlhf.labels.records import Judgement
from rlhf.labels.tables import (
    ANNOTATOR,
    EVENT,
    EXPORT,
    IMPORT,
    PROJECT,
)
from sft.core.errors import UsageError

_PROJECT_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_FETCH = 1000
DATABASE_FILE = "labels.sqlite"
"""The database's file, beside the registry's folder."""


class Project(NamedTuple):
    """A project's row; `pseudonym_key` never leaves the database."""

    id: int
    name: str
    pseudonym_key: bytes


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
    def changing(self, name: str, *, create: bool = True) -> Iterator[tuple[Connection, Project]]:
        """Open the one write transaction of a project, making the project where it is new and `create`.

        Raises UsageError that names the projects there are: this one is not, and may not be made.
        """
        check_project(name)
        with self._database.write() as connection:
            found = _project(connection, name, locked=True)
            if found is None:
                found = _new_project(connection, name) if create else self._no_such_project(connection, name)
            yield connection, found

    @contextmanager
    def reading(self, name: str) -> Iterator["ProjectLabels"]:
        """Open one snapshot of a project. Raises UsageError that names the projects there are."""
        check_project(name)
        with self._database.read() as connection:
            yield ProjectLabels(connection, _project(connection, name) or self._no_such_project(connection, name))

    def projects(self) -> list[Project]:
        """Return all projects, by name."""
        columns = (PROJECT.c.id, PROJECT.c.name, PROJECT.c.pseudonym_key)
        with self._database.read() as connection:
            return [Project(*row) for row in connection.execute(select(*columns).order_by(PROJECT.c.name))]

    def _no_such_project(self, connection: Connection, name: str) -> Project:
        names = ", ".join(connection.scalars(select(PROJECT.c.name).order_by(PROJECT.c.name))) or "none"
        raise UsageError(
            f"there is no project {name!r} in {self._database}; there are: {names}; name one with --project, or make "
            f"it: rlhf labels create {name} --from FILE (tasks for people), rlhf labels import FILE --project {name}"
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
        """Return the labels that hold now, with the annotators' names and all models that wrote the answers."""
        mine = (EVENT.c.project_id == self.project.id, EVENT.c.kind == EventKind.LABEL, holds_now(attribute))
        rows = self.connection.execute(joined_events(*mine).order_by(EVENT.c.id))
        also = models_of_same_texts(self.connection, self.project.id)
        return [judgement_of(row, row.name, also.get(Texts.of(row), ())) for row in rows]

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

    def export(self, digest: str) -> Exported:
        """Return the recorded export whose digest starts so. Raises UsageError unless there is exactly one."""
        matching = [
            found for found in recorded_exports(self.connection, self.project) if found.digest.startswith(digest)
        ]
        if len(matching) != 1 or not digest:
            raise UsageError(
                f"{len(matching)} exports of project {self.project.name!r} have a digest that starts with {digest!r}; "
                "give more of it, as the manifest's sha256 or the command `rlhf labels export` showed it"
            )
        return matching[0]

    def _events(self, *conditions: ColumnElement[bool], order: Sequence[ColumnElement[int]]) -> Iterator[Event]:
        statement = joined_events(EVENT.c.project_id == self.project.id, *conditions).order_by(*order)
        streamed = self.connection.execution_options(yield_per=_FETCH).execute(statement)
        said = origins(self.connection, self.project.id)
        return (_with_origin(event_of(row), row, said) for row in streamed)


def _with_origin(event: Event, row: Row[tuple[object, ...]], said: Origins) -> Event:
    """Return an event with the source and licence of its texts, where no import says them of the label."""
    return event if row.import_id is not None else event._replace(**said.of(event.task_id)._asdict())


def record_export(connection: Connection, project: Project, made: Exported) -> None:
    """Remember which events an export used; the same export is remembered once."""
    same = (EXPORT.c.project_id == project.id, EXPORT.c.digest == made.digest)
    if connection.scalar(select(EXPORT.c.id).where(*same)) is None:
        values = {**made._asdict(), "event_ids": json.dumps(made.event_ids)}
        connection.execute(EXPORT.insert().values(**values, project_id=project.id, created_at=now()))


def search_again(connection: Connection, project_id: int, position: int | None = None) -> None:
    """Let everybody's search for a task begin at a position of the queue where a place is free, or at the first."""
    is_behind = ANNOTATOR.c.next_position > position if position is not None else ANNOTATOR.c.next_position.is_not(None)
    missed = (ANNOTATOR.c.project_id == project_id, is_behind)
    connection.execute(ANNOTATOR.update().where(*missed).values(next_position=position))


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


def recorded_exports(connection: Connection, project: Project) -> list[Exported]:
    """Return all exports of a project, oldest first."""
    columns = (EXPORT.c.digest, EXPORT.c.format, EXPORT.c.attribute, EXPORT.c.event_ids)
    rows = connection.execute(select(*columns).where(EXPORT.c.project_id == project.id).order_by(EXPORT.c.id))
    return [
        Exported(row.digest, row.format, row.attribute, [(first, last) for first, last in json.loads(row.event_ids)])
        for row in rows
    ]
