"""Rows of the table of tasks: one order of the answers and one key, wherever a pair comes from."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar, TypeVarTuple, cast

from sqlalchemy import Column, Connection, Select, Table, func, select

from rlhf.labels.tables import TASK
from sft.core.text import Conversation, prompt_key

_ASKED_AT_ONCE = 1000
_QUOTED = json.JSONEncoder(ensure_ascii=False).encode
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
    (text_a, model_a), (text_b, model_b) = (b, a) if is_swapped(a, b) else (a, b)
    written = _written(prompt)
    # No text holds a NUL: the readers refuse it.
    task_key = _digest(f"{written}\0{text_a}\0{text_b}\0{model_a or ''}\0{model_b or ''}")
    return TaskRow(project_id, task_key, _digest(prompt_key(prompt)), written, text_a, text_b, model_a, model_b)


def task_ids(connection: Connection, project_id: int, tasks: Mapping[bytes, TaskRow]) -> dict[bytes, int]:
    """Return the ids of tasks by key, those that are new stored first."""
    last = connection.scalar(select(func.max(TASK.c.id))) or 0
    insert_rows(connection, TASK, TaskRow._fields, list(tasks.values()), known=" ON CONFLICT DO NOTHING")
    columns = (TASK.c.task_key, TASK.c.id)
    # others may have stored tasks of their projects meanwhile
    made = connection.execute(select(TASK.c.project_id, *columns).where(TASK.c.id > last)).all()
    ids = {key: number for owner, key, number in made if owner == project_id}
    older = [key for key in tasks if key not in ids]
    mine = select(*columns).where(TASK.c.project_id == project_id)
    return ids | dict(matching(connection, mine, TASK.c.task_key, older))


def insert_rows(
    connection: Connection, table: Table, columns: Sequence[str], rows: Sequence[tuple[object, ...]], known: str = ""
) -> None:
    """Insert rows; see `insert_columns`."""
    if rows:
        insert_columns(connection, table, dict(zip(columns, zip(*rows, strict=True), strict=True)), known)


def insert_columns(
    connection: Connection, table: Table, columns: Mapping[str, Sequence[object]], known: str = ""
) -> None:
    """Insert rows, given by column, as the driver takes them: with SQLAlchemy's own parameters it takes twice as long.

    A column of nulls alone is left out: SQLite's driver takes as long for a null as for a text.
    """
    filled = {name: values for name, values in columns.items() if any(value is not None for value in values)}
    if filled:
        names = ", ".join(map(connection.dialect.identifier_preparer.quote, filled))
        statement = f"INSERT INTO {table.name} ({names}) VALUES ({_marks(connection, len(filled))}){known}"
        connection.exec_driver_sql(statement, list(zip(*filled.values(), strict=True)))


def matching(
    connection: Connection, statement: Select[*_Columns], key: Column[_Key], values: Sequence[_Key]
) -> Iterator[tuple[*_Columns]]:
    """Yield the rows of a statement whose `key` is one of the values, which go to the driver as they are."""
    text = statement.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True}) if values else ""
    for start in range(0, len(values), _ASKED_AT_ONCE):
        asked = tuple(values[start : start + _ASKED_AT_ONCE])
        found = connection.exec_driver_sql(f"{text} AND {key.name} IN ({_marks(connection, len(asked))})", asked)
        yield from cast("Sequence[tuple[*_Columns]]", found.tuples().all())


def _marks(connection: Connection, count: int) -> str:
    """Return the places of so many values in a statement, as the driver writes them."""
    return ", ".join([{"qmark": "?", "format": "%s"}[connection.dialect.paramstyle]] * count)


def _written(prompt: Conversation) -> str:
    """Return `as_dicts` as JSON, written text by text: that is twice as fast."""
    turns = [f'{{"role": {_QUOTED(role)}, "content": {_QUOTED(content)}}}' for role, content in prompt]
    return f"[{', '.join(turns)}]"


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
