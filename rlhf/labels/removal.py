"""Removing a person from a project: name, labels and free texts go, a tombstone with the pseudonym stays."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from rlhf.labels.accounts.users import remove_account
from rlhf.labels.events import EventKind, holds
from rlhf.labels.store import LabelStore, Project, now, pseudonym, recorded_exports, search_again
from rlhf.labels.tables import ANNOTATOR, EVENT, HOLDS_A_PLACE, LEASE, PROJECT, QUEUE
from sft.core.errors import UsageError


class Erased(NamedTuple):
    """What an erasure removed, and which exports (by digest) had used it."""

    pseudonym: str
    labels: int
    texts: int
    exports: list[str]
    also_in: list[str]
    """Other projects that know the same name; they keep it."""


@contextmanager
def erasing(store: LabelStore, project: str, annotator: str) -> Iterator[Erased]:
    """Remove a person's name, labels and free texts from a project, in one transaction that ends with the block.

    What the block does is done before the person is gone for good: after a kill the same command carries on.
    A tombstone with the pseudonym stays, so that a later import of the same file does not bring them back.

    Raises:
        UsageError: there is no such project, or it does not know the person.
    """
    with store.changing(project, create=False) as (connection, found):
        yield _erase(connection, found, annotator)


def erased_before(connection: Connection, project: Project, annotator: str) -> Erased | None:
    """Return what there is to say of a person, known by the name they had, who was erased earlier; else None."""
    former = pseudonym(project.pseudonym_key, annotator)
    same = (ANNOTATOR.c.project_id == project.id, ANNOTATOR.c.pseudonym == former)
    found = select(ANNOTATOR.c.id).where(*same, ANNOTATOR.c.erased_at.is_not(None))
    if connection.scalar(found) is None:
        return None
    return Erased(former, 0, 0, [], _other_projects(connection, project, annotator))


def _erase(connection: Connection, project: Project, name: str) -> Erased:
    same = (ANNOTATOR.c.project_id == project.id, ANNOTATOR.c.name == name)
    person = connection.execute(select(ANNOTATOR.c.id, ANNOTATOR.c.pseudonym).where(*same)).one_or_none()
    also_in = _other_projects(connection, project, name)
    if person is None:
        where = f"; the projects {', '.join(also_in)} do" if also_in else ""
        raise UsageError(
            f"project {project.name!r} knows no annotator {name!r}{where}; give the name as the imported file has it"
        )
    mine = EVENT.c.annotator_id == person.id
    ids = list(connection.scalars(select(EVENT.c.id).where(mine).order_by(EVENT.c.id)))
    labels = connection.scalar(select(func.count()).where(mine, EVENT.c.kind == EventKind.LABEL)) or 0
    texts = connection.scalar(select(func.count()).where(mine, EVENT.c.reason.is_not(None))) or 0
    used_in = [
        found.digest for found in recorded_exports(connection, project) if any(holds(found.event_ids, i) for i in ids)
    ]
    connection.execute(EVENT.delete().where(mine))
    _return_places(connection, project, person.id)
    remove_account(connection, person.id)
    connection.execute(ANNOTATOR.update().where(ANNOTATOR.c.id == person.id).values(name=None, erased_at=now()))
    return Erased(person.pseudonym, labels, texts, used_in, also_in)


def _return_places(connection: Connection, project: Project, annotator_id: int) -> None:
    """Open the places of the queue that an annotator held to others, and forget what was given to them."""
    held = select(LEASE.c.task_id).where(LEASE.c.annotator_id == annotator_id, HOLDS_A_PLACE)
    connection.execute(QUEUE.update().where(QUEUE.c.task_id.in_(held)).values(taken=QUEUE.c.taken - 1))
    connection.execute(LEASE.delete().where(LEASE.c.annotator_id == annotator_id))
    search_again(connection, project.id)


def _other_projects(connection: Connection, project: Project, name: str) -> list[str]:
    joined = PROJECT.join(ANNOTATOR, ANNOTATOR.c.project_id == PROJECT.c.id)
    chosen = select(PROJECT.c.name).select_from(joined).where(ANNOTATOR.c.name == name, PROJECT.c.id != project.id)
    return list(connection.scalars(chosen.order_by(PROJECT.c.name)))
