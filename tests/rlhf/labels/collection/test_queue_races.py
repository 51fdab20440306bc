"""Many annotators at once, in threads and in processes, and processes that die at any moment."""

import json
import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from queued import LEFT, PLAIN, PROJECT, desk, fill, person
from sqlalchemy import select

from rlhf.labels.collection.queue import HOLDING, Lease, Purpose
from rlhf.labels.collection.study import Study
from rlhf.labels.collection.submissions import Receipt, Status
from rlhf.labels.events import EventKind
from rlhf.labels.store import LabelStore
from rlhf.labels.tables import EVENT, LEASE, QUEUE

FORK = multiprocessing.get_context("fork")
PEOPLE, TASKS = 16, 24
ROUNDS = 2


@pytest.fixture
def store(any_url: str) -> LabelStore:
    return LabelStore(any_url, create=True)


def settings(overlap: int) -> Study:
    return Study(**{**vars(PLAIN), "overlap": overlap})


def work(url: str, annotator_id: int, study: Study) -> list[int]:
    """Claim and submit until nothing is left, every step in a transaction of its own; return the tasks."""
    store, tasks = LabelStore(url), []
    while True:
        with desk(store, study) as now_open:
            held = now_open.claim(annotator_id)
        if not isinstance(held, Lease):
            return tasks
        with desk(store, study) as now_open:
            assert now_open.submit(held) == Receipt(Status.STORED, 1)
        tasks.append(held.task_id)


def check(store: LabelStore, overlap: int) -> Counter[int]:
    """Return how many labels each task has; every counter is that of the leases and within the overlap."""
    with store.reading(PROJECT) as labels:
        leases = labels.connection.execute(select(LEASE.c.task_id, LEASE.c.state, LEASE.c.revision, LEASE.c.id)).all()
        queue = labels.connection.execute(select(QUEUE.c.task_id, QUEUE.c.taken)).all()
        events = labels.connection.execute(select(EVENT.c.lease_id, EVENT.c.kind)).all()
        current = Counter(event.task_id for event in labels.labels())
    held = Counter(row.task_id for row in leases if row.state in HOLDING)
    assert {row.task_id: row.taken for row in queue if row.taken} == dict(held)
    assert max(held.values(), default=0) <= overlap
    assert Counter(event.lease_id for event in events) == Counter(
        {row.id: row.revision for row in leases if row.revision}
    )
    assert {event.kind for event in events} <= {EventKind.LABEL}
    return current


@pytest.mark.parametrize("overlap", [1, 2])
def test_sixteen_threads_label_every_task_as_often_as_wanted(store, any_url, overlap):
    study = settings(overlap)
    ids = fill(store, TASKS, settings=study)
    people = [person(store, f"ann{n}") for n in range(PEOPLE)]
    with ThreadPoolExecutor(PEOPLE) as pool:
        done = list(pool.map(lambda who: work(any_url, who, study), people))
    assert all(len(set(tasks)) == len(tasks) for tasks in done)
    assert Counter(task for tasks in done for task in tasks) == dict.fromkeys(ids, overlap)
    assert check(store, overlap) == dict.fromkeys(ids, overlap)


def test_four_processes_label_every_task_as_often_as_wanted(store, any_url):
    study = settings(2)
    ids = fill(store, TASKS, settings=study)
    people = [person(store, f"ann{n}") for n in range(4)]
    processes = [FORK.Process(target=work, args=(any_url, who, study)) for who in people]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert check(store, 2) == dict.fromkeys(ids, 2)


def test_one_task_for_eight_people_at_once_has_one_place(store, any_url):
    """F19: and two tabs of one person are the same lease."""
    fill(store, 1)
    people = [person(store, f"ann{n}") for n in range(4)]

    def ask(who: int) -> int | None:
        with desk(LabelStore(any_url)) as now_open:
            found = now_open.claim(who)
        return found.id if isinstance(found, Lease) else None

    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(ask, people * 2))
    assert len({lease for lease in given if lease is not None}) == 1
    assert sum(lease is not None for lease in given) == 2


def test_the_same_answer_from_eight_tabs_is_stored_once(store, any_url):
    fill(store, 1)
    ann = person(store, "ann")
    with desk(store) as now_open:
        held = now_open.take(ann)

    def send(number: int) -> Receipt:
        with desk(LabelStore(any_url)) as now_open:
            return now_open.submit(held, now=float(number))

    with ThreadPoolExecutor(8) as pool:
        receipts = Counter(pool.map(send, range(8)))
    assert receipts == {Receipt(Status.STORED, 1): 1, Receipt(Status.REPEATED, 1): 7}
    assert check(store, 1) == {held.task_id: 1}


# Death


def work_and_tell(url: str, annotator_id: int, study: Study, path: Path) -> None:
    """Label, edit and label on; what was acknowledged is on the disk before the next step."""
    store = LabelStore(url)
    with path.open("ab", buffering=0) as told:
        while True:
            with desk(store, study) as now_open:
                held = now_open.claim(annotator_id)
            if not isinstance(held, Lease):
                return
            for revision in range(held.revision, held.revision + 2):
                with desk(store, study) as now_open:
                    receipt = now_open.submit(held, LEFT, revision=revision)
                line = {"lease": held.id, "revision": receipt.revision, "status": receipt.status}
                told.write(json.dumps(line).encode() + b"\n")
                os.fsync(told.fileno())


def wait_for_growth(path: Path, size: int) -> None:
    """Wait until a process has told so many bytes more than it had at the start of the wait."""
    wanted = path.stat().st_size + size if path.exists() else size
    until = time.monotonic() + 60
    while not path.exists() or path.stat().st_size < wanted:
        assert time.monotonic() < until, f"{path} does not grow: its process is stuck or dead"
        time.sleep(0.002)


def test_no_kill_loses_or_doubles_an_answer(store, any_url, tmp_path):
    """F5, F18: four people, every process killed at a random moment; the next one goes on where it was."""
    chance = random.Random(5)
    study = settings(2)
    fill(store, 400, settings=study)
    people = [person(store, f"ann{n}") for n in range(4)]
    told = [tmp_path / f"{who}.jsonl" for who in people]
    for _ in range(ROUNDS):
        processes = [
            FORK.Process(target=work_and_tell, args=(any_url, who, study, path))
            for who, path in zip(people, told, strict=True)
        ]
        for process in processes:
            process.start()
        for process, path in zip(processes, told, strict=True):
            wait_for_growth(path, chance.randrange(1, 150))
            time.sleep(chance.uniform(0, 0.03))
            os.kill(process.pid, signal.SIGKILL)
        for process in processes:
            process.join()
            assert process.exitcode == -signal.SIGKILL
    lines = [json.loads(line) for path in told for line in path.read_bytes().split(b"\n") if line.endswith(b"}")]
    assert len(lines) >= 4 * ROUNDS
    assert {line["status"] for line in lines} == {"stored"}
    acknowledged = Counter((line["lease"], line["revision"]) for line in lines)
    assert set(acknowledged.values()) == {1}
    check(store, 2)
    with store.reading(PROJECT) as labels:
        rows = labels.connection.execute(select(LEASE.c.id, LEASE.c.revision, LEASE.c.purpose)).all()
        assert {row.purpose for row in rows} == {Purpose.LABEL}
    revisions = {row.id: row.revision for row in rows}
    assert all(revisions[lease] >= revision for lease, revision in acknowledged)
    unheard = sum(revisions.values()) - len(lines)
    assert 0 <= unheard <= 4 * ROUNDS, "at most one answer a death was stored and not heard of"
