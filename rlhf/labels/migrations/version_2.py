"""Version 2: what a page needs on which people label: study, guidelines, queue, leases, accounts, sessions."""

from alembic.operations import Operations
from sqlalchemy import Column, Float, ForeignKey, Integer, LargeBinary, String, Text, UniqueConstraint, text


def upgrade(operations: Operations) -> None:
    """Add the tables, to an event the lease under which it came, and to a person where the queue goes on for them."""
    _study(operations)
    _queue(operations)
    _accounts(operations)
    lease = Column("lease_id", Integer, ForeignKey("lease.id"))
    # SQLite adds a constraint to a table that is there only inside the definition of a column
    operations.add_column("label_event", lease, inline_references=True)
    of_page = text("lease_id IS NOT NULL")
    by_lease = ("label_event_lease", "label_event", ["lease_id"])
    operations.create_index(*by_lease, sqlite_where=of_page, postgresql_where=of_page)
    operations.add_column("annotator", Column("next_position", Integer))
    operations.create_index("annotator_next_position", "annotator", ["project_id", "next_position"])


def _study(operations: Operations) -> None:
    operations.create_table(
        "study",
        Column("project_id", Integer, ForeignKey("project.id"), primary_key=True),
        Column("settings", Text, nullable=False),
    )
    operations.create_table(
        "guidelines",
        Column("project_id", Integer, ForeignKey("project.id"), primary_key=True),
        Column("version", Integer, primary_key=True),
        Column("text", Text, nullable=False),
        Column("created_at", String(32), nullable=False),
    )


def _queue(operations: Operations) -> None:
    operations.create_table(
        "queued_task",
        Column("task_id", Integer, ForeignKey("task.id"), primary_key=True),
        Column("project_id", Integer, ForeignKey("project.id"), nullable=False),
        Column("purpose", String(16), nullable=False),
        Column("position", Integer, nullable=False),
        Column("overlap", Integer, nullable=False),
        Column("taken", Integer, nullable=False),
        Column("gold_choice", String(8)),
        Column("score", Float),
    )
    for name, where in (("free", "taken < overlap"), ("known", "gold_choice IS NOT NULL")):
        places = (f"queued_task_{name}", "queued_task", ["project_id", "purpose", "position", "task_id"])
        operations.create_index(*places, sqlite_where=text(where), postgresql_where=text(where))
    operations.create_table(
        "lease",
        Column("id", Integer, primary_key=True),
        Column("project_id", Integer, ForeignKey("project.id"), nullable=False),
        Column("task_id", Integer, ForeignKey("task.id"), nullable=False),
        Column("annotator_id", Integer, ForeignKey("annotator.id"), nullable=False),
        Column("purpose", String(16), nullable=False),
        Column("shown_left", String(1), nullable=False),
        Column("state", String(8), nullable=False),
        Column("created_at", Float, nullable=False),
        Column("expires_at", Float, nullable=False),
        Column("closed_at", Float),
        Column("revision", Integer, nullable=False),
        Column("answer_id", Integer),
        UniqueConstraint("task_id", "annotator_id", "purpose"),
        sqlite_autoincrement=True,
    )
    operations.create_index("lease_answers", "lease", ["annotator_id", "answer_id"])
    operations.create_index("lease_answers_of_purpose", "lease", ["annotator_id", "purpose", "answer_id"])
    operations.create_index("lease_expiry", "lease", ["project_id", "state", "expires_at"])


def _accounts(operations: Operations) -> None:
    operations.create_table(
        "account",
        Column("id", Integer, primary_key=True),
        Column("project_id", Integer, ForeignKey("project.id"), nullable=False),
        Column("annotator_id", Integer, ForeignKey("annotator.id")),
        Column("name", String(64), nullable=False),
        Column("role", String(16), nullable=False),
        Column("password_hash", Text, nullable=False),
        Column("created_at", String(32), nullable=False),
        Column("paused_at", Float),
        Column("paused_reason", Text),
        Column("forgiven_id", Integer),
        UniqueConstraint("project_id", "name"),
        sqlite_autoincrement=True,
    )
    operations.create_table(
        "invite",
        Column("token_digest", LargeBinary(32), primary_key=True),
        Column("project_id", Integer, ForeignKey("project.id"), nullable=False),
        Column("role", String(16), nullable=False),
        Column("created_at", Float, nullable=False),
        Column("expires_at", Float, nullable=False),
        Column("account_id", Integer, ForeignKey("account.id")),
    )
    operations.create_table(
        "session",
        Column("token_digest", LargeBinary(32), primary_key=True),
        Column("account_id", Integer, ForeignKey("account.id"), nullable=False),
        Column("created_at", Float, nullable=False),
        Column("expires_at", Float, nullable=False),
    )
    operations.create_index("session_account", "session", ["account_id"])
    operations.create_table(
        "login_attempts",
        Column("key", LargeBinary(32), primary_key=True),
        Column("failures", Integer, nullable=False),
        Column("blocked_until", Float, nullable=False),
    )
