"""Older databases of labels become the present ones: nothing is lost, all or nothing, on SQLite and PostgreSQL.

`version_1.sql` is a database that version 1 of this program filled (imports in two projects, an edited label, two
exports, an erasure between them) as `sqlite3.Connection.iterdump` wrote it.
"""

import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from label_removal import erase
from sqlalchemy import Connection, Engine, MetaData, Table, event, inspect, select, text

from rlhf.labels.database import SCHEMA_VERSION, Database
from rlhf.labels.exporting.export import ExportRequest, write_export
from rlhf.labels.exporting.export_rows import ExportFormat
from rlhf.labels.importing.imports import import_file
from rlhf.labels.migrations import _STEPS, upgrade
from rlhf.labels.store import LabelStore
from rlhf.labels.tables import SCHEMA, TABLES
from sft.core.errors import DataError, StorageError, UsageError

DUMP = (Path(__file__).parent / "version_1.sql").read_text()
OLD_TABLES = ("project", "task", "annotator", "import_report", "quarantined_row", "label_event", "label_export")
"""Each after the ones that it refers to."""


def restore(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.executescript(DUMP)
    connection.close()


def make_old(url: str, folder: Path) -> None:
    """Make a version 1 database in an empty one: the dump itself, or the same rows on PostgreSQL."""
    if url.startswith("sqlite"):
        restore(folder / "labels.sqlite")
        return
    restore(folder / "copied.sqlite")
    with Database(f"sqlite:///{folder / 'copied.sqlite'}").read() as old, Database(url).write() as new:
        upgrade(new, 0, 1)
        for name, rows in tables_in(old).items():
            new.execute(reflected(new, name).insert(), rows)
            new.execute(text(f"SELECT setval('{name}_id_seq', (SELECT max(id) FROM {name}))"))


@pytest.fixture
def old_url(any_url: str, tmp_path: Path) -> str:
    make_old(any_url, tmp_path)
    return any_url


def reflected(connection: Connection, name: str) -> Table:
    return Table(name, MetaData(), autoload_with=connection)


def tables_in(connection: Connection) -> dict[str, list[dict[str, object]]]:
    """Return every row of every table of version 1."""
    found = {name: connection.execute(text(f"SELECT * FROM {name} ORDER BY id")).mappings() for name in OLD_TABLES}
    return {name: [dict(row) for row in rows] for name, rows in found.items()}


def schema(connection: Connection) -> dict[str, object]:
    """Return all that the database says of its tables but for the order in which columns were added."""
    seen = inspect(connection)
    return {
        name: {
            "columns": {c["name"]: (str(c["type"]), c["nullable"], c["default"]) for c in seen.get_columns(name)},
            "key": seen.get_pk_constraint(name)["constrained_columns"],
            "foreign": sorted((f["constrained_columns"], f["referred_table"]) for f in seen.get_foreign_keys(name)),
            "unique": sorted(u["column_names"] for u in seen.get_unique_constraints(name)),
            "indexes": sorted(_index(index) for index in seen.get_indexes(name)),
            "never_again": _never_uses_an_id_again(connection, name),
        }
        for name in seen.get_table_names()
    }


def _never_uses_an_id_again(connection: Connection, name: str) -> bool:
    if connection.dialect.name != "sqlite":
        return True
    made = connection.scalar(text("SELECT sql FROM sqlite_master WHERE name = :name"), {"name": name})
    return "AUTOINCREMENT" in made


def _index(found: Mapping[str, Any]) -> tuple[object, ...]:
    options = found.get("dialect_options", {})
    return found["name"], found["column_names"], found["unique"], {name: str(value) for name, value in options.items()}


def test_the_version_is_the_number_of_steps():
    assert len(_STEPS) == SCHEMA_VERSION


def test_nothing_of_an_old_database_is_lost(old_url, capsys):
    with Database(old_url).read() as connection:
        before = tables_in(connection)
    assert [len(before[name]) for name in OLD_TABLES] == [2, 4, 4, 2, 1, 8, 2]
    LabelStore(old_url, create=True)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.endswith("upgraded from schema version 1 to 2\n")
    with Database(old_url).read() as connection:
        after = tables_in(connection)
        version = connection.scalars(select(SCHEMA.c.version)).all()
    assert version == [SCHEMA_VERSION]
    kept = {name: [{column: row[column] for column in before[name][0]} for row in after[name]] for name in OLD_TABLES}
    assert kept == before
    assert [row["lease_id"] for row in after["label_event"]] == [None] * 8
    LabelStore(old_url, create=True)
    assert capsys.readouterr().err == ""


def test_old_labels_exports_and_erasures_are_used_as_before(old_url, tmp_path):
    store = LabelStore(old_url, create=True)
    with store.reading("rice") as labels:
        held = [(j.prompt[0].content[-2:], j.choice.value, j.annotator) for j in labels.judgements()]
        assert labels.reports()[0]["comparisons"] == 10
        (first, second) = (exported["digest"] for exported in exports(labels.connection))
    assert len(held) == 6
    assert held[-1] == ("0?", "tie", "Ada")
    assert not {name for _, _, name in held} - {"Ada", "Grace"}
    request = ExportRequest("rice", ExportFormat.TRL)
    whole = write_export(store, request._replace(rebuild=second), tmp_path / "whole")
    assert whole.counts["labels"] == 6
    with pytest.raises(DataError, match="3 of 9 labels of this export have been erased"):
        write_export(store, request._replace(rebuild=first), tmp_path / "not")
    path = tmp_path / "again.csv"
    path.write_text("prompt,response_a,response_b,label,annotator\nnew,x,y,a,Edsger\nnew,x,y,b,Grace\n")
    report = import_file(store, "rice", path)
    assert (report.comparisons, report.reasons, report.annotators) == (1, {"erased annotator": 1}, 2)
    assert erase(store, "rice", "Grace").exports == [first, second]


def exports(connection: Connection) -> list[dict[str, object]]:
    return tables_in(connection)["label_export"]


def test_only_making_or_asking_upgrades(old_url):
    for _ in range(2):
        with pytest.raises(StorageError, match=r"schema version 1, this program needs 2: .* `rlhf labels upgrade`"):
            LabelStore(old_url)
    assert Database(old_url).upgrade() == 1
    assert Database(old_url).upgrade() == 2
    LabelStore(old_url)


def test_there_is_nothing_to_upgrade_where_there_are_no_labels(any_url, tmp_path):
    with pytest.raises(UsageError, match="there are no labels in"):
        Database(any_url).upgrade()
    assert list(tmp_path.iterdir()) == []


def test_a_newer_database_is_not_touched(any_url):
    Database(any_url).create()
    with Database(any_url).write() as connection:
        connection.execute(SCHEMA.update().values(version=99))
    for ask in (Database(any_url).check, Database(any_url).upgrade, lambda: LabelStore(any_url, create=True)):
        with pytest.raises(StorageError, match="schema version 99, this program knows 2; use the program version"):
            ask()


def test_upgraded_steps_and_tables_are_one_schema(old_url, tmp_path):
    """The dump after an upgrade, the chain of steps on nothing, and `create_all` on nothing."""
    database = Database(old_url)
    database.upgrade()
    with database.write() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, TABLES) == []
        upgraded = schema(connection)
        assert upgraded.keys() == TABLES.tables.keys()
        reflect = MetaData()
        reflect.reflect(connection)
        reflect.drop_all(connection)
        upgrade(connection, 0)
        assert schema(connection) == upgraded
        assert connection.scalars(select(SCHEMA.c.version)).all() == [SCHEMA_VERSION]
        TABLES.drop_all(connection)
        TABLES.create_all(connection)
        assert schema(connection) == upgraded


def test_the_first_step_makes_what_version_1_made(tmp_path):
    restore(tmp_path / "old.sqlite")
    Path(tmp_path / "new.sqlite").touch()
    with Database(f"sqlite:///{tmp_path / 'old.sqlite'}").read() as connection:
        wanted = schema(connection)
    with Database(f"sqlite:///{tmp_path / 'new.sqlite'}").write() as connection:
        upgrade(connection, 0, 1)
        assert schema(connection) == wanted


# Faults


def _upgrade_and_die(url: str, after: int) -> None:
    """Upgrade in a process of its own that a SIGKILL ends before the statement or commit number `after`."""
    seen = 0

    def count(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen > after:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", count)
    event.listen(Engine, "commit", count)
    Database(url).upgrade()


def all_of(url: str) -> tuple[object, ...]:
    with Database(url).read() as connection:
        version = connection.scalar(select(SCHEMA.c.version))
        return version, set(inspect(connection).get_table_names()), tables_in(connection)


def test_a_kill_before_the_commit_leaves_the_old_one_whole(old_url):
    before = all_of(old_url)
    fork = multiprocessing.get_context("fork")
    for after in range(200):
        process = fork.Process(target=_upgrade_and_die, args=(old_url, after))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        found = all_of(old_url)
        if found[0] == SCHEMA_VERSION:
            break
        assert found == before
    assert after > 15
    Database(old_url).check()


def _create(url: str, barrier: object) -> None:
    barrier.wait()
    LabelStore(url, create=True)


@pytest.mark.parametrize("is_old", [False, True])
def test_several_processes_make_or_upgrade_at_once(any_url, tmp_path, is_old):
    if is_old:
        make_old(any_url, tmp_path)
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(8)
    processes = [fork.Process(target=_create, args=(any_url, barrier)) for _ in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 8
    version, tables, _ = all_of(any_url)
    assert (version, tables) == (SCHEMA_VERSION, set(TABLES.tables))
