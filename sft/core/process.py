"""What Linux says of this boot and of a process, by which processes of one machine tell each other apart."""

from pathlib import Path
from typing import NamedTuple


class Stat(NamedTuple):
    """A process as the kernel has it. Source: proc(5), /proc/PID/stat."""

    state: str
    """A letter; Z and X are processes that have ended."""
    started: int
    """Clock ticks from boot to its start: numbers of processes are used again."""


def boot_id() -> str:
    """Return what names this start of the machine; empty where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def stat(pid: int) -> Stat | None:
    """Return what there is to say of a process; None: there is none, or the system does not tell."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()  # a name may be any bytes
    except OSError:
        return None
    return Stat(after_name[0].decode(), int(after_name[19]))
