"""Rows of the table of tasks: one order of the answers and one key, wherever a pair comes from."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar, TypeVarTuple, cast

from sqlalchemy import Column, Connection, Select, Table, select

from rlhf.labels.tables import TASK
from sft.core.text import Conversation, as_dicts, prompt_key

_ASKED_AT_ONCE = 1000
_ENCODER = json.JSONEncoder(ensure_ascii=False)
_Columns = TypeVarTuple("_Columns")
_Key = TypeVar("_Key", bytes, str)


class TaskRow(NamedTuple):
    """The columns of a task, in the table's order."""

    project_id: int
    task_key: bytes
    prompt_key: bytes
    prompt: str
    response_a: str
    response_b: str
    model_a: str | None
    model_b: str | None


class ModelAnswer(NamedTuple):
    """An answer, and what wrote it; None: unknown."""

    text: str
    model: str | None


def is_swapped(a: ModelAnswer, b: ModelAnswer) -> bool:
    """Say whether the task has the two answers the other way round: its order is that of their texts."""
    if a.text == b.text:
        return (a.model or "") > (b.model or "")
    return a.text > b.text


def task_row(project_id: int, prompt: Conversation, a: ModelAnswer, b: ModelAnswer) -> TaskRow:
    """Return the row of a pair, its answers in the task's own order."""
    first, second = (b, a) if is_swapped(a, b) else (a, b)
    written = _ENCODER.encode(as_dicts(prompt))
    return TaskRow(
        project_id=project_id,
        # No text holds a NUL: the readers refuse it.
        task_key=_digest("\0".join((written, first.text, second.text, first.model or "", second.model or ""))),
        prompt_key=_digest(prompt_key(prompt)),
        prompt=written,
        response_a=first.text,
        response_b=second.text,
        model_a=first.model,
        model_b=second.model,
    )


def task_ids(connection: Connection, project_id: int, tasks: Mapping[bytes, TaskRow]) -> dict[bytes, int]:
    """Return the ids of tasks by key, those that are new stored first."""
    insert_rows(connection, TASK, TaskRow._fields, list(tasks.values()), known=" ON CONFLICT DO NOTHING")
    mine = select(TASK.c.task_key, TASK.c.id).where(TASK.c.project_id == project_id)
    return dict(matching(connection, mine, TASK.c.task_key, list(tasks)))


def insert_rows(
    connection: Connection, table: Table, columns: Sequence[str], rows: Sequence[tuple[object, ...]], known: str = ""
) -> None:
    """Insert rows as the driver takes them: with SQLAlchemy's own parameters it takes twice as long."""
    if rows:
        statement = table.insert().inline().compile(dialect=connection.dialect, column_keys=columns)
        connection.exec_driver_sql(f"{statement}{known}", list(rows))


def matching(
    connection: Connection, statement: Select[*_Columns], key: Column[_Key], values: Sequence[_Key]
) -> Iterator[tuple[*_Columns]]:
    """Yield the rows of a statement whose `key` is one of the values, which go to the driver as they are."""
    dialect = connection.dialect
    text = statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True})
    mark = {"qmark": "?", "format": "%s"}[dialect.paramstyle]
    for start in range(0, len(values), _ASKED_AT_ONCE):
        asked = tuple(values[start : start + _ASKED_AT_ONCE])
        marks = ", ".join([mark] * len(asked))
        found = connection.exec_driver_sql(f"{text} AND {key.name} IN ({marks})", asked)
        yield from cast("Sequence[tuple[*_Columns]]", found.tuples().all())


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
