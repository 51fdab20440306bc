import hashlib

import pytest
from entrants import PROJECT, joined, new_store, session
from sqlalchemy import select

from rlhf.labels.accounts import sessions
from rlhf.labels.accounts.sessions import IDLE_S, LONGEST_S, MOST_OF_ACCOUNT, TOUCHED_EVERY_S, csrf_token, is_stale
from rlhf.labels.accounts.users import Role, account
from rlhf.labels.store import LabelStore
from rlhf.labels.tables import SESSION


@pytest.fixture
def store(tmp_path) -> LabelStore:
    return new_store(tmp_path)


def started(store, now=0.0, name="Bo"):
    with store.changing(PROJECT) as (connection, project):
        return sessions.start(connection, account(connection, project, name).id, now)


def touched(store, token, now):
    with store.changing(PROJECT) as (connection, project):
        found = sessions.find(connection, project, token, now)
        if is_stale(found, now):
            sessions.touch(connection, found, now)
            return True
        return False


def test_the_database_holds_the_sha256_of_a_token_alone(store, tmp_path):
    token = joined(store, "Bo")
    assert len(token) == 43
    with store.changing(PROJECT) as (connection, _):
        assert connection.scalars(select(SESSION.c.token_digest)).all() == [hashlib.sha256(token.encode()).digest()]
    assert token.encode() not in (tmp_path / "labels.sqlite").read_bytes()


def test_a_session_tells_whose_it_is(store):
    token, owner = joined(store, "Bo"), joined(store, "Ada", Role.OWNER)
    assert session(store, token)[1:5] == (1, "Bo", Role.ANNOTATOR, 1)
    assert session(store, owner)[1:5] == (2, "Ada", Role.OWNER, None)
    assert session(store, token + "x") is None
    with store.changing("other") as (connection, project):
        assert sessions.find(connection, project, token, 0.0) is None


def test_a_session_ends_when_it_is_not_used(store):
    token = joined(store, "Bo")
    assert session(store, token, IDLE_S - 1) is not None
    assert session(store, token, IDLE_S) is None


def test_a_session_ends_also_when_it_is_used(store):
    token = joined(store, "Bo")
    now = 0.0
    while now + 7200 < LONGEST_S:
        now += 7200
        assert touched(store, token, now) == (now <= LONGEST_S - IDLE_S)
    assert session(store, token, LONGEST_S - 1) is not None
    assert session(store, token, LONGEST_S) is None


def test_an_account_has_so_many_sessions_at_once_and_the_oldest_ends_first(store):
    other = joined(store, "Ada", Role.OWNER)
    tokens = [joined(store, "Bo"), *(started(store, float(n)) for n in range(1, MOST_OF_ACCOUNT + 2))]
    assert [session(store, token, 60.0) is not None for token in tokens[:4]] == [False, False, True, True]
    assert all(session(store, token, 60.0) for token in (*tokens[2:], other))


def test_a_session_is_written_seldom(store):
    token = joined(store, "Bo")
    times = [60.0 * n for n in range(1, 61)]
    assert sum(touched(store, token, now) for now in times) == 3600 / TOUCHED_EVERY_S
    assert TOUCHED_EVERY_S >= 60


def test_a_session_that_ended_stays_ended(store):
    token = joined(store, "Bo")
    with store.changing(PROJECT) as (connection, project):
        found = sessions.find(connection, project, token, 0.0)
        sessions.end(connection, found.digest)
        sessions.touch(connection, found, 1.0)
        assert sessions.find(connection, project, token, 1.0) is None


def test_one_of_two_sessions_ends(store):
    first, second = joined(store, "Bo"), started(store)
    with store.changing(PROJECT) as (connection, project):
        sessions.end(connection, sessions.find(connection, project, first, 0.0).digest)
    assert (session(store, first), session(store, second) is None) == (None, False)


def test_old_sessions_leave_the_database(store):
    joined(store, "Bo")
    started(store, IDLE_S)
    with store.changing(PROJECT) as (connection, _):
        assert connection.scalars(select(SESSION.c.created_at)).all() == [IDLE_S]


def test_the_token_of_forms_belongs_to_one_session_and_does_not_tell_it():
    assert csrf_token("a") == csrf_token("a") != csrf_token("b")
    assert len(csrf_token("a")) == 64
    assert csrf_token("a") != hashlib.sha256(b"a").hexdigest()
