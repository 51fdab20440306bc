"""Judgements written to the database, batch by batch, inside one transaction."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar, TypeVarTuple, cast

from sqlalchemy import Column, Connection, Select, Table, func, select

from rlhf.labels.database import ANNOTATOR, EVENT, IMPORT, QUARANTINE, TASK
from rlhf.labels.records import Choice, Judgement
from rlhf.labels.store import EventKind, Project, now, pseudonym
from sft.core.text import as_dicts, prompt_key

_KNOWN_ANNOTATORS = 50_000
_ASKED_AT_ONCE = 1000
_OTHER = {choice: choice.swapped() for choice in Choice}
_ENCODER = json.JSONEncoder(ensure_ascii=False)
_Columns = TypeVarTuple("_Columns")
_Key = TypeVar("_Key", bytes, str)


class _Task(NamedTuple):
    """The columns of a task, in the table's order."""

    project_id: int
    task_key: bytes
    prompt_key: bytes
    prompt: str
    response_a: str
    response_b: str
    model_a: str | None
    model_b: str | None


class _Label(NamedTuple):
    """The columns of an imported label, in the table's order."""

    project_id: int
    task_id: int
    annotator_id: int | None
    import_id: int
    kind: str
    choice: str
    tie_kind: str | None
    strength: float | None
    attribute: str | None
    shown_left: str | None
    time: float | None
    split: str | None
    line: int
    row_digest: bytes
    row_part: int


class Quarantined(NamedTuple):
    """A row that was not used; `digest` is None where the row could not be read."""

    line: int
    kind: str
    digest: bytes | None


class BatchWriter:
    """Writes the rows of one import."""

    def __init__(
        self,
        connection: Connection,
        project: Project,
        *,
        file: str,
        format: str,
        source: str | None = None,
        licence: str | None = None,
    ) -> None:
        """Begin an import.

        Args:
            connection: in the transaction that the whole import is.
            project: that the labels go to.
            file: name of the file, without its folders.
            format: of the rows.
            source: where the file comes from; None: not said.
            licence: of the file; None: not said.
        """
        self._connection = connection
        self._project = project
        self._annotators: dict[str, int] = {}
        self._has_quarantine = False
        self.last_event_before = connection.scalar(select(func.max(EVENT.c.id))) or 0
        values = {"project_id": project.id, "file": file, "format": format, "source": source, "licence": licence}
        begun = IMPORT.insert().values(**values, created_at=now(), report="{}").returning(IMPORT.c.id)
        self.import_id: int = connection.execute(begun).scalar_one()

    def known(self, digests: Sequence[bytes]) -> set[bytes]:
        """Return those of the rows that gave labels of this project, or were put aside in this import."""
        used = select(EVENT.c.row_digest).where(EVENT.c.project_id == self._project.id)
        found = {digest for (digest,) in self._matching(used, EVENT.c.row_digest, digests)}
        if self._has_quarantine:
            put_aside = select(QUARANTINE.c.digest).where(QUARANTINE.c.import_id == self.import_id)
            found |= {digest for (digest,) in self._matching(put_aside, QUARANTINE.c.digest, digests)}
        return found

    def erased(self, names: set[str]) -> set[str]:
        """Return those of the names whose persons were removed from the project."""
        by_pseudonym = {pseudonym(self._project.pseudonym_key, name): name for name in names - self._annotators.keys()}
        gone = select(ANNOTATOR.c.pseudonym).where(
            ANNOTATOR.c.project_id == self._project.id, ANNOTATOR.c.erased_at.is_not(None)
        )
        return {by_pseudonym[found] for (found,) in self._matching(gone, ANNOTATOR.c.pseudonym, list(by_pseudonym))}

    def add(self, rows: Sequence[Sequence[Judgement]]) -> None:
        """Store the judgements of some rows; none of these rows is known yet."""
        judgements = [judgement for row in rows for judgement in row]
        parts = [part for row in rows for part in range(len(row))]
        tasks = [_task(self._project.id, judgement) for judgement in judgements]
        task_ids = self._task_ids({task.task_key: task for task in tasks})
        annotator_ids = self._annotator_ids({j.annotator for j in judgements if j.annotator is not None})
        labels = [
            self._label(judgement, part, task_ids[task.task_key], annotator_ids)
            for judgement, task, part in zip(judgements, tasks, parts, strict=True)
        ]
        self._insert(EVENT, _Label._fields, labels)

    def quarantine(self, rows: Sequence[Quarantined]) -> None:
        """Remember where rows stood that were not used."""
        if rows:
            self._has_quarantine = True
            self._connection.execute(QUARANTINE.insert(), [{"import_id": self.import_id, **r._asdict()} for r in rows])

    def finish(self, report: Mapping[str, object]) -> None:
        """Store the report of the import."""
        text = json.dumps(report, ensure_ascii=False, allow_nan=False)
        self._connection.execute(IMPORT.update().where(IMPORT.c.id == self.import_id).values(report=text))

    def annotators(self) -> int:
        """Return how many annotators the project knows by name."""
        mine = (ANNOTATOR.c.project_id == self._project.id, ANNOTATOR.c.erased_at.is_(None))
        return self._connection.scalar(select(func.count()).select_from(ANNOTATOR).where(*mine)) or 0

    def contradictions(self) -> int:
        """Return how often one annotator of the project preferred each answer of a pair of this import."""
        touched = select(EVENT.c.task_id).where(EVENT.c.id > self.last_event_before)
        by_person = (EVENT.c.task_id, EVENT.c.annotator_id, EVENT.c.attribute)
        decided = (EVENT.c.kind == EventKind.LABEL, EVENT.c.choice.in_([Choice.A, Choice.B]))
        groups = select(EVENT.c.task_id).where(*decided, EVENT.c.annotator_id.is_not(None))
        groups = groups.where(EVENT.c.task_id.in_(touched)).group_by(*by_person)
        both = groups.having(func.min(EVENT.c.choice) < func.max(EVENT.c.choice)).subquery()
        return self._connection.scalar(select(func.count()).select_from(both)) or 0

    def leaked_prompts(self) -> int:
        """Return how many prompts, but for case and spacing, stand in two or more splits of this import."""
        joined = EVENT.join(TASK, TASK.c.id == EVENT.c.task_id)
        mine = (EVENT.c.id > self.last_event_before, EVENT.c.split.is_not(None))
        groups = select(TASK.c.prompt_key).select_from(joined).where(*mine).group_by(TASK.c.prompt_key)
        both = groups.having(func.min(EVENT.c.split) < func.max(EVENT.c.split)).subquery()
        return self._connection.scalar(select(func.count()).select_from(both)) or 0

    def _label(self, judgement: Judgement, part: int, task_id: int, annotator_ids: Mapping[str, int]) -> _Label:
        """Return a judgement's columns, in the order of its task."""
        is_swapped = _is_swapped(judgement)
        left = Choice.B if is_swapped else Choice.A
        return _Label(
            project_id=self._project.id,
            task_id=task_id,
            annotator_id=None if judgement.annotator is None else annotator_ids[judgement.annotator],
            import_id=self.import_id,
            kind=EventKind.LABEL.value,
            choice=(_OTHER[judgement.choice] if is_swapped else judgement.choice).value,
            tie_kind=None if judgement.tie_kind is None else judgement.tie_kind.value,
            strength=judgement.strength,
            attribute=judgement.attribute,
            shown_left=left.value if judgement.order_known else None,
            time=judgement.time,
            split=judgement.split,
            line=judgement.line,
            row_digest=bytes.fromhex(judgement.digest),
            row_part=part,
        )

    def _task_ids(self, tasks: Mapping[bytes, _Task]) -> dict[bytes, int]:
        self._insert(TASK, _Task._fields, list(tasks.values()), known=" ON CONFLICT DO NOTHING")
        mine = select(TASK.c.task_key, TASK.c.id).where(TASK.c.project_id == self._project.id)
        return dict(self._matching(mine, TASK.c.task_key, list(tasks)))

    def _annotator_ids(self, names: set[str]) -> dict[str, int]:
        if len(self._annotators) > _KNOWN_ANNOTATORS:
            self._annotators.clear()
        new = {pseudonym(self._project.pseudonym_key, name): name for name in names - self._annotators.keys()}
        if new:
            self._find_annotators(new)
            rows = [(self._project.id, name, key) for key, name in new.items() if name not in self._annotators]
            self._insert(ANNOTATOR, ("project_id", "name", "pseudonym"), rows)
            self._find_annotators(new if rows else {})
        return self._annotators

    def _find_annotators(self, by_pseudonym: dict[str, str]) -> None:
        mine = select(ANNOTATOR.c.pseudonym, ANNOTATOR.c.id).where(ANNOTATOR.c.project_id == self._project.id)
        for found, number in self._matching(mine, ANNOTATOR.c.pseudonym, list(by_pseudonym)):
            self._annotators[by_pseudonym[found]] = number

    def _insert(
        self, table: Table, columns: Sequence[str], rows: Sequence[tuple[object, ...]], known: str = ""
    ) -> None:
        """Insert rows as the driver takes them: with SQLAlchemy's own parameters it takes twice as long."""
        if rows:
            statement = table.insert().inline().compile(dialect=self._connection.dialect, column_keys=columns)
            self._connection.exec_driver_sql(f"{statement}{known}", list(rows))

    def _matching(
        self, statement: Select[*_Columns], key: Column[_Key], values: Sequence[_Key]
    ) -> Iterator[tuple[*_Columns]]:
        """Yield the rows of a statement whose `key` is one of the values, which go to the driver as they are."""
        dialect = self._connection.dialect
        text = statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True})
        mark = {"qmark": "?", "format": "%s"}[dialect.paramstyle]
        for start in range(0, len(values), _ASKED_AT_ONCE):
            asked = tuple(values[start : start + _ASKED_AT_ONCE])
            marks = ", ".join([mark] * len(asked))
            found = self._connection.exec_driver_sql(f"{text} AND {key.name} IN ({marks})", asked)
            yield from cast("Sequence[tuple[*_Columns]]", found.tuples().all())


def _is_swapped(judgement: Judgement) -> bool:
    """Say whether the task has the two answers the other way round: its order is that of their texts."""
    if judgement.response_a == judgement.response_b:
        return (judgement.model_a or "") > (judgement.model_b or "")
    return judgement.response_a > judgement.response_b


def _task(project_id: int, judgement: Judgement) -> _Task:
    a, b = (judgement.response_a, judgement.model_a), (judgement.response_b, judgement.model_b)
    (response_a, model_a), (response_b, model_b) = (b, a) if _is_swapped(judgement) else (a, b)
    prompt = _ENCODER.encode(as_dicts(judgement.prompt))
    return _Task(
        project_id=project_id,
        # No text holds a NUL: the readers refuse it.
        task_key=_digest("\0".join((prompt, response_a, response_b, model_a or "", model_b or ""))),
        prompt_key=_digest(prompt_key(judgement.prompt)),
        prompt=prompt,
        response_a=response_a,
        response_b=response_b,
        model_a=model_a,
        model_b=model_b,
    )


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
