"""The tables of the labels and their transactions: SQLAlchemy Core, SQLite by default, PostgreSQL by URL.

A reader sees one snapshot. A writer on SQLite takes the write lock first (BEGIN IMMEDIATE); on PostgreSQL it locks the
row of its project. No connection outlives its transaction, so that a process may fork. The journal is a rollback
journal with `synchronous=EXTRA`, for the reasons of the registry: what a writer sees is final, and a commit outlives a
power loss.

Labels are events that are only ever added. The label of an annotator for a task (and attribute) that holds now is the
last event; an earlier one is history.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    inspect,
    select,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from sft.core.database import Remedies, check_schema, database_errors, sqlite_engine
from sft.core.durable import make_folder, storage_errors
from sft.core.errors import UsageError

SCHEMA_VERSION = 1
_CACHE_KIB = 128 * 1024

TABLES = MetaData()
SCHEMA = Table("label_schema", TABLES, Column("version", Integer, nullable=False))
PROJECT = Table(
    "project",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("pseudonym_key", LargeBinary(32), nullable=False),
    Column("created_at", String(32), nullable=False),
)
TASK = Table(
    "task",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("project_id", ForeignKey("project.id"), nullable=False),
    Column("task_key", LargeBinary(32), nullable=False),
    Column("prompt_key", LargeBinary(32), nullable=False),
    Column("prompt", Text, nullable=False),
    Column("response_a", Text, nullable=False),
    Column("response_b", Text, nullable=False),
    Column("model_a", Text),
    Column("model_b", Text),
    UniqueConstraint("project_id", "task_key"),
    sqlite_autoincrement=True,
)
"""A prompt (JSON messages) with two answers, in an order of their own: `a` sorts before `b`, whoever saw which left."""
ANNOTATOR = Table(
    "annotator",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("project_id", ForeignKey("project.id"), nullable=False),
    Column("name", Text),
    Column("pseudonym", String(32), nullable=False),
    Column("erased_at", String(32)),
    UniqueConstraint("project_id", "pseudonym"),
    sqlite_autoincrement=True,
)
"""A person of one project. An erased one keeps the pseudonym alone, so that no later import brings the labels back."""
IMPORT = Table(
    "import_report",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("project_id", ForeignKey("project.id"), nullable=False),
    Column("file", Text, nullable=False),
    Column("format", String(64), nullable=False),
    Column("source", Text),
    Column("licence", Text),
    Column("created_at", String(32), nullable=False),
    Column("report", Text, nullable=False),
    sqlite_autoincrement=True,
)
QUARANTINE = Table(
    "quarantined_row",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("import_id", ForeignKey("import_report.id"), nullable=False),
    Column("line", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("digest", LargeBinary(32)),
    Index("quarantined_row_digest", "import_id", "digest"),
)
"""Where a row stood and why it was not used; nothing of what it said."""
EVENT = Table(
    "label_event",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("project_id", ForeignKey("project.id"), nullable=False),
    Column("task_id", ForeignKey("task.id"), nullable=False),
    Column("annotator_id", ForeignKey("annotator.id")),
    Column("import_id", ForeignKey("import_report.id")),
    Column("kind", String(8), nullable=False),
    Column("choice", String(8)),
    Column("tie_kind", String(16)),
    Column("strength", Float),
    Column("attribute", Text),
    Column("shown_left", String(1)),
    Column("seconds", Float),
    Column("reason", Text),
    Column("guideline_version", String(64)),
    Column("time", Float),
    Column("split", Text),
    Column("line", Integer),
    Column("row_digest", LargeBinary(32), nullable=False),
    Column("row_part", Integer, nullable=False),
    UniqueConstraint("project_id", "row_digest", "row_part"),
    Index("label_event_task_annotator", "task_id", "annotator_id"),
    sqlite_autoincrement=True,
)
"""`kind` is label, skip, flag or undo; `choice` (a, b, tie) and `shown_left` (a, b) speak of the task's own order.

`row_digest` is the sha256 of the raw row, or of a page's request, and `row_part` counts the judgements of one row: what
is sent twice is stored once. Ids are never used again, also not after an erasure: an export names its events by them.
"""
EXPORT = Table(
    "label_export",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("project_id", ForeignKey("project.id"), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("format", String(16), nullable=False),
    Column("attribute", Text),
    Column("created_at", String(32), nullable=False),
    Column("event_ids", Text, nullable=False),
    UniqueConstraint("project_id", "digest"),
)
"""`event_ids` are ranges, JSON `[[first, last], ...]`: they outlive the events of a person who was erased."""

_REMEDIES = Remedies(
    readonly="make the file and its folder writable for you, or name another one with --database",
    unreachable="check that its folder exists and that you may read and write there",
    damaged="the database is damaged: restore it from a backup, or move it away and import the labels again",
    otherwise="check the disk or the server",
)


class Database:
    """One database of labels. Raises StorageError where it is locked, damaged, full or cannot be reached."""

    def __init__(self, url: str) -> None:
        """Open nothing yet: every transaction has its own connection.

        Args:
            url: `sqlite:///FILE` or `postgresql://USER@HOST/NAME`.

        Raises:
            UsageError: the URL is not one of these, or the driver of PostgreSQL is not installed.
        """
        parsed = _parsed(url)
        self._path = Path(parsed.database or "") if parsed.drivername == "sqlite" else None
        self._shown = str(self._path) if self._path else parsed.render_as_string(hide_password=True)
        self._engine = _sqlite(self._path) if self._path else _postgresql(parsed)

    def __str__(self) -> str:
        """Return the file, or the URL without its password."""
        return self._shown

    def create(self) -> None:
        """Make the tables, all or none, where there are none yet; a new file is for its owner alone."""
        if self._path is not None and not self._path.exists():
            make_folder(self._path.absolute().parent)
            with storage_errors(self._path):
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        if self._is_empty():
            with self.write() as connection:
                TABLES.create_all(connection)
                if connection.scalar(select(SCHEMA.c.version)) is None:
                    connection.execute(SCHEMA.insert().values(version=SCHEMA_VERSION))

    def check(self) -> None:
        """Raise UsageError where there are no labels, StorageError where a newer version of this program made them."""
        if (self._path is not None and not self._path.is_file()) or self._is_empty():
            raise UsageError(
                f"there are no labels in {self}: import some (rlhf labels import FILE), or name their database with "
                "--database URL"
            )
        with self.read() as connection:
            found = connection.scalar(select(SCHEMA.c.version))
        check_schema(self, found, SCHEMA_VERSION)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open one snapshot."""
        with database_errors(self._shown, _REMEDIES), self._engine.connect() as connection:
            if self._path is not None:
                connection.exec_driver_sql("BEGIN")
            else:
                connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a write transaction; commit at the end, roll back on any error."""
        with database_errors(self._shown, _REMEDIES), self._engine.connect() as connection:
            if self._path is not None:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            connection.commit()

    def _is_empty(self) -> bool:
        with self.read() as connection:
            return not inspect(connection).has_table(SCHEMA.name)


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = URL.create("")
    if parsed.drivername == "sqlite" and parsed.database and not parsed.query:
        return parsed
    if parsed.drivername in ("postgresql", "postgresql+psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    shown = parsed.render_as_string(hide_password=True) if parsed.drivername else "what was given"
    raise UsageError(
        f"{shown} is not the URL of a database of labels; write sqlite:///FILE or postgresql://USER@HOST/NAME"
    )


def _sqlite(path: Path) -> Engine:
    # secure_delete: an erased person's texts leave the file, not only the tables
    return sqlite_engine(path, "secure_delete=ON", f"cache_size=-{_CACHE_KIB}")


def _postgresql(url: URL) -> Engine:
    try:
        return create_engine(url, poolclass=NullPool, paramstyle="format")
    except ModuleNotFoundError as error:
        raise UsageError("PostgreSQL needs its driver: pip install 'psycopg[binary]'") from error
