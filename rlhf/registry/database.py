"""Where the registry's tables are: a SQLite file in its folder, or a PostgreSQL server by URL.

Writers take turns: on SQLite by BEGIN IMMEDIATE, on PostgreSQL by one advisory lock, so that what a writer reads, such
as the highest version, is still true when it commits.

SQLite's journal is a rollback journal (its default), not WAL. In WAL a writer killed while committing can leave a
commit that the next writer does not see, but that comes back if that one is killed too: by then it has replaced the
folder of the version it took for free, and a listed artifact is damaged (seen in tests with two kills). With a rollback
journal, what a writer sees is final. EXTRA also syncs the folder when the journal goes, so that a commit outlives a
power loss.
"""

import fcntl
import json
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from sqlalchemy import Connection, inspect, select

from rlhf.registry.artifact import DATABASE_FILE, ELSEWHERE_FILE
from rlhf.registry.catalogue import Catalogue
from rlhf.registry.migrations import upgrade
from rlhf.registry.tables import ARTIFACTS, SCHEMA, SCHEMA_VERSION, TABLES
from sft.core.database import (
    Remedies,
    Transactions,
    check_schema,
    database_errors,
    postgresql_engine,
    postgresql_url,
    sqlite_engine,
)
from sft.core.durable import sync_folder, write_json
from sft.core.errors import StorageError, UsageError
from sft.core.urls import holds_password, without_password

_WRITERS = 0x726C6872
"""What one writer at a time locks on a server."""

_REMEDIES = Remedies(
    readonly="make the registry writable for you, or choose another one",
    unreachable="check that the registry exists and that you may read and write its folder",
    damaged="the file is damaged: restore it from a backup, or move the whole registry away and start a new one",
    otherwise="check the disk or the server",
)


class Database:
    """The tables of one registry. Raises StorageError where they are locked, damaged, full or cannot be reached."""

    def __init__(self, root: Path, url: str | None = None) -> None:
        """Open nothing yet: every transaction has its own connection.

        Args:
            root: the registry's folder.
            url: `postgresql://USER@HOST/NAME`; None: the file in the folder.

        Raises:
            UsageError: the URL is not one of these or holds a password, or the driver of PostgreSQL is not installed.
        """
        self._root = root
        self._path = root / DATABASE_FILE if url is None else None
        self._tables = _on_file(self._path) if self._path else _on_server(url or "")

    def __str__(self) -> str:
        """Return the file, or the URL without its password."""
        return self._tables.shown

    def create(self) -> None:
        """Make the tables, or bring older ones up to date, whole or not at all."""
        if self._path is not None:
            self._refuse_another_place()
            self._make_file(self._path)
        elif (self._root / DATABASE_FILE).exists():
            self._refuse_a_file()
        if self._version() < SCHEMA_VERSION:
            self._renew()
        self._join_folder()

    def check(self) -> None:
        """Raise UsageError where there is no registry, StorageError where another version of this program made it."""
        if self._path is None and (self._root / DATABASE_FILE).exists():
            self._refuse_a_file()
        if self._path is not None and not self._path.is_file():
            self._refuse_another_place()
        found = self._version()
        if not found:
            raise UsageError(
                f"there is no registry in {self}: a run makes one (rlhf run experiment=quickstart), "
                "or name an existing one with --registry DIR"
            )
        if found < SCHEMA_VERSION:
            raise StorageError(
                f"{self} has schema version {found}, this program needs {SCHEMA_VERSION}: bring it up to date with "
                f"`rlhf models upgrade --registry {self._root}`; nothing is lost, but older programs refuse it then"
            )
        check_schema(self, found, SCHEMA_VERSION)
        if self._path is None:
            self._check_folder()

    def upgrade(self) -> int:
        """Bring older tables up to date, all or nothing; return the version that they had. Raises as `check`."""
        found = self._version()
        if 0 < found < SCHEMA_VERSION:
            self._renew()
        self.check()
        return found

    @contextmanager
    def read(self) -> Iterator[Catalogue]:
        """Open one snapshot; writing in it is an error."""
        with self._tables.read() as connection:
            yield Catalogue(connection, self._root)

    @contextmanager
    def write(self) -> Iterator[Catalogue]:
        """Open the one write transaction there can be; commit at the end, roll back on any error."""
        with self._tables.write() as connection:
            yield Catalogue(connection, self._root)

    @contextmanager
    def beat(self) -> Iterator[Catalogue]:
        """Open a write transaction for the lease of one process, for which nobody waits on a server."""
        with replace(self._tables, writers_lock=None).write() as connection:
            yield Catalogue(connection, self._root)

    def problems(self) -> list[str]:
        """Return what SQLite finds wrong with its file; a server looks after itself."""
        if self._path is None:
            return []
        try:
            with self._tables.read() as connection:
                found = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
        except StorageError as error:
            return [str(error)]
        return [] if found == ["ok"] else [f"{self._path}: {line}; restore it from a backup" for line in found]

    def _version(self) -> int:
        """Return the version of the tables; 0: there are none."""
        if self._path is not None and not self._path.is_file():
            return 0
        with self._tables.read() as connection:
            if self._path is not None or inspect(connection).has_table(SCHEMA.name):
                return connection.scalar(select(SCHEMA.c.version)) or 0
            others = sorted(inspect(connection).get_table_names())
        if others:
            raise UsageError(
                f"{self} is the database of another program (it has the table {others[0]!r}); give the registry one of "
                "its own"
            )
        return 0

    def _make_file(self, path: Path) -> None:
        if path.exists():
            return
        draft = self._root / ".work" / f"{DATABASE_FILE}.draft"
        with _folder_lock(self._root), database_errors(draft, _REMEDIES):
            if path.exists():
                return
            for leftover in draft.parent.glob(f"{draft.name}*"):
                leftover.unlink()
            draft.touch()
            with sqlite_engine(draft).connect() as connection:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                _make_tables(connection)
                connection.commit()
            os.replace(draft, path)
            sync_folder(self._root)

    def _renew(self) -> None:
        tables = self._tables if self._path is None else _on_file(self._path, "foreign_keys=OFF")
        with tables.write() as connection:
            if self._path is None and not inspect(connection).has_table(SCHEMA.name):
                _make_tables(connection)
                return
            found = connection.scalar(select(SCHEMA.c.version)) or 0
            if found < SCHEMA_VERSION:
                upgrade(connection, found)
                print(f"{self}: upgraded from schema version {found} to {SCHEMA_VERSION}", file=sys.stderr, flush=True)

    def _join_folder(self) -> None:
        """Leave a note in the folder of a registry on a server: these folders belong to that database."""
        if self._path is not None:
            return
        if self._note() is not None:
            self._check_folder()
            return
        with self._tables.write() as connection:
            found = connection.scalar(select(ARTIFACTS.c.id).limit(1))
            identity = connection.scalar(select(SCHEMA.c.identity))
            if found is not None:
                self._refuse_folder()
            write_json(self._root / ELSEWHERE_FILE, {"database": self._tables.shown, "identity": identity})

    def _check_folder(self) -> None:
        note = self._note()
        with self._tables.read() as connection:
            identity = connection.scalar(select(SCHEMA.c.identity))
        if note is None or note.get("identity") != identity:
            self._refuse_folder()

    def _note(self) -> dict[str, object] | None:
        path = self._root / ELSEWHERE_FILE
        if not path.is_file():
            return None
        try:
            note = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            note = None
        if not isinstance(note, dict):
            raise StorageError(f"{path} is damaged: restore it; it says which database the folders here belong to")
        return note

    def _refuse_folder(self) -> None:
        raise UsageError(
            f"the folders of the registry in {self} do not lie in {self._root}; give --registry (registry.root) the "
            f"folder in which they do: it holds {ELSEWHERE_FILE}"
        )

    def _refuse_a_file(self) -> None:
        raise UsageError(
            f"{self._root} holds a registry with a database of its own, {DATABASE_FILE}: leave the URL out, or choose "
            "another folder"
        )

    def _refuse_another_place(self) -> None:
        note = self._note()
        if note is not None:
            raise UsageError(
                f"the registry in {self._root} keeps its database in {note.get('database')}; give it with "
                "--registry-url URL (registry.url in a configuration)"
            )


def _on_file(path: Path, *pragmas: str) -> Transactions:
    return Transactions(str(path), path, sqlite_engine(path, *pragmas), _REMEDIES)


def _on_server(url: str) -> Transactions:
    shown = without_password(url)
    if holds_password(url):
        raise UsageError(
            f"the URL {shown} of the registry holds a password, which others could read; leave it out and give it with "
            "PGPASSFILE, PGPASSWORD or PGSERVICE"
        )
    parsed = postgresql_url(url)
    if parsed is None:
        raise UsageError(
            f"{shown!r} is not the URL of a registry; write postgresql://USER@HOST/NAME, or leave it out: then SQLite "
            f"keeps {DATABASE_FILE} in the registry's folder"
        )
    return Transactions(shown, None, postgresql_engine(parsed), _REMEDIES, _WRITERS)


def _make_tables(connection: Connection) -> None:
    TABLES.create_all(connection)
    connection.execute(SCHEMA.insert().values(version=SCHEMA_VERSION, identity=secrets.token_hex(16)))


@contextmanager
def _folder_lock(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder itself, so that no lock file stays behind."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
