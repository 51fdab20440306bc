"""The registry's tables and transactions: SQLAlchemy Core on one SQLite file, and the only SQL of the registry.

A reader sees one snapshot. A writer takes the write lock first (BEGIN IMMEDIATE), so that what it reads, such as the
highest version, is still true when it commits. No connection outlives its transaction, so that a process may fork.

The journal is a rollback journal (SQLite's default), not WAL. In WAL a writer killed while committing can leave a
commit that the next writer does not see, but that comes back if that one is killed too: by then it has replaced the
folder of the version it took for free, and a listed artifact is damaged (seen in tests with two kills). With a rollback
journal, what a writer sees is final. EXTRA also syncs the folder when the journal goes, so that a commit outlives a
power loss.
"""

import fcntl
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    func,
    select,
)

from rlhf.registry.artifact import DATABASE_FILE, Artifact, Parent
from rlhf.registry.lineage import Edge
from sft.core.database import Remedies, check_schema, database_errors, sqlite_engine
from sft.core.durable import sync_folder
from sft.core.errors import UsageError

SCHEMA_VERSION = 1

_TABLES = MetaData()
_SCHEMA = Table("schema", _TABLES, Column("version", Integer, nullable=False))
_ARTIFACTS = Table(
    "artifacts",
    _TABLES,
    Column("id", Integer, primary_key=True),
    Column("name", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("kind", String(64), nullable=False),
    Column("fingerprint", String(128), nullable=False, unique=True),
    Column("sha256", String(64), nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("metadata", Text, nullable=False),
    UniqueConstraint("name", "version"),
)
_PARENTS = Table(
    "parents",
    _TABLES,
    Column("child_id", ForeignKey("artifacts.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("role", String(64), nullable=False),
    Column("parent_id", ForeignKey("artifacts.id"), nullable=False, index=True),
)
_ALIASES = Table(
    "aliases",
    _TABLES,
    Column("name", String(64), primary_key=True),
    Column("alias", String(64), primary_key=True),
    Column("version", Integer, nullable=False),
    ForeignKeyConstraint(["name", "version"], ["artifacts.name", "artifacts.version"]),
)

_REMEDIES = Remedies(
    readonly="make the registry writable for you, or choose another one",
    unreachable="check that the registry exists and that you may read and write its folder",
    damaged="the file is damaged: restore it from a backup, or move the whole registry away and start a new one",
    otherwise="check the disk",
)


@dataclass(frozen=True)
class Catalogue:
    """What the registry knows, inside one open transaction."""

    _connection: Connection
    _root: Path

    def names(self) -> list[str]:
        """Return all names, sorted."""
        statement = select(_ARTIFACTS.c.name).distinct().order_by(_ARTIFACTS.c.name)
        return list(self._connection.scalars(statement))

    def artifacts(self) -> list[Artifact]:
        """Return everything, by name and version."""
        return self._load()

    def named(self, name: str) -> list[Artifact]:
        """Return all versions of a name, oldest first; none is an empty list."""
        return self._load(_ARTIFACTS.c.name == name)

    def version(self, name: str, version: int) -> Artifact | None:
        """Return one version, or None."""
        return next(iter(self._load(_ARTIFACTS.c.name == name, _ARTIFACTS.c.version == version)), None)

    def find(self, fingerprint: str) -> Artifact | None:
        """Return the artifact with this fingerprint, or None."""
        return next(iter(self._load(_ARTIFACTS.c.fingerprint == fingerprint)), None)

    def last_version(self, name: str) -> int:
        """Return the highest version of a name, 0 where it has none."""
        statement = select(func.max(_ARTIFACTS.c.version)).where(_ARTIFACTS.c.name == name)
        return self._connection.scalar(statement) or 0

    def aliases(self, name: str) -> dict[str, int]:
        """Return the version that each alias of a name points at."""
        statement = select(_ALIASES.c.alias, _ALIASES.c.version).where(_ALIASES.c.name == name)
        return {row.alias: row.version for row in self._connection.execute(statement.order_by(_ALIASES.c.alias))}

    def edges(self) -> list[Edge]:
        """Return all parents of all artifacts, oldest child first."""
        child, parent = _ARTIFACTS.alias(), _ARTIFACTS.alias()
        columns = (child.c.name, child.c.version, _PARENTS.c.role, parent.c.name, parent.c.version)
        joined = _PARENTS.join(child, child.c.id == _PARENTS.c.child_id)
        joined = joined.join(parent, parent.c.id == _PARENTS.c.parent_id)
        statement = select(*columns).select_from(joined).order_by(_PARENTS.c.child_id, _PARENTS.c.position)
        rows = self._connection.execute(statement).tuples()
        return [Edge(f"{name}:{version}", role, f"{other}:{number}") for name, version, role, other, number in rows]

    def kinds(self) -> dict[str, str]:
        """Return the kind of each artifact by its reference."""
        rows = self._connection.execute(select(_ARTIFACTS.c.name, _ARTIFACTS.c.version, _ARTIFACTS.c.kind))
        return {f"{row.name}:{row.version}": row.kind for row in rows}

    def add(self, artifact: Artifact, parents: Sequence[tuple[str, Artifact]]) -> None:
        """Insert an artifact and its parents. Raises UsageError for a parent of another registry."""
        statement = _ARTIFACTS.insert().values(
            name=artifact.name,
            version=artifact.version,
            kind=artifact.kind,
            fingerprint=artifact.fingerprint,
            sha256=artifact.sha256,
            created_at=artifact.created_at,
            metadata=json.dumps(artifact.metadata, ensure_ascii=False, allow_nan=False),
        )
        self._connection.execute(statement)
        child_id = self._id(artifact)
        for position, (role, parent) in enumerate(parents):
            values = {"child_id": child_id, "position": position, "role": role, "parent_id": self._id(parent)}
            self._connection.execute(_PARENTS.insert().values(values))

    def set_alias(self, artifact: Artifact, alias: str) -> None:
        """Point an alias at an artifact, away from any other version of its name."""
        self._id(artifact)
        same_alias = (_ALIASES.c.name == artifact.name, _ALIASES.c.alias == alias)
        self._connection.execute(_ALIASES.delete().where(*same_alias))
        values = {"name": artifact.name, "alias": alias, "version": artifact.version}
        self._connection.execute(_ALIASES.insert().values(values))

    def drop_alias(self, artifact: Artifact, alias: str) -> None:
        """Remove an alias if it points at this artifact."""
        here = (_ALIASES.c.name == artifact.name, _ALIASES.c.version == artifact.version, _ALIASES.c.alias == alias)
        self._connection.execute(_ALIASES.delete().where(*here))

    def _id(self, artifact: Artifact) -> int:
        same = (
            _ARTIFACTS.c.name == artifact.name,
            _ARTIFACTS.c.version == artifact.version,
            _ARTIFACTS.c.fingerprint == artifact.fingerprint,
        )
        found: int | None = self._connection.scalar(select(_ARTIFACTS.c.id).where(*same))
        if found is None:
            raise UsageError(f"{artifact.ref} is not in the registry {self._root}; register it there first")
        return found

    def _load(self, *conditions: ColumnElement[bool]) -> list[Artifact]:
        chosen = select(_ARTIFACTS).where(*conditions).order_by(_ARTIFACTS.c.name, _ARTIFACTS.c.version)
        rows = self._connection.execute(chosen).all()
        parents = self._parents(*conditions)
        aliases = self._aliases(*conditions)
        return [
            Artifact(
                name=row.name,
                version=row.version,
                kind=row.kind,
                path=self._root / row.name / str(row.version),
                sha256=row.sha256,
                fingerprint=row.fingerprint,
                created_at=row.created_at,
                metadata=json.loads(row.metadata),
                aliases=tuple(aliases[row.id]),
                parents=tuple(parents[row.id]),
            )
            for row in rows
        ]

    def _parents(self, *conditions: ColumnElement[bool]) -> dict[int, list[Parent]]:
        chosen = select(_ARTIFACTS.c.id).where(*conditions)
        parent = _ARTIFACTS.alias()
        statement = (
            select(_PARENTS.c.child_id, _PARENTS.c.role, parent.c.name, parent.c.version)
            .join(parent, parent.c.id == _PARENTS.c.parent_id)
            .where(_PARENTS.c.child_id.in_(chosen))
            .order_by(_PARENTS.c.child_id, _PARENTS.c.position)
        )
        found: dict[int, list[Parent]] = defaultdict(list)
        for row in self._connection.execute(statement):
            found[row.child_id].append(Parent(row.role, f"{row.name}:{row.version}"))
        return found

    def _aliases(self, *conditions: ColumnElement[bool]) -> dict[int, list[str]]:
        same = (_ALIASES.c.name == _ARTIFACTS.c.name) & (_ALIASES.c.version == _ARTIFACTS.c.version)
        statement = (
            select(_ARTIFACTS.c.id, _ALIASES.c.alias)
            .join(_ALIASES, same)
            .where(*conditions)
            .order_by(_ARTIFACTS.c.id, _ALIASES.c.alias)
        )
        found: dict[int, list[str]] = defaultdict(list)
        for row in self._connection.execute(statement):
            found[row.id].append(row.alias)
        return found


class Database:
    """The file `ROOT/registry.db`. Raises StorageError where it is locked, damaged, full or unreadable."""

    def __init__(self, root: Path) -> None:
        """Open nothing yet: every transaction has its own connection."""
        self._root = root
        self._path = root / DATABASE_FILE
        self._reader = sqlite_engine(self._path, "query_only=ON")
        self._writer = sqlite_engine(self._path)

    def create(self) -> None:
        """Make the file with its tables, whole or not at all, unless it is there."""
        if self._path.exists():
            return
        draft = self._root / ".work" / f"{DATABASE_FILE}.draft"
        with _folder_lock(self._root), database_errors(draft, _REMEDIES):
            if self._path.exists():
                return
            for leftover in draft.parent.glob(f"{draft.name}*"):
                leftover.unlink()
            _make_tables(draft)
            os.replace(draft, self._path)
            sync_folder(self._root)

    def check(self) -> None:
        """Raise StorageError if the file cannot be read, or was made by a newer version of this program."""
        with self._transaction(self._reader, "BEGIN") as connection:
            found = connection.scalar(select(_SCHEMA.c.version))
        check_schema(self._path, found, SCHEMA_VERSION)

    @contextmanager
    def read(self) -> Iterator[Catalogue]:
        """Open one snapshot; writing in it is an error."""
        with self._transaction(self._reader, "BEGIN") as connection:
            yield Catalogue(connection, self._root)

    @contextmanager
    def write(self) -> Iterator[Catalogue]:
        """Open the one write transaction there can be; commit at the end, roll back on any error."""
        with self._transaction(self._writer, "BEGIN IMMEDIATE") as connection:
            yield Catalogue(connection, self._root)
            connection.commit()

    @contextmanager
    def _transaction(self, engine: Engine, begin: str) -> Iterator[Connection]:
        with database_errors(self._path, _REMEDIES), engine.connect() as connection:
            connection.exec_driver_sql(begin)
            yield connection


def _make_tables(path: Path) -> None:
    path.touch()
    with sqlite_engine(path).connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        _TABLES.create_all(connection)
        connection.execute(_SCHEMA.insert().values(version=SCHEMA_VERSION))
        connection.commit()


@contextmanager
def _folder_lock(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder itself, so that no lock file stays behind."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
