"""How this project opens SQLite and PostgreSQL with SQLAlchemy, and what it says when a database refuses.

A reader sees one snapshot. No connection outlives its transaction, so that a process may fork.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, func, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, IntegrityError, ProgrammingError
from sqlalchemy.pool import NullPool

from sft.core.errors import StorageError, UsageError
from sft.core.interruption import Whole

BUSY_TIMEOUT_S = 60.0
"""How long a transaction waits for another process's write, which may include the removal of an old folder."""


class Remedies(NamedTuple):
    """What a user can do, in the words of one kind of database."""

    readonly: str
    unreachable: str
    damaged: str
    otherwise: str

    def of(self, found: str) -> str:
        """Return what helps against a message of the database."""
        waited = f"{BUSY_TIMEOUT_S:.0f} s"
        locked = f"another process kept it locked for {waited}: wait for it or stop it, then run again"
        known = {
            "locked": locked,
            "lock timeout": locked,
            "full": "free space, then run the same command again",
            "readonly": self.readonly,
            "unable to open": self.unreachable,
            "malformed": self.damaged,
            "not a database": self.damaged,
            "no such": self.damaged,
        }
        return next((remedy for words, remedy in known.items() if words in found), self.otherwise)


@contextmanager
def database_errors(shown: object, remedies: Remedies) -> Iterator[None]:
    """Turn what a database refuses inside the block into a StorageError; `shown` names it."""
    try:
        yield
    except (IntegrityError, ProgrammingError):
        raise
    except DatabaseError as error:
        found = " ".join(str(error.orig).split())
        raise StorageError(f"{shown}: {found}; {remedies.of(found)}") from error


def check_schema(shown: object, found: object, known: int) -> None:
    """Raise StorageError unless the schema version that was found is the one that this program knows."""
    if found != known:
        raise StorageError(
            f"{shown} has schema version {found}, this program knows {known}; use the program version that made it"
        )


@dataclass(frozen=True)
class Transactions:
    """Snapshots and write transactions of one database: a file of SQLite, or PostgreSQL where `path` is None."""

    shown: str
    """Its name in errors, without a password."""
    path: Path | None
    engine: Engine
    remedies: Remedies
    writers_lock: int | None = None
    """Number of the lock on a PostgreSQL server that makes writers take turns, as they do on SQLite; None: they do
    not."""

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open one snapshot; writing in it is an error."""
        with Whole(), database_errors(self.shown, self.remedies), self.engine.connect() as connection:
            if self.path is not None:
                connection.exec_driver_sql("PRAGMA query_only=ON")
                connection.exec_driver_sql("BEGIN")
            else:
                connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a write transaction; commit at the end, roll back on any error.

        A writer on SQLite takes the write lock first (BEGIN IMMEDIATE), one on PostgreSQL takes `writers_lock`, so that
        what it reads is still true when it commits. A signal does not cut it: a connection that is cut where it opens
        stays open while the error is handled, and the end of a lease would wait for its lock.
        """
        with Whole(), database_errors(self.shown, self.remedies), self.engine.connect() as connection:
            if self.path is not None:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            elif self.writers_lock is not None:
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{BUSY_TIMEOUT_S:.0f}s'")
                connection.execute(select(func.pg_advisory_xact_lock(self.writers_lock)))
            yield connection
            connection.commit()


def sqlite_engine(path: Path, *pragmas: str) -> Engine:
    """Return an engine for a file that exists; each of the pragmas, `name=value`, holds for every connection."""
    return create_engine("sqlite://", creator=partial(_connect, path, pragmas), poolclass=NullPool)


def postgresql_url(url: str) -> URL | None:
    """Return a URL of PostgreSQL with the driver that we use; None: it is not one."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        return None
    if parsed.drivername not in ("postgresql", "postgresql+psycopg"):
        return None
    return parsed.set(drivername="postgresql+psycopg")


def postgresql_engine(url: URL) -> Engine:
    """Return an engine for a PostgreSQL server. Raises UsageError where its driver is not installed."""
    try:
        return create_engine(url, poolclass=NullPool, paramstyle="format")
    except ModuleNotFoundError as error:
        raise UsageError("PostgreSQL needs its driver: pip install 'psycopg[binary]'") from error


def _connect(path: Path, pragmas: tuple[str, ...]) -> sqlite3.Connection:
    address = f"file:{quote(str(path))}?mode=rw"  # never makes a file; read-only where the disk is
    # isolation_level=None: the driver begins no transactions of its own, so BEGIN IMMEDIATE is really the first.
    connection = sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    for pragma in ("synchronous=EXTRA", "foreign_keys=ON", *pragmas):
        connection.execute(f"PRAGMA {pragma}")
    return connection
