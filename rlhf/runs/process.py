"""Names a process so that others can tell, at once or after a reboot, whether it still runs."""

import os
import socket
from enum import StrEnum
from typing import NamedTuple

from sft.core.process import boot_id, stat

_ENDED = "ZX"
"""States of a process that has ended, and whose parent has not yet asked how."""


class Process(NamedTuple):
    """A process of some machine."""

    host: str
    boot_id: str
    """Of the kernel's start; a reboot gives another one. Empty where the system has none."""
    pid: int
    started: int
    """Clock ticks from boot to the process's start, by which a later process with the same number differs; 0 where
    the system does not tell."""


class Life(StrEnum):
    """Whether a process runs."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"
    """It belongs to another machine."""


def this_process() -> Process:
    """Return the process that calls."""
    return Process(socket.gethostname(), boot_id(), os.getpid(), _start_ticks(os.getpid()))


def life(process: Process, *, seen_from: Process) -> Life:
    """Return whether a process runs, as far as a process of this machine can see."""
    if process.host != seen_from.host:
        return Life.UNKNOWN
    if process.boot_id != seen_from.boot_id or not _exists(process.pid):
        return Life.DEAD
    found = stat(process.pid)
    if found is None:
        return Life.ALIVE if process.started == 0 else Life.DEAD
    ended = found.state in _ENDED or found.started != process.started
    return Life.DEAD if ended else Life.ALIVE


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _start_ticks(pid: int) -> int:
    found = stat(pid)
    return 0 if found is None else found.started
