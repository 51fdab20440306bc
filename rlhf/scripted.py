"""Simulated annotators who answer tasks as people do: through the queue, one task at a time."""

import random
import time
from collections.abc import Sequence

from sqlalchemy import Connection, select

from rlhf.labels.collection.queue import Lease, Nothing, claim
from rlhf.labels.collection.study import study
from rlhf.labels.collection.submissions import Status, submit
from rlhf.labels.collection.verdicts import Answer, Verdict
from rlhf.labels.store import LabelStore, Project, pseudonym
from rlhf.labels.tables import ANNOTATOR
from rlhf.labels.task_rows import insert_rows, matching
from rlhf.simulation import Annotator

_VERDICTS = {"a": Verdict.LEFT_SLIGHTLY, "b": Verdict.RIGHT_SLIGHTLY, "tie": Verdict.TIE}


def answer_tasks(store: LabelStore, project: str, people: Sequence[Annotator], *, seed: int) -> int:
    """Let everyone in turn claim and answer tasks until the queue has none for anybody; return the answers.

    It is one transaction: all of them are stored, or none.

    Args:
        store: of labels.
        project: its name; it has a study.
        people: who answer.
        seed: of what they choose, with their names and the texts before them.
    """
    answered = 0
    with store.changing(project) as (connection, row):
        settings = study(connection, row)
        ids = _annotators(connection, row, [person.name for person in people])
        working = list(people)
        while working:
            for person in list(working):
                now = time.time()
                found = claim(connection, row, settings, ids[person.name], now)
                if isinstance(found, Nothing):
                    working.remove(person)
                    continue
                answer = Answer(_VERDICTS[_choice(person, found, seed)])
                receipt = submit(connection, row, settings, ids[person.name], found.id, found.revision, answer, now)
                assert receipt.status is Status.STORED, "nobody else answers this lease"
                answered += 1
    return answered


def _choice(person: Annotator, task: Lease, seed: int) -> str:
    request = task.prompt[-1].content
    generator = random.Random("\0".join((str(seed), person.name, request, task.left, task.right)))
    return person.judge(request, task.left, task.right, generator)


def _annotators(connection: Connection, project: Project, names: Sequence[str]) -> dict[str, int]:
    """Return the ids of persons by name, those that are new stored first."""
    keys = {pseudonym(project.pseudonym_key, name): name for name in names}
    known = select(ANNOTATOR.c.pseudonym, ANNOTATOR.c.id).where(ANNOTATOR.c.project_id == project.id)
    there = {key for key, _ in matching(connection, known, ANNOTATOR.c.pseudonym, list(keys))}
    rows = [(project.id, name, key) for key, name in keys.items() if key not in there]
    insert_rows(connection, ANNOTATOR, ("project_id", "name", "pseudonym"), rows)
    return {keys[key]: number for key, number in matching(connection, known, ANNOTATOR.c.pseudonym, list(keys))}
