"""Who may use the label page: accounts with a role, and the links by which they are made or get a new password.

Every function runs inside a write transaction of its project (those that only look also inside a snapshot). Times are
seconds since 1970. Logging in is authentication.py, who is logged in sessions.py.
"""

import hashlib
import secrets
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, select

from rlhf.labels.storable import check_storable
from rlhf.labels.tables import ACCOUNT, INVITE, SESSION
from sft.core.errors import UsageError

if TYPE_CHECKING:
    from rlhf.labels.store import Project

INVITE_DAYS = 7.0
RESET_DAYS = 1.0
DISABLED = ""
"""In place of a password's hash: no password fits."""
_DAY = 86_400.0


class Role(StrEnum):
    """What an account may do."""

    OWNER = "owner"
    ANNOTATOR = "annotator"


class Account(NamedTuple):
    """Who may log in."""

    id: int
    name: str
    role: Role
    annotator_id: int | None
    """None: an owner, who does not label."""
    created_at: str
    paused_at: float | None
    """Since when an annotator gets no tasks; None: they do."""
    paused_reason: str | None
    is_disabled: bool
    """Cannot log in until they get a new password."""


class Invite(NamedTuple):
    """What a link is for."""

    role: Role
    expires_at: float
    account: Account | None
    """Who gets a new password; None: the link makes a new account."""


def invite(connection: Connection, project: "Project", role: Role, now: float, days: float = INVITE_DAYS) -> str:
    """Return the token of a link that makes one account and then is gone; the database holds only its sha256."""
    return _new_invite(connection, project, role, now, days, None)


def invite_reset(connection: Connection, project: "Project", name: str, now: float, days: float = RESET_DAYS) -> str:
    """Return the token of a link that gives an account a new password; earlier such links end.

    Raises:
        UsageError: there is no such account.
    """
    found = account(connection, project, name)
    connection.execute(INVITE.delete().where(INVITE.c.account_id == found.id))
    return _new_invite(connection, project, found.role, now, days, found.id)


def open_invite(connection: Connection, project: "Project", token: str, now: float) -> Invite | None:
    """Return what a link is for; None: it was used, is too old, or never was."""
    columns = (INVITE.c.role, INVITE.c.expires_at, INVITE.c.account_id)
    row = connection.execute(select(*columns).where(*_of_token(project, token, now))).one_or_none()
    if row is None:
        return None
    person = None if row.account_id is None else _accounts(connection, project, row.account_id)[0]
    return Invite(Role(row.role), row.expires_at, person)


def use_invite(connection: Connection, project: "Project", token: str, now: float) -> Invite | None:
    """Return what a link is for and end it, so that it works once; None as `open_invite`."""
    found = open_invite(connection, project, token, now)
    if found is not None:
        connection.execute(INVITE.delete().where(*_of_token(project, token, now)))
    return found


def accounts(connection: Connection, project: "Project") -> list[Account]:
    """Return all accounts of a project, oldest first."""
    return _accounts(connection, project)


def account(connection: Connection, project: "Project", name: str) -> Account:
    """Return an account. Raises UsageError that names those there are."""
    there_are = _accounts(connection, project)
    found = next((person for person in there_are if person.name == name), None)
    if found is None:
        names = ", ".join(person.name for person in there_are) or "none"
        raise UsageError(
            f"project {project.name!r} has no account {name!r}; there are: {names}; make one with: rlhf labels users "
            "invite"
        )
    return found


def has_owner(connection: Connection, project: "Project") -> bool:
    """Say whether some owner can log in."""
    return any(person.role is Role.OWNER and not person.is_disabled for person in _accounts(connection, project))


def pause(connection: Connection, project: "Project", name: str, reason: str, now: float) -> None:
    """Give an annotator no more tasks until `resume`; they can still log in and see the reason.

    Raises:
        UsageError: there is no such account, or it is an owner's.
        DataError: the reason cannot be stored.
    """
    check_storable(reason)
    found = account(connection, project, name)
    if found.role is Role.OWNER:
        raise UsageError(f"{name!r} is an owner and does not label; name an annotator")
    connection.execute(ACCOUNT.update().where(ACCOUNT.c.id == found.id).values(paused_at=now, paused_reason=reason))


def resume(connection: Connection, project: "Project", name: str) -> None:
    """Let a paused annotator go on. Raises UsageError where there is no such account."""
    found = account(connection, project, name)
    connection.execute(ACCOUNT.update().where(ACCOUNT.c.id == found.id).values(paused_at=None, paused_reason=None))


def disable(connection: Connection, project: "Project", name: str) -> None:
    """Log somebody out and keep them out until they get a new password (`invite_reset`); labels stay.

    Raises:
        UsageError: there is no such account, or it is the last owner's.
    """
    found = account(connection, project, name)
    others = [p for p in _accounts(connection, project) if p.role is Role.OWNER and not p.is_disabled and p != found]
    if found.role is Role.OWNER and not others:
        raise UsageError(f"{name!r} is the last owner who can log in; invite another owner first")
    shut(connection, found.id)
    connection.execute(ACCOUNT.update().where(ACCOUNT.c.id == found.id).values(password_hash=DISABLED))


def remove_account(connection: Connection, annotator_id: int) -> None:
    """Remove an annotator's account with its sessions and links, as an erasure needs it; none: nothing happens."""
    for account_id in connection.scalars(select(ACCOUNT.c.id).where(ACCOUNT.c.annotator_id == annotator_id)).all():
        shut(connection, account_id)
        connection.execute(ACCOUNT.delete().where(ACCOUNT.c.id == account_id))


def shut(connection: Connection, account_id: int) -> None:
    """End all sessions of an account, and the links that would give it a new password."""
    connection.execute(SESSION.delete().where(SESSION.c.account_id == account_id))
    connection.execute(INVITE.delete().where(INVITE.c.account_id == account_id))


def _new_invite(
    connection: Connection, project: "Project", role: Role, now: float, days: float, account_id: int | None
) -> str:
    if not 0 < days <= 366:
        raise UsageError(f"a link cannot be good for {days:g} days; give more than 0 and at most 366")
    connection.execute(INVITE.delete().where(INVITE.c.expires_at <= now))
    token = secrets.token_urlsafe(32)
    times = {"created_at": now, "expires_at": now + days * _DAY}
    about = {"token_digest": _digest(token), "project_id": project.id, "role": role.value, "account_id": account_id}
    connection.execute(INVITE.insert().values(**about, **times))
    return token


def _of_token(project: "Project", token: str, now: float) -> tuple[ColumnElement[bool], ...]:
    same = (INVITE.c.token_digest == _digest(token), INVITE.c.project_id == project.id)
    return (*same, INVITE.c.expires_at > now)


def _accounts(connection: Connection, project: "Project", account_id: int | None = None) -> list[Account]:
    mine = select(ACCOUNT).where(ACCOUNT.c.project_id == project.id).order_by(ACCOUNT.c.id)
    chosen = mine if account_id is None else mine.where(ACCOUNT.c.id == account_id)
    return [_account(row) for row in connection.execute(chosen)]


def _account(row: Row[tuple[object, ...]]) -> Account:
    return Account(
        id=row.id,
        name=row.name,
        role=Role(row.role),
        annotator_id=row.annotator_id,
        created_at=row.created_at,
        paused_at=row.paused_at,
        paused_reason=row.paused_reason,
        is_disabled=row.password_hash == DISABLED,
    )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
