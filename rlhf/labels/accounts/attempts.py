"""What slows down the guessing of passwords: after some wrong ones the next try has to wait, longer each time.

A try is counted before its password is looked at, so that a hundred at once are not a hundred free ones; a right one
takes its count back. Wrong ones are counted three ways. Name and address together wait longest: whoever guesses from
one address never locks out the person, who comes from another. An address waits after many wrong ones for whatever
names. A name waits after very many from wherever, but only a minute, so that guessing from a thousand addresses stays
slow and its owner still gets in. Names that nobody has are counted all the same: the answer tells nothing.
"""

import hmac
from hashlib import sha256
from ipaddress import IPv4Address, ip_address, ip_network
from typing import NamedTuple

from sqlalchemy import Connection, select

from rlhf.labels.store import Project
from rlhf.labels.tables import ATTEMPTS

FORGOTTEN_AFTER_S = 86_400.0
"""Without a wrong try for so long, a name or address starts anew."""


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

    name_keys: tuple[bytes, ...]
    address_key: bytes
    address_failures: int
    address_blocked_until: float
    """As it was before this try."""


class Wait(NamedTuple):
    """A try that was not looked at, and not counted."""

    seconds: float


def begin(connection: Connection, project: Project, name: str, address: str, now: float) -> Attempt | Wait:
    """Count a try before its password is looked at, or say how long to wait.

    Args:
        connection: inside a write transaction.
        project: that the person logs in to.
        name: as it was typed in, whether there is such a person or not.
        address: of the client; of an IPv6 address the first 64 bits count, which one customer has.
        now: seconds since 1970.
    """
    connection.execute(ATTEMPTS.delete().where(ATTEMPTS.c.blocked_until < now - FORGOTTEN_AFTER_S))
    place = _place(address)
    limits = {
        _key(project, "name and address", name, place): BY_NAME_AND_ADDRESS,
        _key(project, "name", name): BY_NAME,
        _key(project, "address", place): BY_ADDRESS,
    }
    before = {key: _row(connection, key, now) for key in limits}
    wait = max(row.blocked_until for row in before.values()) - now
    if wait > 0:
        return Wait(wait)
    for key, limit in limits.items():
        failures = before[key].failures + 1
        _store(connection, key, _Row(failures, now + limit.delay(failures)))
    *name_keys, address_key = limits
    return Attempt(tuple(name_keys), address_key, *before[address_key])


def succeeded(connection: Connection, attempt: Attempt) -> None:
    """Forget the wrong tries at this name, from here and from wherever, and count this one not to the address.

    What others did wrong from the same address stays: somebody with an account of their own could else begin anew by
    logging in to it.
    """
    connection.execute(ATTEMPTS.delete().where(ATTEMPTS.c.key.in_(attempt.name_keys)))
    found = _row(connection, attempt.address_key, 0.0)
    is_last = found.failures == attempt.address_failures + 1
    until = attempt.address_blocked_until if is_last else found.blocked_until
    _store(connection, attempt.address_key, _Row(max(found.failures - 1, 0), until))


class _Row(NamedTuple):
    failures: int
    blocked_until: float
    """When the wait ends; without one, the time of the last try."""


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
