"""Who is logged in to the label page. The browser holds a random token, the database its sha256.

A session ends at log-out, after `IDLE_S` without a request, at the latest after `LONGEST_S`, and where its account has
begun `MOST_OF_ACCOUNT` others since. Times are seconds since 1970.
"""

import hashlib
import hmac
import secrets
from typing import NamedTuple

from sqlalchemy import Connection, select

from rlhf.labels.accounts.users import Role
from rlhf.labels.store import Project
from rlhf.labels.tables import ACCOUNT, SESSION

IDLE_S = 8 * 3600.0
LONGEST_S = 7 * 86_400.0
MOST_OF_ACCOUNT = 50
"""Sessions that one account has at once: a program that logs in for every request fills no disk."""
TOUCHED_EVERY_S = 600.0
"""How old a session's last use may look: the less often it is written, the less a request waits for the lock."""


class Session(NamedTuple):
    """A session that holds now, and whose it is."""

    digest: bytes
    account_id: int
    name: str
    role: Role
    annotator_id: int | None
    created_at: float
    expires_at: float


def start(connection: Connection, account_id: int, now: float) -> str:
    """Start a session and return its token, 256 random bits; sessions that are over leave the database."""
    connection.execute(SESSION.delete().where(SESSION.c.expires_at <= now))
    newest_first = select(SESSION.c.token_digest).where(SESSION.c.account_id == account_id)
    too_many = newest_first.order_by(SESSION.c.created_at.desc()).offset(MOST_OF_ACCOUNT - 1)
    connection.execute(SESSION.delete().where(SESSION.c.token_digest.in_(too_many)))
    token = secrets.token_urlsafe(32)
    times = {"created_at": now, "expires_at": _expiry(now, now)}
    connection.execute(SESSION.insert().values(token_digest=_digest(token), account_id=account_id, **times))
    return token


def find(connection: Connection, project: Project, token: str, now: float) -> Session | None:
    """Return the session of a token; None: it ended, or it is another project's."""
    columns = (SESSION.c.account_id, SESSION.c.created_at, SESSION.c.expires_at)
    of_person = (ACCOUNT.c.name, ACCOUNT.c.role, ACCOUNT.c.annotator_id)
    digest = _digest(token)
    row = connection.execute(
        select(*columns, *of_person)
        .select_from(SESSION.join(ACCOUNT, ACCOUNT.c.id == SESSION.c.account_id))
        .where(SESSION.c.token_digest == digest, SESSION.c.expires_at > now, ACCOUNT.c.project_id == project.id)
    ).one_or_none()
    if row is None:
        return None
    who = (row.account_id, row.name, Role(row.role), row.annotator_id)
    return Session(digest, *who, row.created_at, row.expires_at)


def is_stale(session: Session, now: float) -> bool:
    """Say whether `touch` is due."""
    return _expiry(session.created_at, now) - session.expires_at >= TOUCHED_EVERY_S


def touch(connection: Connection, session: Session, now: float) -> None:
    """Write down that a session is in use; one that ended meanwhile stays ended."""
    same = SESSION.update().where(SESSION.c.token_digest == session.digest)
    connection.execute(same.values(expires_at=_expiry(session.created_at, now)))


def end(connection: Connection, digest: bytes) -> None:
    """End one session; all of an account's end with `rlhf.labels.accounts.users.shut`."""
    connection.execute(SESSION.delete().where(SESSION.c.token_digest == digest))


def csrf_token(token: str) -> str:
    """Return what every form of a session sends back; it does not tell the session's token."""
    return hmac.new(token.encode(), b"csrf", hashlib.sha256).hexdigest()


def _expiry(created_at: float, now: float) -> float:
    return min(now + IDLE_S, created_at + LONGEST_S)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
