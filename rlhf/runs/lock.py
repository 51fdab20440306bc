"""One process at a time writes a run's folder.

The kernel's lock on `run.lock` decides on one machine, and ends with the process that holds it, however that ends. What
stands in the file decides between machines that share a disk: they see it, and may not see each other's locks.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlhf.runs.process import Life, Process, life, this_process
from sft.core.durable import storage_errors
from sft.core.errors import UsageError

LOCK_FILE = "run.lock"


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Be the one that writes a run's folder; the lock of a process that was killed is taken over.

    Raises:
        UsageError: another process writes it, or one of another machine may.
        StorageError: the disk refuses.
    """
    path = folder / LOCK_FILE
    with storage_errors(path, "lock"):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        with storage_errors(path, "lock"):
            _take(descriptor, path)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)  # free for every machine; the kernel's lock ends with `close`
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: Path) -> None:
    me = this_process()
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(_in_use(path, _holder(descriptor))) from None
    holder = _holder(descriptor)
    if holder is not None and life(holder, seen_from=me) is Life.UNKNOWN and holder.boot_id != me.boot_id:
        raise UsageError(
            f"{path.parent} was last written by process {holder.pid} of {holder.host}, which did not say it ended; "
            f"once it has, remove {path} and run the same command again"
        )
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(me._asdict()).encode(), 0)
    os.fsync(descriptor)


def _holder(descriptor: int) -> Process | None:
    """Return the process that the file names; None for an empty or half-written one."""
    try:
        fields = json.loads(os.pread(descriptor, 4096, 0))
        return Process(str(fields["host"]), str(fields["boot_id"]), int(fields["pid"]), int(fields["started"]))
    except (ValueError, KeyError, TypeError):
        return None


def _in_use(path: Path, holder: Process | None) -> str:
    who = "another process" if holder is None else f"process {holder.pid} of {holder.host}"
    return (
        f"{path.parent} is being written by {who}; wait for it or stop it, or give this run a folder of its own "
        "(hydra.run.dir=DIR)"
    )
