"""A registry of version 1 becomes the present one: nothing is lost, all or nothing, and older programs refuse it then.

`version_1.sql` is a database that version 1 of this program filled, as `sqlite3.Connection.iterdump` wrote it.
"""

import json
import os
import signal
import sqlite3
from pathlib import Path

import pytest
from registries import add, assert_whole, start
from sqlalchemy import Engine, event, inspect
from typer.testing import CliRunner

from rlhf.registry import Parent, Registry, Tag
from rlhf.registry.commands import app
from rlhf.registry.database import Database
from rlhf.registry.migrations import _STEPS
from rlhf.registry.tables import SCHEMA_VERSION
from sft.core.database import sqlite_engine
from sft.core.durable import seal
from sft.core.errors import StorageError

DUMP = (Path(__file__).parent / "version_1.sql").read_text()
FOLDERS = {"base/1": "b", "sft/1": "s1", "sft/2": "s2", "policy/1": "p"}


@pytest.fixture
def old(memory_path: Path) -> Path:
    """Make the registry of version 1: its database, and its folders, whose bits are the same again."""
    root = memory_path / "registry"
    for place, content in FOLDERS.items():
        (root / place / "weights").mkdir(parents=True)
        (root / place / "weights" / "model.safetensors").write_text(content)
        seal(root / place)
    (root / ".work").mkdir()
    connection = sqlite3.connect(root / "registry.db")
    connection.executescript(DUMP)
    connection.close()
    return root


def rows(root: Path, table: str, columns: str = "*") -> list[tuple[object, ...]]:
    connection = sqlite3.connect(root / "registry.db")
    found = connection.execute(f"SELECT {columns} FROM {table} ORDER BY 1, 2").fetchall()
    connection.close()
    return found


def schema(path: Path) -> dict[str, object]:
    """Return all that the database says of its tables."""
    seen = inspect(sqlite_engine(path))
    made = {table: sql for table, sql in rows(path.parent, "sqlite_master", "name, sql") if sql is not None}
    return {
        name: {
            "columns": {c["name"]: (str(c["type"]), c["nullable"], c["default"]) for c in seen.get_columns(name)},
            "key": seen.get_pk_constraint(name)["constrained_columns"],
            "foreign": sorted((f["constrained_columns"], f["referred_table"]) for f in seen.get_foreign_keys(name)),
            "unique": sorted(u["column_names"] for u in seen.get_unique_constraints(name)),
            "indexes": sorted((i["name"], i["column_names"], i["unique"]) for i in seen.get_indexes(name)),
            "partial": made.get("artifacts_fingerprint", "").partition("WHERE")[2],
            "never_again": "AUTOINCREMENT" in made[name],
        }
        for name in seen.get_table_names()
    }


def test_there_is_a_step_from_every_older_version():
    assert list(_STEPS) == list(range(1, SCHEMA_VERSION))


def test_the_upgraded_tables_are_those_of_a_new_registry(old, tmp_path):
    Registry(old)
    Registry(tmp_path / "new")
    assert schema(old / "registry.db") == schema(tmp_path / "new" / "registry.db")


def test_nothing_of_an_old_registry_is_lost(old, capsys):
    tables = ("aliases", "parents")
    columns = "id, name, version, kind, fingerprint, sha256, created_at, metadata"
    before = {table: rows(old, table) for table in tables}, rows(old, "artifacts", columns)
    registry = Registry(old)
    said = capsys.readouterr().err
    assert said == f"{old / 'registry.db'}: upgraded from schema version 1 to 2\n"
    assert ({table: rows(old, table) for table in tables}, rows(old, "artifacts", columns)) == before
    assert [artifact.ref for artifact in registry.artifacts()] == ["base:1", "policy:1", "sft:1", "sft:2"]
    policy = registry.get("policy@champion")
    assert policy.parents == (Parent("init", "sft:1"), Parent("reference", "sft:1"))
    assert registry.get("sft@best").metadata == {"metrics": {"loss": 0.5}}
    assert registry.verify(registry.artifacts()) == []
    assert_whole(registry)
    Registry(old)
    assert capsys.readouterr().err == ""


def test_an_upgraded_registry_does_all_that_a_new_one_does(old):
    registry = Registry(old)
    assert add(registry, "sft", "s3").ref == "sft:3"
    assert registry.tag(registry.get("sft:1"), [Tag("paper")]).tags == (Tag("paper"),)
    assert [useless.what for useless in registry.sweep(remove=True).found] == ["sft:2"]
    assert add(registry, "sft", "s2").ref == "sft:4"
    with pytest.raises(Exception, match="UNIQUE"), registry._database.write() as catalogue:
        catalogue._connection.exec_driver_sql("UPDATE artifacts SET fingerprint = 'b' WHERE id = 4")


def test_reading_an_old_registry_says_how_to_upgrade_it_and_changes_nothing(old):
    before = (old / "registry.db").read_bytes()
    with pytest.raises(StorageError, match=r"schema version 1, this program needs 2: .*rlhf models upgrade --registry"):
        Registry(old, create=False)
    assert (old / "registry.db").read_bytes() == before
    done = CliRunner().invoke(app, ["upgrade", "--registry", str(old), "--json"])
    assert json.loads(done.stdout) == {"found": 1, "version": 2}
    again = CliRunner().invoke(app, ["upgrade", "--registry", str(old)])
    assert again.stdout == "schema version 2, now 2\n"
    Registry(old, create=False)


def test_the_older_program_refuses_it(old):
    """Version 1 read `SELECT version FROM schema` first, and refused any other number than its own."""
    Registry(old)
    assert rows(old, "schema", "version, 0") == [(2, 0)]


def upgrade_with_crash(root: Path, at: int) -> None:
    left = [at]

    def crash(*_: object) -> None:
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1

    for moment in ("before_cursor_execute", "commit"):
        event.listen(Engine, moment, crash)
    Registry(root)


def test_a_kill_at_any_moment_leaves_the_old_version_or_the_new_one(old):
    versions = []
    for at in range(100):
        (old / "registry.db").unlink()
        connection = sqlite3.connect(old / "registry.db")
        connection.executescript(DUMP)
        connection.close()
        child = start(upgrade_with_crash, old, at)
        child.join(30)
        ((version, _),) = rows(old, "schema", "version, 0")
        versions.append(version)
        assert [artifact.ref for artifact in Registry(old).artifacts()] == ["base:1", "policy:1", "sft:1", "sft:2"]
        if child.exitcode == 0:
            break
    assert child.exitcode == 0
    assert at > 15
    assert versions == sorted(versions)
    assert set(versions) == {1, 2}


def test_a_registry_with_rows_that_refer_to_nothing_is_not_upgraded(old):
    connection = sqlite3.connect(old / "registry.db")
    connection.execute("DELETE FROM artifacts WHERE id = 1")
    connection.commit()
    connection.close()
    with pytest.raises(StorageError, match="2 rows of the table 'parents' refer to rows that are not there"):
        Registry(old)
    assert rows(old, "schema", "version, 0") == [(1, 0)]


def test_the_file_is_made_anew_by_nobody(old):
    Database(old).create()
    assert not list((old / ".work").iterdir())
