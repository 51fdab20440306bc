"""How older tables of a registry become the present ones, inside one transaction: all or nothing.

The table `schema` holds the version, and every program reads it first: an older one refuses what a newer one has made.
A step never changes again once its version is released. Version 1 knew SQLite alone.
"""

from sqlalchemy import Connection

from rlhf.registry.tables import SCHEMA_VERSION
from sft.core.errors import StorageError

_VERSION_2 = (
    # SQLite cannot take the UNIQUE from a column, so the table is made anew; foreign keys are off meanwhile
    "CREATE TABLE artifacts_2 (id INTEGER NOT NULL, name VARCHAR(64) NOT NULL, version INTEGER NOT NULL, "
    "kind VARCHAR(64) NOT NULL, fingerprint VARCHAR(128) NOT NULL, sha256 VARCHAR(64) NOT NULL, "
    "created_at VARCHAR(32) NOT NULL, metadata TEXT NOT NULL, removed_at VARCHAR(32), PRIMARY KEY (id), "
    "UNIQUE (name, version))",
    "INSERT INTO artifacts_2 SELECT id, name, version, kind, fingerprint, sha256, created_at, metadata, NULL "
    "FROM artifacts",
    "DROP TABLE artifacts",
    "ALTER TABLE artifacts_2 RENAME TO artifacts",
    "CREATE UNIQUE INDEX artifacts_fingerprint ON artifacts (fingerprint) WHERE removed_at IS NULL",
    "CREATE TABLE tags (artifact_id INTEGER NOT NULL, key VARCHAR(64) NOT NULL, value TEXT, "
    "PRIMARY KEY (artifact_id, key), FOREIGN KEY(artifact_id) REFERENCES artifacts (id))",
    "CREATE TABLE promotions (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, artifact_id INTEGER NOT NULL, "
    "alias VARCHAR(64) NOT NULL, asked_by TEXT NOT NULL, created_at VARCHAR(32) NOT NULL, reason TEXT, "
    "verdicts TEXT NOT NULL, FOREIGN KEY(artifact_id) REFERENCES artifacts (id))",
    "CREATE INDEX ix_promotions_artifact_id ON promotions (artifact_id)",
    "CREATE TABLE leases (token INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, fingerprint VARCHAR(128) NOT NULL, "
    "host TEXT NOT NULL, boot TEXT NOT NULL, pid INTEGER NOT NULL, started TEXT NOT NULL, beat INTEGER NOT NULL, "
    "UNIQUE (fingerprint))",
    "ALTER TABLE schema ADD COLUMN identity VARCHAR(32)",
    "UPDATE schema SET version = 2, identity = lower(hex(randomblob(16)))",
)
_STEPS = {1: _VERSION_2}
"""What makes the next version's tables of those of each older version."""


def upgrade(connection: Connection, found: int) -> None:
    """Bring tables of version `found` to the present one, inside the open transaction of a connection.

    Foreign keys must be off on the connection: they are checked here, at the end.
    """
    for version in range(found, SCHEMA_VERSION):
        for statement in _STEPS[version]:
            connection.exec_driver_sql(statement)
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    if broken:
        raise StorageError(
            f"{len(broken)} rows of the table {broken[0][0]!r} refer to rows that are not there, so the registry is "
            "damaged and was not upgraded; restore it from a backup"
        )
