"""Projects with tasks to label and people who label them, as the tests of study, queue and submissions want them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import NamedTuple

from sqlalchemy import Connection, select

from rlhf.labels.collection.queue import Lease, Nothing, Purpose, claim, lease
from rlhf.labels.collection.study import Study, set_study
from rlhf.labels.collection.submissions import Receipt, submit
from rlhf.labels.collection.verdicts import Answer, Side, Verdict
from rlhf.labels.records import Choice
from rlhf.labels.store import LabelStore, Project, pseudonym
from rlhf.labels.tables import ACCOUNT, ANNOTATOR, QUEUE
from rlhf.labels.task_rows import ModelAnswer, task_ids, task_row
from sft.core.text import user

PROJECT = "p"
PLAIN = Study(overlap=1, gold_share=0.0, probe_share=0.0)
"""Labels alone, one a task."""
LEFT = Answer(Verdict.LEFT_CLEARLY)
SKIP = Answer(None, reason="cannot tell")
_NUMBERS = count(1)


class Desk(NamedTuple):
    """One open transaction of the project."""

    connection: Connection
    project: Project
    study: Study

    def claim(self, person: int, now: float = 0.0) -> Lease | Nothing:
        return claim(self.connection, self.project, self.study, person, now)

    def take(self, person: int, now: float = 0.0) -> Lease:
        found = self.claim(person, now)
        assert isinstance(found, Lease), found
        return found

    def take_known(self, lease_id: int, person: int) -> Lease:
        found = lease(self.connection, person, lease_id)
        assert found is not None
        return found

    def submit(self, held: Lease, answer: Answer = LEFT, now: float = 1.0, revision: int | None = None) -> Receipt:
        shown = held.revision if revision is None else revision
        return submit(self.connection, self.project, self.study, held.annotator_id, held.id, shown, answer, now)

    def label(self, person: int, answer: Answer = LEFT, now: float = 0.0) -> Lease:
        held = self.take(person, now)
        self.submit(held, answer, now)
        return held


@contextmanager
def desk(store: LabelStore, settings: Study = PLAIN) -> Iterator[Desk]:
    with store.changing(PROJECT) as (connection, project):
        yield Desk(connection, project, settings)


def fill(
    store: LabelStore,
    labels: int = 0,
    *,
    gold: Sequence[Choice] = (),
    qualification: Sequence[Choice] = (),
    settings: Study = PLAIN,
) -> list[int]:
    """Queue tasks, qualification first, then gold, then labels; return their ids in this order."""
    wanted = [
        *((Purpose.QUALIFICATION, choice) for choice in qualification),
        *((Purpose.GOLD, choice) for choice in gold),
        *((Purpose.LABEL, None) for _ in range(labels)),
    ]
    with desk(store, settings) as (connection, project, _):
        set_study(connection, project, settings)
        texts = [f"task {next(_NUMBERS)}" for _ in wanted]
        rows = [task_row(project.id, user(t), *(ModelAnswer(f"{t} {side}", None) for side in "xy")) for t in texts]
        known = task_ids(connection, project.id, {row.task_key: row for row in rows})
        ids = [known[row.task_key] for row in rows]
        start = len(connection.scalars(select(QUEUE.c.task_id)).all())
        queued = [
            {
                **{"task_id": task_id, "project_id": project.id, "purpose": purpose.value, "position": start + place},
                **{"overlap": settings.overlap, "taken": 0, "gold_choice": choice},
            }
            for place, (task_id, (purpose, choice)) in enumerate(zip(ids, wanted, strict=True))
        ]
        if queued:
            connection.execute(QUEUE.insert(), queued)
    return ids


def person(store: LabelStore, name: str) -> int:
    """Add an annotator with an account."""
    with desk(store) as (connection, project, _):
        row = {"project_id": project.id, "name": name, "pseudonym": pseudonym(project.pseudonym_key, name)}
        annotator_id: int = connection.execute(ANNOTATOR.insert().values(row).returning(ANNOTATOR.c.id)).scalar_one()
        login = {"role": "annotator", "password_hash": "", "created_at": "now"}
        account = {"project_id": project.id, "annotator_id": annotator_id, "name": name, **login}
        connection.execute(ACCOUNT.insert().values(account))
    return annotator_id


def pause(now_open: Desk, annotator_id: int, why: str = "tired") -> None:
    """As an owner does."""
    mine = ACCOUNT.update().where(ACCOUNT.c.annotator_id == annotator_id)
    now_open.connection.execute(mine.values(paused_at=1.0, paused_reason=why))


def resume(now_open: Desk, annotator_id: int) -> None:
    """As an owner does."""
    mine = ACCOUNT.update().where(ACCOUNT.c.annotator_id == annotator_id)
    now_open.connection.execute(mine.values(paused_at=None, paused_reason=None))


def chooses(held: Lease, choice: Choice) -> Answer:
    """Return the answer that stands for a choice in the task's own order."""
    if choice is Choice.TIE:
        return Answer(Verdict.TIE)
    return Answer(Verdict.LEFT_CLEARLY if choice is held.shown_left else Verdict.RIGHT_CLEARLY)


def side_of(verdict: Verdict) -> Side:
    """Return the side that a verdict prefers, from its name."""
    known = {"left": Side.LEFT, "right": Side.RIGHT}
    return known.get(verdict.value.split("_")[0], Side.EQUAL)
