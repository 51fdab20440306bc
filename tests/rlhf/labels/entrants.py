"""Accounts and log-ins that the tests of the label page share."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import pytest
from sqlalchemy import Connection

pytest.importorskip("argon2")

from argon2 import PasswordHasher

from rlhf.labels.accounts import passwords, sessions
from rlhf.labels.accounts.attempts import Origin
from rlhf.labels.accounts.authentication import Entered, Refused, accept_invite, log_in
from rlhf.labels.accounts.sessions import Session
from rlhf.labels.accounts.users import Role, account, invite
from rlhf.labels.store import LabelStore, Project

PROJECT = "p"
GOOD = "four words of mine"
OTHER = "quite another secret"
HOME, AWAY = Origin("10.0.0.1"), Origin("203.0.113.9")
Opening = Callable[[], AbstractContextManager[tuple[Connection, Project]]]


def opening(store: LabelStore, project: str = PROJECT) -> Opening:
    return partial(store.changing, project)


@contextmanager
def in_one_transaction(store: LabelStore) -> Iterator[Opening]:
    """Return what opens the same transaction again and again: a thousand commits take long."""
    with store.changing(PROJECT) as opened:
        yield lambda: nullcontext(opened)


def new_store(folder: object) -> LabelStore:
    store = LabelStore(f"sqlite:///{folder}/labels.sqlite", create=True)
    with store.changing(PROJECT):
        pass
    return store


def invited(store: LabelStore, role: Role = Role.ANNOTATOR, now: float = 0.0, days: float = 7.0) -> str:
    with store.changing(PROJECT) as (connection, project):
        return invite(connection, project, role, now, days)


def joined(store: LabelStore, name: str, role: Role = Role.ANNOTATOR, now: float = 0.0) -> str:
    """Make an account with the password GOOD, and return its session's token."""
    return accept_invite(opening(store), invited(store, role, now), name, GOOD, now).token


def session(store: LabelStore, token: str, now: float = 0.0) -> Session | None:
    with store.changing(PROJECT) as (connection, project):
        return sessions.find(connection, project, token, now)


def enter(store: LabelStore, name: str, password: str = GOOD, origin: Origin = HOME, now: float = 0.0) -> str:
    found = log_in(opening(store), name, password, origin, now)
    assert isinstance(found, Entered), found
    return found.token


def refusal(store: LabelStore, name: str, password: str = GOOD, origin: Origin = HOME, now: float = 0.0) -> float:
    """Return how long somebody who is not let in has to wait; 0: the password was looked at and is wrong."""
    found = log_in(opening(store), name, password, origin, now)
    assert isinstance(found, Refused), found
    return found.wait_s


def hash_cheaply(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each hash take a millisecond."""
    monkeypatch.setattr(passwords, "_HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    decoy = passwords._HASHER.hash("nobody has this password")
    monkeypatch.setattr(passwords, "_decoy", lambda: decoy)


def annotator_id(store: LabelStore, name: str) -> int:
    with store.changing(PROJECT) as (connection, project):
        found = account(connection, project, name).annotator_id
    assert found is not None
    return found
