"""How this project opens SQLite files with SQLAlchemy, and what it says when a database refuses.

No connection outlives its transaction, so that a process may fork.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import DatabaseError, IntegrityError, ProgrammingError
from sqlalchemy.pool import NullPool

from sft.core.errors import StorageError

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
        known = {
            "locked": f"another process kept it locked for {waited}: wait for it or stop it, then run again",
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
        found = str(error.orig).strip()
        raise StorageError(f"{shown}: {found}; {remedies.of(found)}") from error


def check_schema(shown: object, found: object, known: int) -> None:
    """Raise StorageError unless the schema version that was found is the one that this program knows."""
    if found != known:
        raise StorageError(
            f"{shown} has schema version {found}, this program knows {known}; use the program version that made it"
        )


def sqlite_engine(path: Path, *pragmas: str) -> Engine:
    """Return an engine for a file that exists; each of the pragmas, `name=value`, holds for every connection."""
    return create_engine("sqlite://", creator=partial(_connect, path, pragmas), poolclass=NullPool)


def _connect(path: Path, pragmas: tuple[str, ...]) -> sqlite3.Connection:
    address = f"file:{quote(str(path))}?mode=rw"  # never makes a file; read-only where the disk is
    # isolation_level=None: the driver begins no transactions of its own, so BEGIN IMMEDIATE is really the first.
    connection = sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    for pragma in ("synchronous=EXTRA", "foreign_keys=ON", *pragmas):
        connection.execute(f"PRAGMA {pragma}")
    return connection
