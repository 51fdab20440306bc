"""Where the texts of tasks come from: source and licence of a created batch, and every model that wrote them.

A batch of tasks is a row of the imports (format `tasks`), whose report holds the ids of its tasks as ranges.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, Row, Select, exists, select

from rlhf.labels.events import EventIds, holds
from rlhf.labels.tables import EVENT, IMPORT, QUEUE, TASK

BATCH = "tasks"
"""The format of a batch among the imports."""


class Origin(NamedTuple):
    """Of texts; None: not said."""

    source: str | None
    licence: str | None

    def adds_to(self, before: "Origin") -> bool:
        """Say whether this says something that was not said before."""
        return any(new is not None and old is None for new, old in zip(self, before, strict=True))


class _Batch(NamedTuple):
    origin: Origin
    tasks: EventIds


class Origins(NamedTuple):
    """What was said of the texts of a project's tasks, oldest first."""

    batches: Sequence[_Batch]

    def of(self, task_id: int) -> Origin:
        """Return the source and the licence that were said first of a task, each by itself."""
        mine = [batch.origin for batch in self.batches if holds(batch.tasks, task_id)]
        source = next((origin.source for origin in mine if origin.source is not None), None)
        return Origin(source, next((origin.licence for origin in mine if origin.licence is not None), None))


def origins(connection: Connection, project_id: int) -> Origins:
    """Return what was said of the texts of a project's tasks."""
    columns = (IMPORT.c.source, IMPORT.c.licence, IMPORT.c.report)
    mine = (IMPORT.c.project_id == project_id, IMPORT.c.format == BATCH)
    rows = connection.execute(select(*columns).where(*mine).order_by(IMPORT.c.id))
    return Origins([_Batch(Origin(row.source, row.licence), _ranges(row.report)) for row in rows])


def _ranges(report: str) -> EventIds:
    return [(first, last) for first, last in json.loads(report).get("tasks", [])]


class Texts(NamedTuple):
    """What is compared, as the table of tasks has it, whoever wrote it."""

    prompt: str
    response_a: str
    response_b: str

    @classmethod
    def of(cls, row: Row[tuple[object, ...]]) -> "Texts":
        """Return those of a row that joins the table of tasks."""
        return cls(row.prompt, row.response_a, row.response_b)


def models_of_same_texts(connection: Connection, project_id: int) -> dict[Texts, tuple[tuple[str, str], ...]]:
    """Return the models of the tasks that nobody is asked about, since the queue has their texts by others already."""
    asked = exists().where(QUEUE.c.task_id == TASK.c.id)
    labelled = exists().where(EVENT.c.task_id == TASK.c.id)
    named = (TASK.c.model_a.is_not(None), TASK.c.model_b.is_not(None))
    columns = (TASK.c.prompt, TASK.c.response_a, TASK.c.response_b, TASK.c.model_a, TASK.c.model_b)
    mine = select(*columns).where(TASK.c.project_id == project_id, *named, ~asked, ~labelled)
    found: dict[Texts, tuple[tuple[str, str], ...]] = {}
    statement: Select[tuple[object, ...]] = mine.order_by(TASK.c.id)
    for row in connection.execute(statement):
        found[Texts.of(row)] = (*found.get(Texts.of(row), ()), (row.model_a, row.model_b))
    return found
