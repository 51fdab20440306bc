"""The registry's tables, version 2. A change here needs a step in `rlhf.registry.migrations`."""

from sqlalchemy import (
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

SCHEMA_VERSION = 2

TABLES = MetaData()
SCHEMA = Table(
    "schema",
    TABLES,
    Column("version", Integer, nullable=False),
    Column("identity", String(32)),  # says which folder belongs to a database that does not lie in it
)
ARTIFACTS = Table(
    "artifacts",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("name", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("kind", String(64), nullable=False),
    Column("fingerprint", String(128), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("metadata", Text, nullable=False),
    Column("removed_at", String(32)),
    UniqueConstraint("name", "version"),
)
_IS_THERE = ARTIFACTS.c.removed_at.is_(None)
Index(
    "artifacts_fingerprint",
    ARTIFACTS.c.fingerprint,
    unique=True,
    sqlite_where=_IS_THERE,
    postgresql_where=_IS_THERE,
)
PARENTS = Table(
    "parents",
    TABLES,
    Column("child_id", ForeignKey("artifacts.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("role", String(64), nullable=False),
    Column("parent_id", ForeignKey("artifacts.id"), nullable=False, index=True),
)
ALIASES = Table(
    "aliases",
    TABLES,
    Column("name", String(64), primary_key=True),
    Column("alias", String(64), primary_key=True),
    Column("version", Integer, nullable=False),
    ForeignKeyConstraint(["name", "version"], ["artifacts.name", "artifacts.version"]),
)
TAGS = Table(
    "tags",
    TABLES,
    Column("artifact_id", ForeignKey("artifacts.id"), primary_key=True),
    Column("key", String(64), primary_key=True),
    Column("value", Text),  # null: a word of its own
)
PROMOTIONS = Table(
    "promotions",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("artifact_id", ForeignKey("artifacts.id"), nullable=False, index=True),
    Column("alias", String(64), nullable=False),
    Column("asked_by", Text, nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("reason", Text),  # null: the reports' verdicts were enough
    Column("verdicts", Text, nullable=False),
    sqlite_autoincrement=True,
)
LEASES = Table(
    "leases",
    TABLES,
    Column("token", Integer, primary_key=True),
    Column("fingerprint", String(128), nullable=False, unique=True),
    Column("host", Text, nullable=False),
    Column("boot", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started", Text, nullable=False),
    Column("beat", Integer, nullable=False),
    sqlite_autoincrement=True,
)
