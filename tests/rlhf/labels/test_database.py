import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateTable

from rlhf.labels.database import EVENT, PROJECT, SCHEMA, SCHEMA_VERSION, TABLES, Database
from rlhf.labels.imports import import_file
from rlhf.labels.store import LabelStore
from sft.core.errors import StorageError, UsageError


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'labels.sqlite'}"


def project_row(name: str) -> dict[str, object]:
    return {"name": name, "pseudonym_key": b"k" * 32, "created_at": "2026-01-01T00:00:00+00:00"}


def test_made_once_for_the_owner_alone(tmp_path):
    database = Database(url(tmp_path / "new/folder"))
    database.create()
    with database.write() as connection:
        connection.execute(PROJECT.insert().values(project_row("p")))
    database.create()
    with database.read() as connection:
        assert connection.scalars(select(PROJECT.c.name)).all() == ["p"]
        assert connection.scalars(select(SCHEMA.c.version)).all() == [SCHEMA_VERSION]
    assert (tmp_path / "new/folder/labels.sqlite").stat().st_mode & 0o777 == 0o600


def test_an_error_rolls_back(tmp_path):
    database = Database(url(tmp_path))
    database.create()
    with pytest.raises(IntegrityError), database.write() as connection:
        connection.execute(PROJECT.insert(), [project_row("p"), project_row("p")])
    with database.read() as connection:
        assert connection.scalars(select(PROJECT.c.name)).all() == []


def test_no_labels_is_a_usage_error_and_makes_no_file(tmp_path):
    with pytest.raises(UsageError, match=r"there are no labels in .*labels.sqlite: import some \(rlhf labels import"):
        Database(url(tmp_path)).check()
    assert list(tmp_path.iterdir()) == []


def test_a_newer_schema_is_refused(tmp_path):
    database = Database(url(tmp_path))
    database.create()
    with database.write() as connection:
        connection.execute(SCHEMA.update().values(version=99))
    with pytest.raises(StorageError, match="schema version 99, this program knows 1; use the program version"):
        database.check()


def test_a_file_of_something_else_is_a_storage_error(tmp_path):
    (tmp_path / "labels.sqlite").write_text("not a database, but long enough to have a header of its own" * 30)
    with pytest.raises(StorageError, match="the database is damaged: restore it from a backup"):
        Database(url(tmp_path)).check()


@pytest.mark.parametrize("wrong", ["", "labels.sqlite", "mysql://h/x", "sqlite://", "sqlite:///x?mode=memory"])
def test_other_urls_are_refused(wrong):
    with pytest.raises(UsageError, match=r"write sqlite:///FILE or postgresql://USER@HOST/NAME"):
        Database(wrong)


def test_a_password_is_not_shown():
    with pytest.raises(UsageError) as caught:
        Database("mysql://me:secret@host/x")
    assert "secret" not in str(caught.value)


def test_an_event_id_is_never_used_again(tmp_path):
    """An export names its events by id, also after an erasure of the newest ones."""
    database = Database(url(tmp_path))
    database.create()
    with database.write() as connection:
        for table in (EVENT, *(t for t in TABLES.sorted_tables if t.name in ("task", "annotator"))):
            assert "AUTOINCREMENT" in str(CreateTable(table).compile(connection))


def test_postgresql_can_hold_the_tables():
    for table in TABLES.sorted_tables:
        assert "CREATE TABLE" in str(CreateTable(table).compile(dialect=postgresql.dialect()))


# A real server


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Start PostgreSQL on a socket of its own; it refuses to run as root, so root steps down to `postgres`.

    Its folder is not pytest's, which is closed to other users, and whose path may be too long for a socket.
    """
    pytest.importorskip("psycopg", reason="the driver of PostgreSQL is not installed: pip install 'psycopg[binary]'")
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="rlhf-pg-"))
    user = "postgres" if os.geteuid() == 0 else None
    if user is not None:
        shutil.chown(folder, user)
    run = {"check": True, "user": user, "cwd": folder, "stdout": subprocess.DEVNULL}
    data, control = str(folder / "data"), str(programs[-1] / "pg_ctl")
    subprocess.run([str(programs[-1] / "initdb"), "-D", data, "-U", "rlhf", "-A", "trust"], **run)
    options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
    subprocess.run([control, "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start"], **run)
    try:
        yield f"postgresql://rlhf@/postgres?host={folder}"
    finally:
        subprocess.run([control, "-D", data, "-m", "immediate", "stop"], **run)
        shutil.rmtree(folder)


def test_the_same_answers_from_postgresql(server, tmp_path):
    """Import, import again, report, edit-free export counts and an erasure give what SQLite gives."""
    path = tmp_path / "labels.csv"
    rows = [f"p{n // 2},x,y,{'abt'[n % 3].replace('t', 'tie')},ann{n % 4}" for n in range(40)]
    path.write_text("prompt,response_a,response_b,label,annotator\n" + "\n".join([*rows, rows[0], "p,x,x,a,z"]) + "\n")
    found = {}
    for place in (server, url(tmp_path)):
        store = LabelStore(place, create=True)
        first, again = import_file(store, "p", path), import_file(store, "p", path)
        with store.reading("p") as labels:
            events = [(e.id, e.judgement.choice, e.judgement.prompt) for e in labels.labels() if e.judgement]
        erased = store.erase("p", "ann1")
        found[place] = first.as_dict(), again.as_dict(), events, erased[1:]
    assert found[server] == found[url(tmp_path)]
    assert found[server][0]["rows_in"] == 42
    assert (found[server][0]["duplicates"], found[server][1]["duplicates"]) == (1, 41)
    engine = create_engine(server.replace("postgresql", "postgresql+psycopg"), poolclass=NullPool)
    assert set(inspect(engine).get_table_names()) == set(TABLES.tables)
