"""Judgements written to the database, batch by batch, inside one transaction."""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, func, select

from rlhf.labels.events import EventKind
from rlhf.labels.records import Choice, Judgement
from rlhf.labels.store import Project, now, pseudonym
from rlhf.labels.tables import ANNOTATOR, EVENT, IMPORT, QUARANTINE, TASK
from rlhf.labels.task_rows import ModelAnswer, TaskRow, insert_rows, matching, task_ids, task_row

_KNOWN_ANNOTATORS = 50_000
_LABEL = EventKind.LABEL.value
_OTHER = {choice: choice.swapped() for choice in Choice}


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
        found = {digest for (digest,) in matching(self._connection, used, EVENT.c.row_digest, digests)}
        if self._has_quarantine:
            put_aside = select(QUARANTINE.c.digest).where(QUARANTINE.c.import_id == self.import_id)
            found |= {digest for (digest,) in matching(self._connection, put_aside, QUARANTINE.c.digest, digests)}
        return found

    def erased(self, names: set[str]) -> set[str]:
        """Return those of the names whose persons were removed from the project."""
        by_pseudonym = {pseudonym(self._project.pseudonym_key, name): name for name in names - self._annotators.keys()}
        gone = select(ANNOTATOR.c.pseudonym).where(
            ANNOTATOR.c.project_id == self._project.id, ANNOTATOR.c.erased_at.is_not(None)
        )
        return {
            by_pseudonym[found]
            for (found,) in matching(self._connection, gone, ANNOTATOR.c.pseudonym, list(by_pseudonym))
        }

    def add(self, rows: Sequence[Sequence[Judgement]]) -> None:
        """Store the judgements of some rows; none of these rows is known yet."""
        judgements = [judgement for row in rows for judgement in row]
        parts = [part for row in rows for part in range(len(row))]
        tasks = [_task(self._project.id, judgement) for judgement in judgements]
        ids = task_ids(self._connection, self._project.id, {task.task_key: task for task in tasks})
        annotator_ids = self._annotator_ids({j.annotator for j in judgements if j.annotator is not None})
        labels = [
            self._label(judgement, part, task, ids[task.task_key], annotator_ids)
            for judgement, task, part in zip(judgements, tasks, parts, strict=True)
        ]
        insert_rows(self._connection, EVENT, _Label._fields, labels)

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
        touched = select(EVENT.c.task_id).where(self._of_this_import())
        by_person = (EVENT.c.task_id, EVENT.c.annotator_id, EVENT.c.attribute)
        decided = (EVENT.c.kind == EventKind.LABEL, EVENT.c.choice.in_([Choice.A, Choice.B]))
        groups = select(EVENT.c.task_id).where(*decided, EVENT.c.annotator_id.is_not(None))
        groups = groups.where(EVENT.c.task_id.in_(touched)).group_by(*by_person)
        both = groups.having(func.min(EVENT.c.choice) < func.max(EVENT.c.choice)).subquery()
        return self._connection.scalar(select(func.count()).select_from(both)) or 0

    def leaked_prompts(self) -> int:
        """Return how many prompts, but for case and spacing, stand in two or more splits of this import."""
        joined = EVENT.join(TASK, TASK.c.id == EVENT.c.task_id)
        mine = (self._of_this_import(), EVENT.c.split.is_not(None))
        groups = select(TASK.c.prompt_key).select_from(joined).where(*mine).group_by(TASK.c.prompt_key)
        both = groups.having(func.min(EVENT.c.split) < func.max(EVENT.c.split)).subquery()
        return self._connection.scalar(select(func.count()).select_from(both)) or 0

    def _of_this_import(self) -> ColumnElement[bool]:
        """Hold for the events of this import; one of another project may have come between them."""
        return and_(EVENT.c.id > self.last_event_before, EVENT.c.import_id == self.import_id)

    def _label(
        self, judgement: Judgement, part: int, task: TaskRow, task_id: int, annotator_ids: Mapping[str, int]
    ) -> _Label:
        """Return a judgement's columns, in the order of its task."""
        is_swapped = (judgement.response_a, judgement.model_a) != (task.response_a, task.model_a)
        left = Choice.B if is_swapped else Choice.A
        return _Label(
            self._project.id,
            task_id,
            None if judgement.annotator is None else annotator_ids[judgement.annotator],
            self.import_id,
            _LABEL,
            (_OTHER[judgement.choice] if is_swapped else judgement.choice).value,
            None if judgement.tie_kind is None else judgement.tie_kind.value,
            judgement.strength,
            judgement.attribute,
            left.value if judgement.order_known else None,
            judgement.time,
            judgement.split,
            judgement.line,
            bytes.fromhex(judgement.digest),
            part,
        )

    def _annotator_ids(self, names: set[str]) -> dict[str, int]:
        if len(self._annotators) > _KNOWN_ANNOTATORS:
            self._annotators.clear()
        new = {pseudonym(self._project.pseudonym_key, name): name for name in names - self._annotators.keys()}
        if new:
            self._find_annotators(new)
            rows = [(self._project.id, name, key) for key, name in new.items() if name not in self._annotators]
            insert_rows(self._connection, ANNOTATOR, ("project_id", "name", "pseudonym"), rows)
            self._find_annotators(new if rows else {})
        return self._annotators

    def _find_annotators(self, by_pseudonym: dict[str, str]) -> None:
        mine = select(ANNOTATOR.c.pseudonym, ANNOTATOR.c.id).where(ANNOTATOR.c.project_id == self._project.id)
        for found, number in matching(self._connection, mine, ANNOTATOR.c.pseudonym, list(by_pseudonym)):
            self._annotators[by_pseudonym[found]] = number


def _task(project_id: int, judgement: Judgement) -> TaskRow:
    first = ModelAnswer(judgement.response_a, judgement.model_a)
    return task_row(project_id, judgement.prompt, first, ModelAnswer(judgement.response_b, judgement.model_b))
