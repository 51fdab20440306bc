"""Names a process so that others can tell, at once or after a reboot, whether it still runs."""

import os
import socket
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple


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
    return Process(socket.gethostname(), _boot_id(), os.getpid(), _start_ticks(os.getpid()))


def life(process: Process, *, seen_from: Process) -> Life:
    """Return whether a process runs, as far as a process of this machine can see."""
    if process.host != seen_from.host:
        return Life.UNKNOWN
    if process.boot_id != seen_from.boot_id or not _exists(process.pid):
        return Life.DEAD
    return Life.ALIVE if _start_ticks(process.pid) == process.started else Life.DEAD


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _start_ticks(pid: int) -> int:
    """Source: proc(5), field 22 of /proc/PID/stat, counted from behind the command's closing bracket."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[19])
