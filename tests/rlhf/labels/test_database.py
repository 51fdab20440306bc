import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError
from sqlalchemy.schema import CreateTable

from rlhf.labels.database import SCHEMA_VERSION, Database
from rlhf.labels.tables import EVENT, PROJECT, SCHEMA, TABLES
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


def test_the_database_of_another_program_stays_as_it_is(tmp_path):
    path = tmp_path / "theirs.sqlite"
    with closing(sqlite3.connect(path)) as theirs:
        theirs.execute("create table session (id integer)")
        theirs.commit()
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"is the database of another program.*'session'.*give one of your own"):
        Database(f"sqlite:///{path}").create()
    assert path.read_bytes() == before
