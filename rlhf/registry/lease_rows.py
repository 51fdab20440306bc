"""Who makes what, as the database knows it: one lease a fingerprint, and the SQL of it.

Tokens grow and never come back, so that a holder that was given up can be told from the next one. Whether a holder
lives is seen by its beat, a number that it raises, or by its process, where that is on this machine: never by a clock.
"""

import os
import socket
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from sqlalchemy import Connection, select

from rlhf.registry.tables import LEASES
from sft.core.process import boot_id, stat


class Owner(NamedTuple):
    """A process, so that another one can tell whether it still is."""

    host: str
    boot: str
    """Of the machine's start and the process namespace; empty where the system does not say."""
    pid: int
    started: str
    """When the process began, in the machine's own count: numbers of processes are used again."""

    def __str__(self) -> str:
        """Return it for people."""
        return f"process {self.pid} on {self.host}"

    def is_dead(self) -> bool:
        """Tell whether it was a process of this machine that is gone for sure."""
        return self._is_here() and _started(self.pid) != self.started

    def is_alive(self) -> bool:
        """Tell whether it is a process of this machine that is there for sure, perhaps stopped."""
        return self._is_here() and _started(self.pid) == self.started

    def _is_here(self) -> bool:
        return bool(self.boot) and self.boot == _boot()


class Lease(NamedTuple):
    """The right of one process to make one product."""

    token: int
    fingerprint: str
    owner: Owner
    beat: int


@dataclass(frozen=True)
class LeaseRows:
    """The leases, inside one open transaction."""

    _connection: Connection

    def all(self) -> list[Lease]:
        """Return all leases, oldest first."""
        rows = self._connection.execute(select(LEASES).order_by(LEASES.c.token))
        return [Lease(r.token, r.fingerprint, Owner(r.host, r.boot, r.pid, r.started), r.beat) for r in rows]

    def of(self, fingerprint: str) -> Lease | None:
        """Return the lease of a fingerprint, or None."""
        row = self._connection.execute(select(LEASES).where(LEASES.c.fingerprint == fingerprint)).one_or_none()
        if row is None:
            return None
        return Lease(row.token, row.fingerprint, Owner(row.host, row.boot, row.pid, row.started), row.beat)

    def take(self, fingerprint: str) -> Lease:
        """Give this process a lease with a new token; one that was there ends."""
        self._connection.execute(LEASES.delete().where(LEASES.c.fingerprint == fingerprint))
        owner = this_process()
        values = {"fingerprint": fingerprint, "beat": 0, **owner._asdict()}
        token = self._connection.scalar(LEASES.insert().values(values).returning(LEASES.c.token))
        assert isinstance(token, int)
        return Lease(token, fingerprint, owner, 0)

    def beat(self, token: int) -> bool:
        """Show that a holder lives; False: it holds the lease no more."""
        beaten = LEASES.update().where(LEASES.c.token == token).values(beat=LEASES.c.beat + 1)
        return self._connection.execute(beaten).rowcount == 1

    def holds(self, token: int) -> bool:
        """Tell whether a token is valid, and keep it so until the transaction ends."""
        statement = select(LEASES.c.token).where(LEASES.c.token == token).with_for_update()
        return self._connection.scalar(statement) is not None

    def end(self, token: int) -> None:
        """End a lease if it is still held."""
        self._connection.execute(LEASES.delete().where(LEASES.c.token == token))


def this_process() -> Owner:
    """Return what other processes see of this one."""
    return Owner(socket.gethostname(), _boot(), os.getpid(), _started(os.getpid()))


@cache
def _boot() -> str:
    boot = boot_id()
    try:
        return boot and f"{boot} {os.readlink('/proc/self/ns/pid')}"  # in a container, numbers of processes are its own
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Return when a process began, in ticks since the machine's start; empty where there is none, or a corpse."""
    found = stat(pid)
    return "" if found is None or found.state in "ZX" else str(found.started)
