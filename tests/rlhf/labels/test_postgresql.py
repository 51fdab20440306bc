"""The labels on a real PostgreSQL server: the same answers as from SQLite, and several writers at once."""

import json
import multiprocessing
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from label_removal import erase
from sqlalchemy import func, inspect, select, text

from rlhf.labels.database import Database
from rlhf.labels.exporting.export import ExportRequest, remember, write_export
from rlhf.labels.exporting.export_rows import ExportFormat
from rlhf.labels.importing.batches import BatchWriter
from rlhf.labels.importing.imports import import_file
from rlhf.labels.records import Choice, Judgement
from rlhf.labels.store import LabelStore
from rlhf.labels.tables import ANNOTATOR, EVENT, PROJECT, TABLES, TASK
from rlhf.labels.trust.report import trust_report
from sft.core.durable import text_digest
from sft.core.errors import UsageError
from sft.core.text import user

WRITERS = 8


@pytest.fixture
def store(postgresql_url: str) -> LabelStore:
    return LabelStore(postgresql_url, create=True)


def judged(number: int, annotator: str = "ann", **given: object) -> Judgement:
    columns = {"prompt": user("p"), "response_a": "x", "response_b": "y", "choice": Choice.A, "line": number, **given}
    return Judgement(annotator=annotator, digest=text_digest(str(number)), **columns)


def answers(url: str, folder: Path, path: Path) -> dict[str, object]:
    """Return what all commands say of one file."""
    store = LabelStore(url, create=True)
    reports = [import_file(store, "p", path).as_dict() for _ in range(2)]
    with store.reading("p") as labels:
        events = [(e.id, e.judgement.choice, e.judgement.prompt) for e in labels.labels() if e.judgement]
        trust = trust_report(labels.judgements(), seed=0, resamples=100).as_dict()
    made = write_export(store, ExportRequest("p", ExportFormat.TRL), folder / url.split(":")[0])
    remember(store, made)
    erased = erase(store, "p", "ann1")
    return {
        "reports": reports,
        "events": events,
        "trust": trust,
        "export": (made.counts, made.event_ids),
        "erased": (erased.labels, erased.texts, len(erased.exports), erased.also_in),
        "afterwards": import_file(store, "p", path).as_dict(),
    }


def test_the_same_answers_from_postgresql(postgresql_url, tmp_path):
    path = tmp_path / "labels.csv"
    rows = [f"p{n // 2} Größe 🙂,x,y,{['a', 'b', 'tie'][n % 3]},ann{n % 4}" for n in range(40)]
    path.write_text("prompt,response_a,response_b,label,annotator\n" + "\n".join([*rows, rows[0], "p,x,x,a,z"]) + "\n")
    found = answers(postgresql_url, tmp_path, path)
    assert found == answers(f"sqlite:///{tmp_path / 'labels.sqlite'}", tmp_path, path)
    assert found["reports"][0]["rows_in"] == 42
    assert [report["duplicates"] for report in found["reports"]] == [1, 41]
    assert found["afterwards"]["reasons"] == {"erased annotator": 10, "identical answers": 1}


def test_the_tables_are_made_once(postgresql_url):
    with pytest.raises(UsageError, match="there are no labels in postgresql"):
        LabelStore(postgresql_url)
    for _ in range(2):
        LabelStore(postgresql_url, create=True)
    with Database(postgresql_url).read() as connection:
        assert set(inspect(connection).get_table_names()) == set(TABLES.tables)


def test_a_reader_sees_one_snapshot_and_writes_nothing(store, postgresql_url):
    with store.changing("p"):
        pass
    with Database(postgresql_url).read() as connection:
        assert connection.scalar(select(func.count()).select_from(PROJECT)) == 1
        with store.changing("q"):
            pass
        assert connection.scalar(select(func.count()).select_from(PROJECT)) == 1
        assert connection.scalar(text("SHOW transaction_read_only")) == "on"


# Several writers


def _import(url: str, path: Path, barrier: object) -> None:
    barrier.wait()
    import_file(LabelStore(url, create=True), "new", path)


def test_imports_at_once_into_a_new_project(postgresql_url, tmp_path):
    """Every file shares rows, tasks and annotators with the others; none is stored twice, none is lost."""
    paths = [tmp_path / f"{n}.jsonl" for n in range(WRITERS)]
    for number, path in enumerate(paths):
        rows = [
            {"prompt": f"p{n}", "response_a": "x", "response_b": "y", "label": "ab"[n % 2], "annotator": f"ann{n % 5}"}
            for n in range(number * 20, number * 20 + 40)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(WRITERS)
    processes = [fork.Process(target=_import, args=(postgresql_url, path, barrier)) for path in paths]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * WRITERS
    with LabelStore(postgresql_url).reading("new") as labels:
        judgements, reports = labels.judgements(), labels.reports()
        tasks, people = (labels.connection.scalar(select(func.count()).select_from(t)) for t in (TASK, ANNOTATOR))
    distinct = (WRITERS + 1) * 20
    assert sorted(int(j.prompt[0].content[1:]) for j in judgements) == list(range(distinct))
    assert (tasks, people) == (distinct, 5)
    assert sum(report["comparisons"] for report in reports) == distinct
    assert sum(report["duplicates"] for report in reports) == WRITERS * 40 - distinct


def test_writers_of_one_project_take_turns(store):
    """Each reads a count and writes what follows from it, as the queue of the page does."""

    def add(_: int) -> None:
        with store.changing("p") as (connection, project):
            seen = connection.scalar(select(func.count()).select_from(EVENT))
            time.sleep(0.002)
            BatchWriter(connection, project, file="f", format="pairwise").add([[judged(seen)]])

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(add, range(WRITERS * 5)))
    with store.reading("p") as labels:
        assert [event.judgement.line for event in labels.events()] == list(range(WRITERS * 5))


def test_an_erasure_waits_for_the_import_and_takes_its_labels_too(store, postgresql_url):
    with store.changing("p") as (connection, project):
        BatchWriter(connection, project, file="f", format="pairwise").add([[judged(1)]])
    with ThreadPoolExecutor(1) as pool:
        with store.changing("p") as (connection, project):
            erased = pool.submit(erase, store, "p", "ann")
            _wait_for_a_lock(postgresql_url, erased)
            BatchWriter(connection, project, file="g", format="pairwise").add([[judged(2)]])
        assert erased.result().labels == 2


def _wait_for_a_lock(url: str, other: Future[object]) -> None:
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    while not other.done():
        with Database(url).read() as connection:
            if connection.scalar(waiting):
                return
        time.sleep(0.01)


def test_projects_do_not_wait_for_each_other_or_count_the_others(store):
    """While one import is under way, another project gets a contradiction and a prompt in two splits."""
    with store.changing("p") as (connection, project):
        writer = BatchWriter(connection, project, file="f", format="pairwise")
        with store.changing("q") as (other_connection, other_project):
            other = BatchWriter(other_connection, other_project, file="g", format="pairwise")
            other.add([[judged(1, split="train")], [judged(2, split="test", choice=Choice.B)]])
            assert (other.contradictions(), other.leaked_prompts()) == (1, 1)
        writer.add([[judged(3, split="train")]])
        assert (writer.contradictions(), writer.leaked_prompts()) == (0, 0)
