"""Transactions on the database of labels: SQLite by default, PostgreSQL by URL.

A reader sees one snapshot. A writer on SQLite takes the write lock first (BEGIN IMMEDIATE); on PostgreSQL a writer of a
project locks its row (`rlhf.labels.store`). No connection outlives its transaction, so that a process may fork. The
journal is a rollback journal with `synchronous=EXTRA`, for the reasons of the registry: what a writer sees is final,
and a commit outlives a power loss.
"""

import os
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from sqlalchemy import Connection, func, inspect, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from rlhf.labels.tables import SCHEMA, TABLES
from sft.core.database import (
    Remedies,
    Transactions,
    check_schema,
    postgresql_engine,
    postgresql_url,
    sqlite_engine,
)
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
        self._tables = _opened(url)
        self._path = self._tables.path

    def __str__(self) -> str:
        """Return the file, or the URL without its password."""
        return self._tables.shown

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

    def read(self) -> AbstractContextManager[Connection]:
        """Open one snapshot; writing in it is an error."""
        return self._tables.read()

    def write(self) -> AbstractContextManager[Connection]:
        """Open a write transaction; commit at the end, roll back on any error."""
        return self._tables.write()

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


def _opened(url: str) -> Transactions:
    server = postgresql_url(url)
    if server is not None:
        return Transactions(_written(server), None, postgresql_engine(server), _SERVER_REMEDIES)
    path = _file(url)
    # secure_delete: an erased person's texts leave the file, not only the tables
    engine = sqlite_engine(path, "secure_delete=ON", f"cache_size=-{_CACHE_KIB}")
    return Transactions(str(path), path, engine, _REMEDIES)


def _file(url: str) -> Path:
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = URL.create("")
    if parsed.drivername == "sqlite" and parsed.database and not parsed.query:
        return Path(parsed.database)
    shown = parsed.render_as_string(hide_password=True) if parsed.drivername else "what was given"
    raise UsageError(
        f"{shown} is not the URL of a database of labels; write sqlite:///FILE or postgresql://USER@HOST/NAME"
    )


def _written(url: URL) -> str:
    """Return the URL as people write it, without its password."""
    return url.set(drivername=url.get_backend_name()).render_as_string(hide_password=True)
