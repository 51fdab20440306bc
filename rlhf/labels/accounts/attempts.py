"""What slows down the guessing of passwords: after some wrong ones the next try has to wait, longer each time.

A try is counted before its password is looked at, so that a hundred at once are not a hundred free ones; a right one
takes its count back. Wrong ones are counted three ways. Name and address together wait longest: whoever guesses from
one address never locks out the person, who comes from another. An address waits after many wrong ones for whatever
names. A name waits after very many from wherever, but only a minute, so that guessing from a thousand addresses stays
slow and its owner still gets in. Names that nobody has are counted all the same: the answer tells nothing.

Who has logged in before is not slowed by the wrong tries of others: from the same browser, which keeps a random token
for it, only the wrong tries with that token count; from the same address those of the name from elsewhere do not. A
stolen token, or a shared address, is worth the few tries of one address. Source: OWASP, "Slow Down Online Guessing
Attacks with Device Cookies".

What is counted and what is known has a bound each, so that tries for ever new names from ever new addresses fill no
disk and make nobody's log-in slow: beyond it the oldest is forgotten, and what has to wait longest last.
"""

import hmac
import secrets
from hashlib import sha256
from ipaddress import IPv4Address, ip_address, ip_network
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, func, select

from rlhf.labels.store import Project
from rlhf.labels.tables import ATTEMPTS

FORGOTTEN_AFTER_S = 86_400.0
"""Without a wrong try for so long, a name or address starts anew."""
KNOWN_FOR_S = 90 * 86_400.0
"""How long a browser or address stays known to an account after a log-in."""
MOST_ROWS = 100_000
"""Of the counts of wrong tries, and as many of what is known; looking through them takes some 10 ms."""
_LEFT_OF_TOO_MANY = 90_000
"""So many stay, for putting them in order takes longer."""


class Origin(NamedTuple):
    """Where a try comes from."""

    address: str
    """Of the client; of an IPv6 address the first 64 bits count, which one customer has."""
    device: str = ""
    """The token that its browser was given at an earlier log-in; empty: none."""


class Limit(NamedTuple):
    """After `free` wrong tries the next waits 1 s, then 2, 4 ... up to `longest_s`."""

    free: int
    longest_s: float

    def delay(self, failures: int) -> float:
        """Return how long to wait after so many wrong tries, in seconds."""
        return 0.0 if failures < self.free else min(2.0 ** min(failures - self.free, 30), self.longest_s)


BY_NAME_AND_ADDRESS = Limit(5, 3600.0)
BY_ADDRESS = Limit(50, 300.0)
BY_NAME = Limit(100, 60.0)


class Attempt(NamedTuple):
    """A try that was counted as a wrong one; `succeeded` takes it back."""

    own_keys: tuple[bytes, ...]
    """What a right one forgets."""
    address: "_Before | None"
    """None: the address does not count for this try."""


class Wait(NamedTuple):
    """A try that was not looked at, and not counted."""

    seconds: float


def begin(
    connection: Connection, project: Project, name: str, account_id: int, origin: Origin, now: float
) -> Attempt | Wait:
    """Count a try before its password is looked at, or say how long to wait.

    Args:
        connection: inside a write transaction.
        project: that the person logs in to.
        name: as it was typed in, whether there is such a person or not.
        account_id: of that name; 0: there is none.
        origin: of the try.
        now: seconds since 1970.
    """
    _forget(connection, now)
    own, address = _limits(connection, project, name, account_id, origin, now)
    limits = own | address
    before = {key: _row(connection, key, now) for key in limits}
    wait = max(row.blocked_until for row in before.values()) - now
    if wait > 0:
        return Wait(wait)
    for key, limit in limits.items():
        failures = before[key].failures + 1
        _store(connection, key, _Row(failures, now + limit.delay(failures)))
    return Attempt(tuple(own), next((_Before(key, before[key]) for key in address), None))


def succeeded(connection: Connection, attempt: Attempt) -> None:
    """Forget the wrong tries that slow this one, and count this one not to the address.

    What others did wrong from the same address stays: somebody with an account of their own could else begin anew by
    logging in to it.
    """
    connection.execute(ATTEMPTS.delete().where(ATTEMPTS.c.key.in_(attempt.own_keys)))
    if attempt.address is None:
        return
    key, before = attempt.address
    found = _row(connection, key, 0.0)
    is_last = found.failures == before.failures + 1
    until = before.blocked_until if is_last else found.blocked_until
    _store(connection, key, _Row(max(found.failures - 1, 0), until))


def remember(connection: Connection, project: Project, account_id: int, origin: Origin, now: float) -> str:
    """Make a browser and an address known to an account that got in, and return the browser's token.

    A browser keeps a token that the account knows, and gets a new one in place of any other: nobody can choose it for
    somebody else.
    """
    is_known = _is_known(connection, _device_key(project, account_id, origin.device), now)
    device = origin.device if is_known else secrets.token_urlsafe(32)
    known = _Row(0, now + KNOWN_FOR_S)
    _store(connection, _device_key(project, account_id, device), known)
    if origin.address:
        _store(connection, _address_key(project, account_id, origin.address), known)
    return device


def _forget(connection: Connection, now: float) -> None:
    """Remove what is over, and the oldest of what is too much."""
    connection.execute(ATTEMPTS.delete().where(ATTEMPTS.c.blocked_until < now - FORGOTTEN_AFTER_S))
    for kind in (ATTEMPTS.c.failures > 0, ATTEMPTS.c.failures == 0):
        _forget_oldest(connection, kind)


def _forget_oldest(connection: Connection, kind: ColumnElement[bool]) -> None:
    rows = connection.scalar(select(func.count()).select_from(ATTEMPTS).where(kind)) or 0
    if rows <= MOST_ROWS:
        return
    newest_first = select(ATTEMPTS.c.blocked_until).where(kind).order_by(ATTEMPTS.c.blocked_until.desc())
    until = connection.scalar(newest_first.offset(_LEFT_OF_TOO_MANY).limit(1))
    connection.execute(ATTEMPTS.delete().where(kind, ATTEMPTS.c.blocked_until <= until))


_Limits = dict[bytes, Limit]


def _limits(
    connection: Connection, project: Project, name: str, account_id: int, origin: Origin, now: float
) -> tuple[_Limits, _Limits]:
    """Return what counts for a try: that of the name, and that of the address, which others log in from too."""
    place = _place(origin.address)
    if _is_known(connection, _device_key(project, account_id, origin.device), now):
        return {_key(project, "name and device", name, origin.device): BY_NAME_AND_ADDRESS}, {}
    own = {_key(project, "name and address", name, place): BY_NAME_AND_ADDRESS}
    if not _is_known(connection, _address_key(project, account_id, origin.address), now):
        own[_key(project, "name", name)] = BY_NAME
    return own, {_key(project, "address", place): BY_ADDRESS}


def _device_key(project: Project, account_id: int, device: str) -> bytes:
    return _key(project, "known device", str(account_id), device)


def _address_key(project: Project, account_id: int, address: str) -> bytes:
    return _key(project, "known address", str(account_id), _place(address))


def _is_known(connection: Connection, key: bytes, now: float) -> bool:
    """Say whether an account has got in from a browser or address; 0, which is no account, never has."""
    until = connection.scalar(select(ATTEMPTS.c.blocked_until).where(ATTEMPTS.c.key == key))
    return until is not None and until > now


class _Row(NamedTuple):
    failures: int
    blocked_until: float
    """When the wait ends; without one, the time of the last try. Of what is known: until when."""


class _Before(NamedTuple):
    key: bytes
    row: _Row
    """As it was before the try."""


def _row(connection: Connection, key: bytes, now: float) -> _Row:
    columns = (ATTEMPTS.c.failures, ATTEMPTS.c.blocked_until)
    row = connection.execute(select(*columns).where(ATTEMPTS.c.key == key)).one_or_none()
    return _Row(0, now) if row is None else _Row(*row)


def _store(connection: Connection, key: bytes, row: _Row) -> None:
    connection.execute(ATTEMPTS.delete().where(ATTEMPTS.c.key == key))
    connection.execute(ATTEMPTS.insert().values(key=key, **row._asdict()))


def _key(project: Project, *parts: str) -> bytes:
    """Return what stands for a name or an address: without the project's key nobody can try which it was."""
    return hmac.new(project.pseudonym_key, "\0".join(parts).encode(), sha256).digest()


def _place(address: str) -> str:
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if isinstance(found, IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ip_network((found, 64), strict=False))
