"""Judgements written to the database, batch by batch, inside one transaction."""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, func, select

from rlhf.labels.events import EventKind
from rlhf.labels.importing.seen import Seen
from rlhf.labels.records import Choice, Judgement
from rlhf.labels.store import Project, now, pseudonym
from rlhf.labels.tables import ANNOTATOR, EVENT, IMPORT, QUARANTINE, TASK
from rlhf.labels.task_rows import ModelAnswer, TaskRow, insert_columns, insert_rows, matching, task_ids, task_row

_KNOWN_ANNOTATORS = 50_000
_LABEL = EventKind.LABEL.value
_CHOICES = {
    False: {choice: choice.value for choice in Choice},
    True: {choice: choice.swapped().value for choice in Choice},
}
_LEFT = {False: Choice.A.value, True: Choice.B.value}


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
        self._has_repeated_pair = False
        self._newest_task: int = connection.scalar(select(func.max(TASK.c.id))) or 0
        is_first = connection.scalar(select(EVENT.c.id).where(EVENT.c.project_id == project.id).limit(1)) is None
        self._seen = Seen() if is_first else None
        self.last_event_before = connection.scalar(select(func.max(EVENT.c.id))) or 0
        values = {"project_id": project.id, "file": file, "format": format, "source": source, "licence": licence}
        begun = IMPORT.insert().values(**values, created_at=now(), report="{}").returning(IMPORT.c.id)
        self.import_id: int = connection.execute(begun).scalar_one()

    def known(self, digests: Sequence[bytes]) -> set[bytes]:
        """Return those of the rows that gave labels of this project, or were put aside in this import."""
        if self._seen is not None:
            digests = self._seen.add(digests)
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
        tasks = [_task(self._project.id, judgement) for judgement in judgements]
        ids = task_ids(self._connection, self._project.id, {task.task_key: task for task in tasks})
        self._note_pairs(len(judgements), ids)
        annotator_ids = self._annotator_ids({j.annotator for j in judgements if j.annotator is not None})
        turned = [
            (judgement.response_a, judgement.model_a) != (task.response_a, task.model_a)
            for judgement, task in zip(judgements, tasks, strict=True)
        ]
        labels: dict[str, Sequence[object]] = {
            "project_id": [self._project.id] * len(judgements),
            "task_id": [ids[task.task_key] for task in tasks],
            "annotator_id": [None if j.annotator is None else annotator_ids[j.annotator] for j in judgements],
            "import_id": [self.import_id] * len(judgements),
            "kind": [_LABEL] * len(judgements),
            "choice": [_CHOICES[is_turned][j.choice] for j, is_turned in zip(judgements, turned, strict=True)],
            "tie_kind": [None if j.tie_kind is None else j.tie_kind.value for j in judgements],
            "strength": [j.strength for j in judgements],
            "attribute": [j.attribute for j in judgements],
            "shown_left": [_LEFT[t] if j.order_known else None for j, t in zip(judgements, turned, strict=True)],
            "time": [j.time for j in judgements],
            "split": [j.split for j in judgements],
            "line": [j.line for j in judgements],
            "row_digest": [bytes.fromhex(j.digest) for j in judgements],
            "row_part": [part for row in rows for part in range(len(row))],
        }
        insert_columns(self._connection, EVENT, labels)

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
        if not self._has_repeated_pair:
            return 0
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

    def _note_pairs(self, judged: int, ids: Mapping[bytes, int]) -> None:
        """Notice where some judgements are of a pair that has others, in their batch or before it."""
        is_older = any(number <= self._newest_task for number in ids.values())
        self._has_repeated_pair = self._has_repeated_pair or is_older or len(ids) < judged
        self._newest_task = max(self._newest_task, *ids.values(), 0)

    def _of_this_import(self) -> ColumnElement[bool]:
        """Hold for the events of this import; one of another project may have come between them."""
        return and_(EVENT.c.id > self.last_event_before, EVENT.c.import_id == self.import_id)

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
