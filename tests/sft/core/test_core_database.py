import multiprocessing
import os
import signal
import sqlite3
from pathlib import Path

import pytest

from sft.core.database import Remedies, Transactions, check_schema, database_errors, postgresql_url, sqlite_engine
from sft.core.errors import StorageError
from sft.core.interruption import stop_at_signals

REMEDIES = Remedies(readonly="R", unreachable="U", damaged="D", otherwise="O")


@pytest.fixture
def tables(tmp_path: Path) -> Transactions:
    path = tmp_path / "x.db"
    path.touch()
    found = Transactions(str(path), path, sqlite_engine(path), REMEDIES)
    with found.write() as connection:
        connection.exec_driver_sql("CREATE TABLE t (x INTEGER)")
    return found


def count(tables: Transactions) -> int:
    with tables.read() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM t").scalar() or 0)


def test_a_write_is_committed_at_the_end_and_rolled_back_on_an_error(tables):
    with tables.write() as connection:
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")

    def fail() -> None:
        with tables.write() as connection:
            connection.exec_driver_sql("INSERT INTO t VALUES (2)")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert count(tables) == 1


def test_a_reader_sees_one_snapshot_and_cannot_write(tables):
    with tables.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM t").scalar() == 0
        with pytest.raises(Exception, match="readonly"):
            connection.exec_driver_sql("INSERT INTO t VALUES (1)")


def test_a_second_writer_waits_and_then_says_who_to_look_for(tables, monkeypatch):
    monkeypatch.setattr("sft.core.database.BUSY_TIMEOUT_S", 0.05)
    with tables.write(), pytest.raises(StorageError, match="locked; another process kept it locked"), tables.write():
        pass


@pytest.mark.parametrize(
    ("found", "remedy"),
    [
        ("database is locked", "another process kept it locked for 60 s: wait for it or stop it, then run again"),
        ("canceling statement due to lock timeout", "another process kept it locked for 60 s"),
        ("database or disk is full", "free space"),
        ("attempt to write a readonly database", "R"),
        ("unable to open database file", "U"),
        ("database disk image is malformed", "D"),
        ("no such table: t", "D"),
        ("connection refused", "O"),
    ],
)
def test_the_remedy_fits_what_was_found(found, remedy):
    assert REMEDIES.of(found).startswith(remedy)


def test_an_error_names_the_database_and_what_helps(tables):
    tables.path.write_bytes(b"no database at all, but as long as the first page of one has to be" * 9)
    with pytest.raises(StorageError, match=rf"{tables.path}: file is not a database; D"):
        count(tables)


def test_a_mistake_of_ours_is_no_storage_error():
    def fail() -> None:
        with database_errors("x", REMEDIES):
            raise KeyError

    with pytest.raises(KeyError):
        fail()


def test_another_schema_version_is_refused():
    check_schema("x", 2, 2)
    with pytest.raises(StorageError, match="x has schema version 3, this program knows 2"):
        check_schema("x", 3, 2)


def test_a_file_that_is_not_there_is_not_made(tmp_path):
    path = tmp_path / "x.db"
    with pytest.raises(StorageError, match="unable to open database file; U"):
        count(Transactions(str(path), path, sqlite_engine(path), REMEDIES))
    assert not path.exists()


def test_foreign_keys_are_checked_and_commits_outlive_a_power_loss(tables):
    with tables.read() as connection:
        found = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("foreign_keys", "synchronous")]
    assert found == [1, 3]
    assert sqlite3.threadsafety >= 1


@pytest.mark.parametrize("url", ["sqlite:///x", "mysql://h/x", "nonsense", ""])
def test_only_postgresql_is_postgresql(url):
    assert postgresql_url(url) is None


def test_a_url_of_postgresql_gets_our_driver():
    for url in ("postgresql://ann@host/x", "postgresql+psycopg://ann@host/x"):
        found = postgresql_url(url)
        assert found is not None
        assert (found.drivername, found.username, found.database) == ("postgresql+psycopg", "ann", "x")


def test_a_signal_does_not_cut_a_transaction(tmp_path: Path):
    """A child is sent SIGTERM where its connection has the write lock, and writes again while it ends."""

    def child() -> None:
        stop_at_signals()
        tables = Transactions("t", path, sqlite_engine(path), REMEDIES)
        try:
            with tables.write() as connection:
                os.kill(os.getpid(), signal.SIGTERM)
                connection.exec_driver_sql("INSERT INTO t VALUES (1)")
            os._exit(1)
        except KeyboardInterrupt:
            with tables.write() as connection:
                connection.exec_driver_sql("INSERT INTO t VALUES (2)")
            os._exit(75)

    path = tmp_path / "t.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (x)")
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(30)
    assert process.exitcode == 75
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT x FROM t").fetchall() == [(1,), (2,)]
