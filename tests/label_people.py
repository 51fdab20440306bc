"""Simulated annotators who work through the label page's own functions: claim, wait, submit."""

import random
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from rlhf.labels.collection.queue import Lease, Purpose, claim
from rlhf.labels.collection.study import Study, set_study
from rlhf.labels.collection.submissions import Status, submit
from rlhf.labels.collection.tasks import Pair, enqueue
from rlhf.labels.collection.verdicts import Answer, Verdict
from rlhf.labels.records import Choice
from rlhf.labels.store import LabelStore, Project, now, pseudonym
from rlhf.labels.tables import ACCOUNT, ANNOTATOR, LEASE
from sft.core.text import user

GOOD = "good"
"""What the better answer of every pair starts with, unless the pair comes from elsewhere."""
START = 1_700_000_000.0


class Worker(NamedTuple):
    """How somebody works."""

    name: str
    skill: float = 0.9
    """Chance of preferring the better answer, where they look at all."""
    later_skill: float | None = None
    """From `turning_point` tasks on; None: as before."""
    left: float = 0.0
    """Share of tasks in which they take the left answer without looking."""
    tie: float = 0.0
    skip: float = 0.0
    flag: float = 0.0
    seconds: float = 40.0
    """Median time for a task."""
    turning_point: int = 30


def pairs(number: int, *, prefix: str = "", gold: bool = False, words: int = 30) -> list[Pair]:
    """Return pairs of a good answer (a) of so many words and a bad one, which is shorter and longer in turn."""
    text = " ".join(["word"] * (words - 2))
    made = []
    for n in range(number):
        answers = (f"{GOOD} {prefix}{n} {text}", f"bad {prefix}{n} {text}" + (" word" if n % 2 else ""))
        made.append(Pair(user(f"{prefix}{n}"), *answers, gold=Choice.A if gold else None))
    return made


def open_study(store: LabelStore, project: str, settings: Study, **tasks: Sequence[Pair]) -> None:
    """Make a project whose queue has the pairs of each purpose: label, gold, qualification."""
    with store.changing(project) as (connection, row):
        set_study(connection, row, settings)
        for purpose, made in tasks.items():
            enqueue(connection, row, made, purpose=Purpose(purpose), overlap=settings.overlap, seed=0)


def hire(connection: Connection, project: Project, name: str) -> int:
    """Return the id of a new annotator with an account."""
    known = {"project_id": project.id, "name": name}
    fake = pseudonym(project.pseudonym_key, name)
    made = ANNOTATOR.insert().values(**known, pseudonym=fake).returning(ANNOTATOR.c.id)
    number: int = connection.execute(made).scalar_one()
    account = {**known, "annotator_id": number, "role": "annotator", "password_hash": "-", "created_at": now()}
    connection.execute(ACCOUNT.insert().values(**account))
    return number


def give(connection: Connection, project: Project, settings: Study, held: Lease, answer: Answer, time: float) -> None:
    """Submit an answer to the newest revision of a task."""
    receipt = submit(connection, project, settings, held.annotator_id, held.id, held.revision, answer, time)
    assert receipt.status is Status.STORED


def work(
    store: LabelStore,
    project: str,
    settings: Study,
    workers: Sequence[Worker],
    *,
    answers: int,
    seed: int,
    start: float = START,
    break_seconds: float = 5.0,
    better: frozenset[str] = frozenset(),
) -> float:
    """Let everybody work in turn until so many answers are given or nobody gets a task; return the time at the end.

    Args:
        store: with the project.
        project: that has tasks.
        settings: of the project.
        workers: new ones are hired, known ones go on.
        answers: at most.
        seed: of what they do.
        start: seconds since 1970.
        break_seconds: mean time between two answers of the project.
        better: texts of the better answers; empty: those that start with "good".
    """
    chance, time, given = random.Random(seed), start, 0
    with store.changing(project) as (connection, row):
        known = dict(connection.execute(select(ANNOTATOR.c.name, ANNOTATOR.c.id)).tuples().all())
        ids = {worker.name: known.get(worker.name) or hire(connection, row, worker.name) for worker in workers}
        given_before = select(LEASE.c.annotator_id, func.count()).group_by(LEASE.c.annotator_id)
        before = dict(connection.execute(given_before).tuples().all())
        done = {name: before.get(number, 0) for name, number in ids.items()}
        waiting = list(workers)
        while waiting and given < answers:
            worker = chance.choice(waiting)
            time += chance.expovariate(1 / break_seconds)
            seconds = worker.seconds * chance.lognormvariate(0, 0.4)
            held = claim(connection, row, settings, ids[worker.name], time - seconds)
            if not isinstance(held, Lease):
                waiting.remove(worker)
                continue
            is_better = held.left in better if better else held.left.startswith(GOOD)
            answer = decide(worker, is_better, done[worker.name], chance)
            give(connection, row, settings, held, answer, time)
            done[worker.name] += 1
            given += 1
    return time


def decide(worker: Worker, left_is_better: bool, done: int, chance: random.Random) -> Answer:
    """Return what somebody says about a pair after so many tasks."""
    flag = "broken" if chance.random() < worker.flag else ""
    if chance.random() < worker.skip:
        return Answer(None, reason=chance.choice(["unclear prompt", "outside my field"]), flag=flag)
    if chance.random() < worker.tie:
        return Answer(chance.choice([Verdict.TIE, Verdict.BOTH_BAD]), flag=flag)
    changed = worker.later_skill is not None and done >= worker.turning_point
    skill = worker.later_skill if changed and worker.later_skill is not None else worker.skill
    left = left_is_better == (chance.random() < skill) or chance.random() < worker.left
    sure = chance.random() < 0.5
    if left:
        return Answer(Verdict.LEFT_CLEARLY if sure else Verdict.LEFT_SLIGHTLY, flag=flag)
    return Answer(Verdict.RIGHT_CLEARLY if sure else Verdict.RIGHT_SLIGHTLY, flag=flag)
