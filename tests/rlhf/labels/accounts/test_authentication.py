import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from entrants import (
    AWAY,
    GOOD,
    HOME,
    OTHER,
    PROJECT,
    enter,
    hash_cheaply,
    in_one_transaction,
    invited,
    joined,
    new_store,
    opening,
    refusal,
    session,
)
from label_removal import erase
from sqlalchemy import select

from rlhf.labels.accounts import authentication
from rlhf.labels.accounts.authentication import Entered, Refused, accept_invite, change_password, log_in
from rlhf.labels.accounts.users import Role, account, disable, invite_reset, remove_account
from rlhf.labels.store import LabelStore, pseudonym
from rlhf.labels.tables import ACCOUNT, ANNOTATOR
from sft.core.errors import DataError, UsageError


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    hash_cheaply(monkeypatch)


@pytest.fixture
def store(tmp_path) -> LabelStore:
    return new_store(tmp_path)


@pytest.fixture
def verifications(monkeypatch) -> list[str]:
    """Return the stored hashes that passwords were compared with so far."""
    seen: list[str] = []
    matches = authentication.matches

    def counted(password: str, stored: str) -> bool:
        seen.append(stored)
        return matches(password, stored)

    monkeypatch.setattr(authentication, "matches", counted)
    return seen


def accept(store, token, name="Bo", password=GOOD, now=0.0):
    return accept_invite(opening(store), token, name, password, now)


def test_a_link_makes_an_annotator_with_the_pseudonym_of_an_import(store):
    found = accept(store, invited(store), " Zoe\u0308 ")
    assert session(store, found.token).name == "Zo\u00eb"
    with store.changing(PROJECT) as (connection, project):
        rows = connection.execute(select(ANNOTATOR.c.name, ANNOTATOR.c.pseudonym)).all()
        assert rows == [("Zo\u00eb", pseudonym(project.pseudonym_key, "Zo\u00eb"))]
        assert GOOD not in connection.scalar(select(ACCOUNT.c.password_hash))


def test_an_owner_is_no_annotator(store):
    joined(store, "Ada", Role.OWNER)
    with store.changing(PROJECT) as (connection, _):
        assert connection.scalars(select(ANNOTATOR.c.id)).all() == []


def test_a_link_works_once_also_for_two_at_once(store):
    token = invited(store)
    barrier = threading.Barrier(8)

    def race(n):
        barrier.wait()
        try:
            return accept(store, token, f"name {n}")
        except UsageError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(race, range(8)))
    assert sum(isinstance(one, Entered) for one in found) == 1
    lost = {one for one in found if isinstance(one, str)}
    assert lost == {"this link was used already or is too old; ask an owner of the project for a new one"}


@pytest.mark.parametrize("name", ["Bo", " Bo ", "imported", "gone"])
def test_a_name_that_somebody_has_or_had_is_refused_and_the_link_still_works(store, name):
    joined(store, "Bo")
    joined(store, "gone")
    with store.changing(PROJECT) as (connection, project):
        row = {"project_id": project.id, "name": "imported", "pseudonym": pseudonym(project.pseudonym_key, "imported")}
        connection.execute(ANNOTATOR.insert().values(row))
    erase(store, PROJECT, "gone")
    for role in Role:
        token = invited(store, role)
        with pytest.raises(DataError, match="is taken, or was and may not be used again; choose another one"):
            accept(store, token, name)
        assert session(store, accept(store, token, f"other {role.value}").token) is not None


@pytest.mark.parametrize("name", ["", "   ", "x" * 65, "a\nb", "a\u202eb", "a\x00b", "a\u200bb"])
def test_names_that_are_none(store, name):
    with pytest.raises(DataError, match="a name has 1 to 64 letters"):
        accept(store, invited(store), name)


def test_a_weak_password_is_refused_and_nothing_is_hashed_before(store, monkeypatch):
    monkeypatch.setattr(authentication, "hash_password", None)
    token = invited(store)
    for password in ("short", "Wilhelmina-1", "p" * 300):
        with pytest.raises(DataError, match="this password"):
            accept(store, token, "Wilhelmina", password)
    with pytest.raises(UsageError, match="ask an owner of the project for a new one"):
        accept(store, "unknown")


def test_no_hash_is_made_inside_a_transaction(store, monkeypatch):
    """Another writer gets in while a password is hashed or compared."""

    def outside(function):
        def checked(*args):
            with opening(store)():
                pass
            return function(*args)

        return checked

    for name in ("matches", "hash_password"):
        monkeypatch.setattr(authentication, name, outside(getattr(authentication, name)))
    joined(store, "Bo")
    enter(store, "Bo")
    assert change_password(opening(store), 1, GOOD, OTHER, HOME, 0.0) is None


def test_log_in(store):
    before = joined(store, "Bo")
    token = enter(store, " Bo ")
    assert token != before
    assert session(store, token).name == "Bo"
    assert session(store, before) is not None
    assert refusal(store, "bo") == refusal(store, "Bo", "Four words of mine") == refusal(store, "Bo", "") == 0


def test_a_log_in_is_for_one_project(store):
    joined(store, "Bo")
    assert log_in(opening(store, "other"), "Bo", GOOD, HOME, 0.0) == Refused()


def test_an_unknown_name_costs_and_answers_what_a_wrong_password_does(store, verifications):
    joined(store, "Bo")
    with store.changing(PROJECT) as (connection, _):
        joined_hash = connection.scalar(select(ACCOUNT.c.password_hash))
    answers = {name: [refusal(store, name, OTHER, now=0.0) for _ in range(8)] for name in ("Bo", "nobody")}
    assert answers["Bo"] == answers["nobody"] == [0, 0, 0, 0, 0, 1, 1, 1]
    assert verifications == [joined_hash] * 5 + [""] * 5


def test_a_thousand_guesses(store, verifications):
    joined(store, "Bo")
    with in_one_transaction(store) as opened:
        for n in range(1000):
            log_in(opened, "Bo", f"guess number {n}", HOME, float(n))
    assert len(verifications) == 14
    assert refusal(store, "Bo", GOOD, now=1000.0) > 0
    assert session(store, enter(store, "Bo", origin=AWAY, now=1000.0), 1000.0).name == "Bo"


def test_guesses_at_once_are_few(store, verifications):
    joined(store, "Bo")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: refusal(store, "Bo", f"guess number {n}"), range(40)))
    assert len(verifications) == 5


def test_a_disabled_account_is_as_an_unknown_name(store, verifications):
    joined(store, "Bo")
    with store.changing(PROJECT) as (connection, project):
        disable(connection, project, "Bo")
    assert refusal(store, "Bo") == 0
    assert verifications == [""]


def test_a_password_that_changes_during_the_log_in_lets_nobody_in(store, monkeypatch):
    joined(store, "Bo")
    matches = authentication.matches

    def slow(password, stored):
        monkeypatch.setattr(authentication, "matches", matches)
        assert change_password(opening(store), 1, GOOD, OTHER, AWAY, 0.0) is None
        return matches(password, stored)

    monkeypatch.setattr(authentication, "matches", slow)
    assert refusal(store, "Bo") == 0
    assert enter(store, "Bo", OTHER)


def test_another_password_ends_all_sessions_and_links(store):
    tokens = [joined(store, "Bo"), enter(store, "Bo")]
    other = joined(store, "Cy")
    with store.changing(PROJECT) as (connection, project):
        reset = invite_reset(connection, project, "Bo", 0.0)
    assert change_password(opening(store), 1, OTHER, OTHER, HOME, 0.0) == Refused()
    assert session(store, tokens[0]) is not None
    assert change_password(opening(store), 1, GOOD, OTHER, HOME, 0.0) is None
    assert [session(store, token) for token in tokens] == [None, None]
    assert session(store, other) is not None
    assert refusal(store, "Bo", GOOD) == 0
    assert enter(store, "Bo", OTHER)
    with pytest.raises(UsageError, match="used already or is too old"):
        accept(store, reset)


def test_the_current_password_cannot_be_guessed_either(store, verifications):
    joined(store, "Bo")
    with in_one_transaction(store) as opened:
        found = [change_password(opened, 1, f"guess number {n}", OTHER, HOME, 0.0) for n in range(50)]
    assert found[:6] == [Refused()] * 5 + [Refused(1.0)]
    assert len(verifications) == 5
    with pytest.raises(DataError, match="this password"):
        change_password(opening(store), 1, GOOD, "short", AWAY, 0.0)


def test_a_link_for_a_new_password(store):
    before = joined(store, "Bo")
    with store.changing(PROJECT) as (connection, project):
        disable(connection, project, "Bo")
        token = invite_reset(connection, project, "Bo", 0.0)
    found = accept(store, token, "another name", OTHER)
    assert session(store, found.token).name == "Bo"
    assert session(store, before) is None
    assert enter(store, "Bo", OTHER)
    with store.changing(PROJECT) as (connection, project):
        assert not account(connection, project, "Bo").is_disabled


def test_all_of_it_on_postgresql(postgresql_url):
    store = LabelStore(postgresql_url, create=True)
    with store.changing(PROJECT):
        pass
    token = joined(store, "Bo")
    assert session(store, token).name == "Bo"
    with ThreadPoolExecutor(8) as pool:
        waits = list(pool.map(lambda n: refusal(store, "Bo", f"guess number {n}"), range(20)))
    assert sum(not wait for wait in waits) == 5
    assert enter(store, "Bo", origin=AWAY)
    assert change_password(opening(store), 1, GOOD, OTHER, AWAY, 0.0) is None
    with store.changing(PROJECT) as (connection, project):
        reset = invite_reset(connection, project, "Bo", 0.0)
        disable(connection, project, "Bo")
        reset = invite_reset(connection, project, "Bo", 0.0)
    assert session(store, accept(store, reset).token).name == "Bo"
    with store.changing(PROJECT) as (connection, project):
        remove_account(connection, account(connection, project, "Bo").annotator_id)
    assert refusal(store, "Bo", origin=AWAY) == 0
