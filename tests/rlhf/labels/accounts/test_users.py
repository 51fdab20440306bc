import hashlib

import pytest
from entrants import PROJECT, invited, joined, new_store, session
from label_removal import erase
from sqlalchemy import select

from rlhf.labels.accounts.users import (
    Role,
    account,
    accounts,
    disable,
    has_owner,
    invite,
    invite_reset,
    open_invite,
    pause,
    remove_account,
    resume,
    use_invite,
)
from rlhf.labels.collection.queue import Nothing, claim
from rlhf.labels.collection.study import Study
from rlhf.labels.store import LabelStore
from rlhf.labels.tables import ACCOUNT, INVITE, SESSION
from sft.core.errors import UsageError

DAY = 86_400.0


@pytest.fixture
def store(tmp_path) -> LabelStore:
    return new_store(tmp_path)


def opened(store, token, now=0.0, project=PROJECT):
    with store.changing(project) as (connection, row):
        return open_invite(connection, row, token, now)


def used(store, token, now=0.0):
    with store.changing(PROJECT) as (connection, project):
        return use_invite(connection, project, token, now)


def test_the_database_holds_the_sha256_of_a_link_alone(store, tmp_path):
    token = invited(store)
    assert len(token) == 43
    with store.changing(PROJECT) as (connection, _):
        assert connection.scalars(select(INVITE.c.token_digest)).all() == [hashlib.sha256(token.encode()).digest()]
    assert token.encode() not in (tmp_path / "labels.sqlite").read_bytes()
    assert invited(store) != token


def test_a_link_works_once_until_its_day_and_in_its_project(store):
    token = invited(store, Role.OWNER, now=0.0, days=2)
    assert opened(store, token, 2 * DAY - 1) == (Role.OWNER, 2 * DAY, None)
    assert opened(store, token, 2 * DAY) is None
    assert opened(store, token + "x") is None
    assert opened(store, token, project="other") is None
    assert used(store, token, 2 * DAY) is None
    assert used(store, token).role is Role.OWNER
    assert used(store, token) is None
    assert opened(store, token) is None


@pytest.mark.parametrize("days", [0, -1, 367, float("nan"), float("inf")])
def test_how_long_a_link_may_be_good(store, days):
    with pytest.raises(UsageError, match="give more than 0 and at most 366"):
        invited(store, days=days)


def test_old_links_leave_the_database(store):
    invited(store, now=0.0, days=1)
    invited(store, now=2 * DAY, days=1)
    with store.changing(PROJECT) as (connection, _):
        assert connection.scalars(select(INVITE.c.created_at)).all() == [2 * DAY]


def test_a_new_password_has_one_link_at_a_time(store):
    joined(store, "Bo")
    with store.changing(PROJECT) as (connection, project):
        first = invite_reset(connection, project, "Bo", 0.0)
        new_account = invite(connection, project, Role.ANNOTATOR, 0.0)
        second = invite_reset(connection, project, "Bo", 0.0)
    assert opened(store, first) is None
    assert opened(store, second).account.name == "Bo"
    assert opened(store, second, DAY) is None
    assert opened(store, new_account).account is None


def test_accounts_are_listed_and_an_unknown_one_is_answered_with_those(store):
    joined(store, "Bo", now=DAY)
    joined(store, "Ada", Role.OWNER)
    with store.changing(PROJECT) as (connection, project):
        bo, ada = accounts(connection, project)
        assert (bo.name, bo.role, bo.annotator_id, bo.is_disabled) == ("Bo", Role.ANNOTATOR, 1, False)
        assert bo.created_at == "1970-01-02T00:00:00+00:00"
        assert (ada.name, ada.role, ada.annotator_id, ada.paused_at) == ("Ada", Role.OWNER, None, None)
        assert has_owner(connection, project)
        with pytest.raises(UsageError, match=r"no account 'bo'; there are: Bo, Ada; make one with: rlhf labels users"):
            account(connection, project, "bo")
    with store.changing("other") as (connection, project):
        assert not has_owner(connection, project)
        with pytest.raises(UsageError, match="there are: none"):
            account(connection, project, "Bo")


def test_who_is_paused_gets_no_task_and_stays_logged_in(store):
    token = joined(store, "Bo")
    joined(store, "Ada", Role.OWNER)
    with store.changing(PROJECT) as (connection, project):
        pause(connection, project, "Bo", "on leave", 5.0)
        assert account(connection, project, "Bo")[5:7] == (5.0, "on leave")
        assert claim(connection, project, Study(), 1, 6.0) == Nothing("paused", "on leave")
        with pytest.raises(UsageError, match="is an owner and does not label"):
            pause(connection, project, "Ada", "no", 5.0)
    assert session(store, token) is not None
    with store.changing(PROJECT) as (connection, project):
        resume(connection, project, "Bo")
        assert account(connection, project, "Bo")[5:7] == (None, None)
        assert claim(connection, project, Study(), 1, 6.0).reason != "paused"


def test_who_is_disabled_is_logged_out_and_has_no_link(store):
    token, other = joined(store, "Bo"), joined(store, "Cy")
    with store.changing(PROJECT) as (connection, project):
        reset = invite_reset(connection, project, "Bo", 0.0)
        disable(connection, project, "Bo")
        assert account(connection, project, "Bo").is_disabled
        assert not account(connection, project, "Cy").is_disabled
    assert opened(store, reset) is None
    assert session(store, token) is None
    assert session(store, other) is not None


def test_the_last_owner_stays(store):
    joined(store, "Ada", Role.OWNER)
    with store.changing(PROJECT) as (connection, project), pytest.raises(UsageError, match="the last owner who can"):
        disable(connection, project, "Ada")
    joined(store, "Eve", Role.OWNER)
    with store.changing(PROJECT) as (connection, project):
        disable(connection, project, "Ada")
        assert has_owner(connection, project)
        with pytest.raises(UsageError, match="the last owner who can"):
            disable(connection, project, "Eve")


def test_an_erasure_takes_account_sessions_and_links(store, tmp_path):
    joined(store, "Wilhelmina")
    token = joined(store, "Cy")
    with store.changing(PROJECT) as (connection, project):
        invite_reset(connection, project, "Wilhelmina", 0.0)
        remove_account(connection, account(connection, project, "Wilhelmina").annotator_id)
        remove_account(connection, 999)
        assert connection.scalars(select(ACCOUNT.c.name)).all() == ["Cy"]
        assert connection.scalars(select(INVITE.c.account_id)).all() == []
        assert connection.scalars(select(SESSION.c.account_id)).all() == [2]
    assert session(store, token) is not None


def test_an_erased_account_is_gone_from_the_file(store, tmp_path):
    joined(store, "Wilhelmina")
    assert b"Wilhelmina" in (tmp_path / "labels.sqlite").read_bytes()
    erase(store, PROJECT, "Wilhelmina")
    assert b"Wilhelmina" not in (tmp_path / "labels.sqlite").read_bytes()
