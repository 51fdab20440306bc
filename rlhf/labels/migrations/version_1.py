"""Version 1: projects, tasks, annotators, imports, events, exports."""

from alembic.operations import Operations
from sqlalchemy import Column, Float, ForeignKey, Integer, LargeBinary, String, Text, UniqueConstraint


def upgrade(operations: Operations) -> None:
    """Make the tables."""
    operations.create_table("label_schema", Column("version", Integer, nullable=False))
    operations.create_table(
        "project",
        Column("id", Integer, primary_key=True),
        Column("name", String(64), nullable=False, unique=True),
        Column("pseudonym_key", LargeBinary(32), nullable=False),
        Column("created_at", String(32), nullable=False),
    )
    _tasks_and_people(operations)
    _imports(operations)
    _events(operations)
    operations.create_table(
        "label_export",
        Column("id", Integer, primary_key=True),
        Column("project_id", Integer, ForeignKey("project.id"), nullable=False),
        Column("digest", String(64), nullable=False),
        Column("format", String(16), nullable=False),
        Column("attribute", Text),
        Column("created_at", String(32), nullable=False),
        Column("event_ids", Text, nullable=False),
        UniqueConstraint("project_id", "digest"),
    )


def _tasks_and_people(operations: Operations) -> None:
    operations.create_table(
        "task",
        Column("id", Integer, primary_key=True),
        Column("project_id", Integer, ForeignKey("project.id"), nullable=False),
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
    operations.create_table(
        "annotator",
        Column("id", Integer, primary_key=True),
        Column("project_id", Integer, ForeignKey("project.id"), nullable=False),
        Column("name", Text),
        Column("pseudonym", String(32), nullable=False),
        Column("erased_at", String(32)),
        UniqueConstraint("project_id", "pseudonym"),
        sqlite_autoincrement=True,
    )


def _imports(operations: Operations) -> None:
    operations.create_table(
        "import_report",
        Column("id", Integer, primary_key=True),
        Column("project_id", Integer, ForeignKey("project.id"), nullable=False),
        Column("file", Text, nullable=False),
        Column("format", String(64), nullable=False),
        Column("source", Text),
        Column("licence", Text),
        Column("created_at", String(32), nullable=False),
        Column("report", Text, nullable=False),
        sqlite_autoincrement=True,
    )
    operations.create_table(
        "quarantined_row",
        Column("id", Integer, primary_key=True),
        Column("import_id", Integer, ForeignKey("import_report.id"), nullable=False),
        Column("line", Integer, nullable=False),
        Column("kind", Text, nullable=False),
        Column("digest", LargeBinary(32)),
    )
    operations.create_index("quarantined_row_digest", "quarantined_row", ["import_id", "digest"])


def _events(operations: Operations) -> None:
    operations.create_table(
        "label_event",
        Column("id", Integer, primary_key=True),
        Column("project_id", Integer, ForeignKey("project.id"), nullable=False),
        Column("task_id", Integer, ForeignKey("task.id"), nullable=False),
        Column("annotator_id", Integer, ForeignKey("annotator.id")),
        Column("import_id", Integer, ForeignKey("import_report.id")),
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
        sqlite_autoincrement=True,
    )
    operations.create_index("label_event_task_annotator", "label_event", ["task_id", "annotator_id"])
