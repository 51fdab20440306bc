"""How older tables of labels become the present ones: one file for each version, run in order by Alembic's operations.

The table `label_schema`, and no second one of Alembic's, holds the version: every version of this program reads it, so
an older one refuses what a newer one has made. The caller's transaction holds the whole chain. Foreign keys are
enforced inside it, so on SQLite a change that must copy a table (`batch_alter_table`) needs them checked at its end:
none does so far. A file of a released version never changes again.
"""

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection

from rlhf.labels.migrations import version_1, version_2
from rlhf.labels.tables import SCHEMA

_STEPS = (version_1.upgrade, version_2.upgrade)
"""Each makes the tables of its version of those of the one before; the first makes them of nothing."""


def upgrade(connection: Connection, found: int, wanted: int = len(_STEPS)) -> None:
    """Bring tables of version `found` (0: none) to version `wanted`, inside the connection's open transaction."""
    operations = Operations(MigrationContext.configure(connection))
    for step in _STEPS[found:wanted]:
        step(operations)
    connection.execute(SCHEMA.delete())
    connection.execute(SCHEMA.insert().values(version=wanted))
