"""A project with tasks and people who are logged in, for tests of the label page."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import select

from rlhf.labels.accounts.authentication import accept_invite
from rlhf.labels.accounts.users import Role, invite
from rlhf.labels.collection.queue import Purpose
from rlhf.labels.collection.study import Study, set_guidelines, set_study
from rlhf.labels.collection.tasks import Pair, enqueue
from rlhf.labels.store import LabelStore
from rlhf.labels.tables import EVENT
from rlhf.labels.web.site import Site

if TYPE_CHECKING:
    from playwright.sync_api import Page

PROJECT = "p"
PASSWORD = "seven quiet herons"
COOKIE = f"labels-{PROJECT}"
Opening = Callable[..., "Page"]
"""See the fixture `opened`."""


class Person(NamedTuple):
    """An annotator who is logged in."""

    name: str
    token: str


def add_tasks(store: LabelStore, pairs: Sequence[Pair], purpose: Purpose = Purpose.LABEL, **settings: object) -> None:
    """Store tasks, each for one person unless `overlap` says otherwise, and the project's settings."""
    asked = Study(**{"overlap": 1, "gold_share": 0, "probe_share": 0, **settings})
    with store.changing(PROJECT) as (connection, project):
        set_study(connection, project, asked)
        set_guidelines(connection, project, "Choose the answer that **helps** more.")
        enqueue(connection, project, pairs, purpose=purpose, overlap=asked.overlap, seed=0)


def add_person(store: LabelStore, name: str = "Noor", role: Role = Role.ANNOTATOR, now: float | None = None) -> Person:
    """Make an account and log it in; `now` in seconds since 1970, None: by the clock."""
    now = time.time() if now is None else now
    with store.changing(PROJECT) as (connection, project):
        token = invite(connection, project, role, now)
    entered = accept_invite(Site(store, PROJECT).changing, token, name, PASSWORD, now)
    return Person(name, entered.token)


def events(store: LabelStore) -> list[tuple[object, ...]]:
    """Return what is stored, oldest first: kind, choice as a side of the page, strength, attribute, reason."""
    columns = (EVENT.c.kind, EVENT.c.choice, EVENT.c.shown_left, EVENT.c.strength, EVENT.c.attribute, EVENT.c.reason)
    with Site(store, PROJECT).reading() as (connection, _):
        rows = connection.execute(select(*columns).order_by(EVENT.c.id)).all()
    return [(row.kind, _side(row.choice, row.shown_left), *row[3:]) for row in rows]


def _side(choice: str | None, shown_left: str | None) -> str | None:
    if choice in (None, "tie"):
        return choice
    return "left" if choice == shown_left else "right"
