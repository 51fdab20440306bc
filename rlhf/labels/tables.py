"""The tables of the labels, in SQLAlchemy Core.

Labels are events that are only ever added. The label of an annotator for a task (and attribute) that holds now is the
last event; an earlier one is history.
"""

from sqlalchemy import (
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    and_,
    text,
)

TABLES = MetaData()
SCHEMA = Table("label_schema", TABLES, Column("version", Integer, nullable=False))
PROJECT = Table(
    "project",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("pseudonym_key", LargeBinary(32), nullable=False),
    Column("created_at", String(32), nullable=False),
)
TASK = Table(
    "task",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("project_id", ForeignKey("project.id"), nullable=False),
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
"""A prompt (JSON messages) with two answers, in an order of their own: `a` sorts before `b`, whoever saw which left."""
ANNOTATOR = Table(
    "annotator",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("project_id", ForeignKey("project.id"), nullable=False),
    Column("name", Text),
    Column("pseudonym", String(32), nullable=False),
    Column("erased_at", String(32)),
    Column("next_position", Integer),
    UniqueConstraint("project_id", "pseudonym"),
    Index("annotator_next_position", "project_id", "next_position"),
    sqlite_autoincrement=True,
)
"""A person of one project. An erased one keeps the pseudonym alone, so that no later import brings the labels back.

`next_position` is where the search for their next task begins: none at a lower position of the queue was free for them,
and none has become so since; null: at the first.
"""
IMPORT = Table(
    "import_report",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("project_id", ForeignKey("project.id"), nullable=False),
    Column("file", Text, nullable=False),
    Column("format", String(64), nullable=False),
    Column("source", Text),
    Column("licence", Text),
    Column("created_at", String(32), nullable=False),
    Column("report", Text, nullable=False),
    sqlite_autoincrement=True,
)
QUARANTINE = Table(
    "quarantined_row",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("import_id", ForeignKey("import_report.id"), nullable=False),
    Column("line", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("digest", LargeBinary(32)),
    Index("quarantined_row_digest", "import_id", "digest"),
)
"""Where a row stood and why it was not used; nothing of what it said."""
_IS_OF_PAGE = text("lease_id IS NOT NULL")
EVENT = Table(
    "label_event",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("project_id", ForeignKey("project.id"), nullable=False),
    Column("task_id", ForeignKey("task.id"), nullable=False),
    Column("annotator_id", ForeignKey("annotator.id")),
    Column("import_id", ForeignKey("import_report.id")),
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
    Column("lease_id", ForeignKey("lease.id")),
    Column("row_digest", LargeBinary(32), nullable=False),
    Column("row_part", Integer, nullable=False),
    UniqueConstraint("project_id", "row_digest", "row_part"),
    Index("label_event_task_annotator", "task_id", "annotator_id"),
    Index("label_event_lease", "lease_id", sqlite_where=_IS_OF_PAGE, postgresql_where=_IS_OF_PAGE),
    sqlite_autoincrement=True,
)
"""What someone did with a task: `kind` is label, gold, probe, skip, flag or undo.

`choice` (a, b, tie) and `shown_left` (a, b) speak of the task's own order. `row_digest` is the sha256 of the raw row,
or of a page's request, and `row_part` counts the judgements of one row: what is sent twice is stored once. `lease_id`
is null where a file brought the event. Ids are never used again, also not after an erasure: an export names its events
by them.
"""
EXPORT = Table(
    "label_export",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("project_id", ForeignKey("project.id"), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("format", String(16), nullable=False),
    Column("attribute", Text),
    Column("created_at", String(32), nullable=False),
    Column("event_ids", Text, nullable=False),
    UniqueConstraint("project_id", "digest"),
)
"""`event_ids` are ranges, JSON `[[first, last], ...]`: they outlive the events of a person who was erased."""
STUDY = Table(
    "study",
    TABLES,
    Column("project_id", ForeignKey("project.id"), primary_key=True),
    Column("settings", Text, nullable=False),
)
"""How people label in a project: `rlhf.labels.collection.study.Study` as JSON."""
GUIDELINES = Table(
    "guidelines",
    TABLES,
    Column("project_id", ForeignKey("project.id"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("text", Text, nullable=False),
    Column("created_at", String(32), nullable=False),
)
"""Markdown; the highest version holds."""
QUEUE = Table(
    "queued_task",
    TABLES,
    Column("task_id", ForeignKey("task.id"), primary_key=True),
    Column("project_id", ForeignKey("project.id"), nullable=False),
    Column("purpose", String(16), nullable=False),
    Column("position", Integer, nullable=False),
    Column("overlap", Integer, nullable=False),
    Column("taken", Integer, nullable=False),
    Column("gold_choice", String(8)),
    Column("score", Float),
)
"""A task that people are to label: `purpose` is label, gold or qualification, lower positions come first.

`taken` counts the leases that hold a place, and grows only below `overlap`; it stays 0 but for purpose label.
`score` is what the order was drawn from (the disagreement of reward models); null: nothing.
"""
for _name, _where in {"free": "taken < overlap", "known": "gold_choice IS NOT NULL"}.items():
    Index(
        f"queued_task_{_name}",
        *QUEUE.c["project_id", "purpose", "position", "task_id"],
        sqlite_where=text(_where),
        postgresql_where=text(_where),
    )
LEASE = Table(
    "lease",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("project_id", ForeignKey("project.id"), nullable=False),
    Column("task_id", ForeignKey("task.id"), nullable=False),
    Column("annotator_id", ForeignKey("annotator.id"), nullable=False),
    Column("purpose", String(16), nullable=False),
    Column("shown_left", String(1), nullable=False),
    Column("state", String(8), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("closed_at", Float),
    Column("revision", Integer, nullable=False),
    Column("answer_id", Integer),
    UniqueConstraint("task_id", "annotator_id", "purpose"),
    Index("lease_answers", "annotator_id", "answer_id"),
    Index("lease_answers_of_purpose", "annotator_id", "purpose", "answer_id"),
    Index("lease_expiry", "project_id", "state", "expires_at"),
    sqlite_autoincrement=True,
)
"""One task given to one person: `purpose` is that of the queue, or probe (again, with the sides swapped).

`state` is open, done, skipped, expired (given back) or late (answered after it was given back). `revision` counts the
answers, so that a page that was made before an edit is noticed. `answer_id` is the first event of the answer that holds
now: later answers have higher ones, whatever the clock says; null, as `closed_at`: there is none. Times are seconds
since 1970, UTC.
"""
HOLDS_A_PLACE = and_(LEASE.c.purpose == "label", LEASE.c.state.in_(("open", "done")))
"""The leases that `taken` counts."""
ACCOUNT = Table(
    "account",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("project_id", ForeignKey("project.id"), nullable=False),
    Column("annotator_id", ForeignKey("annotator.id")),
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
"""Who may log in: an owner, or an annotator (whose labels are `annotator_id`'s).

`forgiven_id` is the newest answer at the time of their last pause for wrong answers: older ones pause them no more.
"""
INVITE = Table(
    "invite",
    TABLES,
    Column("token_digest", LargeBinary(32), primary_key=True),
    Column("project_id", ForeignKey("project.id"), nullable=False),
    Column("role", String(16), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("account_id", ForeignKey("account.id")),
)
"""A link that makes one account, or (with `account_id`) gives one a new password; gone once it was used."""
SESSION = Table(
    "session",
    TABLES,
    Column("token_digest", LargeBinary(32), primary_key=True),
    Column("account_id", ForeignKey("account.id"), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Index("session_account", "account_id"),
)
"""Who is logged in; the cookie holds the token, the database its sha256."""
ATTEMPTS = Table(
    "login_attempts",
    TABLES,
    Column("key", LargeBinary(32), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("blocked_until", Float, nullable=False),
)
"""Failed logins by account name and by address, hashed; and, without failures, from where an account has got in before:
until `blocked_until` that is known.
"""
