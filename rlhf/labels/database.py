"""Transactions on the database of labels: SQLite by default, PostgreSQL by URL.

A reader sees one snapshot. A writer on SQLite takes the write lock first (BEGIN IMMEDIATE); on PostgreSQL a writer of a
project locks its row (`rlhf.labels.store`). No connection outlives its transaction, so that a process may fork. The
journal is a rollback journal with `synchronous=EXTRA`, for the reasons of the registry: what a writer sees is final,
and a commit outlives a power loss.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, func, inspect, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from rlhf.labels.tables import SCHEMA, TABLES
from sft.core.database import Remedies, check_schema, database_errors, sqlite_engine
from sft.core.durable import make_folder, storage_errors
from sft.core.errors import StorageError, UsageError

SCHEMA_VERSION = 2
_CACHE_KIB = 128 * 1024
_RENEWING = 0x726C6866
"""What one process at a time locks on a server to make or upgrade the tables."""

_REMEDIES = Remedies(
    readonly="make the file and its folder writable for you, or name another one with --database",
    unreachable="check that its folder exists and that you may read and write there",
    damaged="the database is damaged: restore it from a backup, or move it away and import the labels again",
    otherwise="check the disk",
)
_SERVER_REMEDIES = _REMEDIES._replace(
    otherwise="check user, host, port and database name of the URL, the password (PGPASSWORD), and that the server runs"
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
        self._shown = str(self._path) if self._path else _written(parsed)
        self._engine = _sqlite(self._path) if self._path else _postgresql(parsed)
        self._remedies = _REMEDIES if self._path else _SERVER_REMEDIES

    def __str__(self) -> str:
        """Return the file, or the URL without its password."""
        return self._shown

    def create(self) -> None:
        """Make the tables, or bring older ones up to date, all or nothing; a new file is for its owner alone."""
        if self._path is not None and not self._path.exists():
            make_folder(self._path.absolute().parent)
            with storage_errors(self._path):
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        found = self._version()
        if found == 0:
            self._check_own()
        if found < SCHEMA_VERSION:
            self._renew()

    def _check_own(self) -> None:
        """Raise UsageError where the tables are not ours: a file of another program stays as it is."""
        with self.read() as connection:
            others = sorted(inspect(connection).get_table_names())
        if others and SCHEMA.name not in others:  # ours, where another process has just made them
            raise UsageError(
                f"{self} is the database of another program (it has the table {others[0]!r}); give one of your own "
                "with --database, such as sqlite:///labels.sqlite"
            )

    def upgrade(self) -> int:
        """Bring older tables up to date, all or nothing; return the version that they had. Raises as `check`."""
        found = self._version()
        if 0 < found < SCHEMA_VERSION:
            self._renew()
        self.check()
        return found

    def check(self) -> None:
        """Raise UsageError where there are no labels, StorageError where another version of this program made them."""
        found = self._version()
        if not found:
            raise UsageError(
                f"there are no labels in {self}: import some (rlhf labels import FILE), make tasks for people (rlhf "
                "labels create NAME --from FILE), or name their database with --database URL"
            )
        if found < SCHEMA_VERSION:
            raise StorageError(
                f"{self} has schema version {found}, this program needs {SCHEMA_VERSION}: bring it up to date with "
                "`rlhf labels upgrade` (and --database URL, where it is not beside the registry); no label is lost"
            )
        check_schema(self, found, SCHEMA_VERSION)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open one snapshot."""
        with database_errors(self._shown, self._remedies), self._engine.connect() as connection:
            if self._path is not None:
                connection.exec_driver_sql("BEGIN")
            else:
                connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a write transaction; commit at the end, roll back on any error."""
        with database_errors(self._shown, self._remedies), self._engine.connect() as connection:
            if self._path is not None:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            connection.commit()

    def _version(self) -> int:
        """Return the version of the tables; 0: there are none."""
        if self._path is not None and not self._path.is_file():
            return 0
        with self.read() as connection:
            return _version_in(connection)

    def _renew(self) -> None:
        with self.write() as connection:
            if self._path is None:
                connection.execute(select(func.pg_advisory_xact_lock(_RENEWING)))
            found = _version_in(connection)
            if not found:
                TABLES.create_all(connection)
                connection.execute(SCHEMA.insert().values(version=SCHEMA_VERSION))
            elif found < SCHEMA_VERSION:
                from rlhf.labels.migrations import upgrade  # here: nothing else loads Alembic

                upgrade(connection, found)
        if 0 < found < SCHEMA_VERSION:
            print(f"{self}: upgraded from schema version {found} to {SCHEMA_VERSION}", file=sys.stderr, flush=True)


def _version_in(connection: Connection) -> int:
    if not inspect(connection).has_table(SCHEMA.name):
        return 0
    return connection.scalar(select(SCHEMA.c.version)) or 0


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


def _written(url: URL) -> str:
    """Return the URL as people write it, without its password."""
    return url.set(drivername=url.get_backend_name()).render_as_string(hide_password=True)


def _sqlite(path: Path) -> Engine:
    # secure_delete: an erased person's texts leave the file, not only the tables
    return sqlite_engine(path, "secure_delete=ON", f"cache_size=-{_CACHE_KIB}")


def _postgresql(url: URL) -> Engine:
    try:
        return create_engine(url, poolclass=NullPool, paramstyle="format")
    except ModuleNotFoundError as error:
        raise UsageError("PostgreSQL needs its driver: pip install 'psycopg[binary]'") from error
