"""How somebody gets in: with a link (a new account, a new password) or with name and password.

Hashing a password takes long, so each function opens short write transactions before and after it by itself. Times are
seconds since 1970.
"""

import unicodedata
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, select

from rlhf.labels.accounts import sessions
from rlhf.labels.accounts.attempts import Origin, Wait, begin, remember, succeeded
from rlhf.labels.accounts.passwords import check_password, hash_password, matches
from rlhf.labels.accounts.users import DISABLED, Invite, Role, open_invite, shut, use_invite
from rlhf.labels.storable import check_storable
from rlhf.labels.store import Project, pseudonym
from rlhf.labels.tables import ACCOUNT, ANNOTATOR
from sft.core.errors import DataError, UsageError
from sft.core.visible import visible

Opening = Callable[[], AbstractContextManager[tuple[Connection, Project]]]
"""Opens a write transaction of the project, as `Site.changing` does."""
LONGEST_NAME = 64
NOWHERE = Origin("")
"""Of a person who comes from no address."""


class Refused(NamedTuple):
    """Nobody was let in: name or password is wrong, or there were too many wrong ones and the next has to wait."""

    wait_s: float = 0.0


class Entered(NamedTuple):
    """Somebody was let in, under a session that is new."""

    token: str
    device: str
    """What the browser keeps after log-out too, so that others who guess do not slow its next log-in."""


def log_in(opening: Opening, name: str, password: str, origin: Origin, now: float) -> Entered | Refused:
    """Start a session for name and password; a wrong name takes as long as a wrong password, and looks the same.

    Raises:
        DataError: the name is one that nobody can have.
    """
    name = plain_name(name)
    check_storable(name)
    with opening() as (connection, project):
        known = _known(connection, project, ACCOUNT.c.name == name)
        attempt = begin(connection, project, name, known.account_id, origin, now)
    if isinstance(attempt, Wait):
        return Refused(attempt.seconds)
    if not matches(password, known.password_hash):
        return Refused()
    with opening() as (connection, project):
        if not _is_still(connection, project, known):
            return Refused()
        succeeded(connection, attempt)
        return _entered(connection, project, known.account_id, origin, now)


def change_password(
    opening: Opening, account_id: int, current: str, wanted: str, origin: Origin, now: float
) -> Refused | None:
    """Give an account another password and end all its sessions; who guesses at `current` waits as at log-in.

    Raises:
        DataError: the new password is not good enough.
    """
    with opening() as (connection, project):
        known = _known(connection, project, ACCOUNT.c.id == account_id)
        check_password(wanted, known.name, project.name)
        attempt = begin(connection, project, known.name, account_id, origin, now)
    if isinstance(attempt, Wait):
        return Refused(attempt.seconds)
    if not matches(current, known.password_hash):
        return Refused()
    wanted_hash = hash_password(wanted)
    with opening() as (connection, project):
        if not _is_still(connection, project, known):
            return Refused()
        succeeded(connection, attempt)
        _set_password(connection, account_id, wanted_hash)
    return None


def accept_invite(
    opening: Opening, token: str, name: str, password: str, now: float, origin: Origin = NOWHERE
) -> Entered:
    """Make the account that a link is for, or give it the new password; the link is gone, and the person is in.

    Args:
        opening: of the project.
        token: of the link.
        name: that the person chose; not looked at where the link is for an account that is there.
        password: that the person chose.
        now: seconds since 1970.
        origin: of the request.

    Raises:
        UsageError: the link was used, or is too old.
        DataError: the name cannot be taken, or the password is not good enough; the link still works.
    """
    name = plain_name(name)
    with opening() as (connection, project):
        found = _usable(open_invite(connection, project, token, now))
        if found.account is None:
            _check_name(connection, project, name)
        check_password(password, name if found.account is None else found.account.name, project.name)
    password_hash = hash_password(password)
    with opening() as (connection, project):
        found = _usable(use_invite(connection, project, token, now))
        if found.account is None:
            account_id = _new_account(connection, project, found.role, name, password_hash, now)
        else:
            account_id = found.account.id
            _set_password(connection, account_id, password_hash)
        return _entered(connection, project, account_id, origin, now)


def plain_name(name: str) -> str:
    """Return a name without the outer spaces that keyboards add, and in one spelling of accents."""
    return unicodedata.normalize("NFC", name).strip()


def _entered(connection: Connection, project: Project, account_id: int, origin: Origin, now: float) -> Entered:
    device = remember(connection, project, account_id, origin, now)
    return Entered(sessions.start(connection, account_id, now), device)


class _Known(NamedTuple):
    account_id: int
    name: str
    password_hash: str


def _known(connection: Connection, project: Project, which: ColumnElement[bool]) -> _Known:
    """Return an account with its hash; where there is none, one that no password fits."""
    columns = (ACCOUNT.c.id, ACCOUNT.c.name, ACCOUNT.c.password_hash)
    row = connection.execute(select(*columns).where(ACCOUNT.c.project_id == project.id, which)).one_or_none()
    return _Known(0, "", DISABLED) if row is None else _Known(*row)


def _is_still(connection: Connection, project: Project, known: _Known) -> bool:
    """Say whether the account has the password that was looked at, since that took a while."""
    return _known(connection, project, ACCOUNT.c.id == known.account_id) == known


def _set_password(connection: Connection, account_id: int, password_hash: str) -> None:
    connection.execute(ACCOUNT.update().where(ACCOUNT.c.id == account_id).values(password_hash=password_hash))
    shut(connection, account_id)


def _usable(found: Invite | None) -> Invite:
    if found is None:
        raise UsageError("this link was used already or is too old; ask an owner of the project for a new one")
    return found


def _check_name(connection: Connection, project: Project, name: str) -> None:
    """Raise DataError unless a new account may have this name, of which its labels will tell the pseudonym."""
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable() or visible(name) != name:
        raise DataError(f"a name has 1 to {LONGEST_NAME} letters, digits, spaces or signs; choose another one")
    same = (ANNOTATOR.c.project_id == project.id, ANNOTATOR.c.pseudonym == pseudonym(project.pseudonym_key, name))
    is_annotator = connection.scalar(select(ANNOTATOR.c.id).where(*same)) is not None
    if is_annotator or _known(connection, project, ACCOUNT.c.name == name).account_id:
        raise DataError(f"the name {name!r} is taken, or was and may not be used again; choose another one")


def _new_account(
    connection: Connection, project: Project, role: Role, name: str, password_hash: str, now: float
) -> int:
    _check_name(connection, project, name)
    annotator_id = _new_annotator(connection, project, name) if role is Role.ANNOTATOR else None
    created_at = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
    about = {"project_id": project.id, "annotator_id": annotator_id, "name": name, "role": role.value}
    made = ACCOUNT.insert().values(**about, password_hash=password_hash, created_at=created_at)
    account_id: int = connection.execute(made.returning(ACCOUNT.c.id)).scalar_one()
    return account_id


def _new_annotator(connection: Connection, project: Project, name: str) -> int:
    about = {"project_id": project.id, "name": name, "pseudonym": pseudonym(project.pseudonym_key, name)}
    made = ANNOTATOR.insert().values(**about).returning(ANNOTATOR.c.id)
    annotator_id: int = connection.execute(made).scalar_one()
    return annotator_id
