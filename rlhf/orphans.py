"""A point of a sweep in a worker process, whose launcher may be killed: then it is interrupted, and the worker ends.

Otherwise it would go on with nobody to tell, beside the same command started again.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rlhf.runs.process import Life, Process, life, this_process
from sft.core.interruption import stop_at_signals

LOOK_S = 1.0
"""Between two looks at the launcher."""
_at_work = threading.Lock()
"""Held while a point is computed."""
_watches: list[threading.Thread] = []


@contextmanager
def working_for(launcher: Process) -> Iterator[None]:
    """Compute a point in the block; nothing is watched where the launcher computes it itself."""
    if launcher == this_process():
        yield
        return
    if not _watches:
        stop_at_signals()
        _watches.append(threading.Thread(target=_watch, args=(launcher,), name="launcher", daemon=True))
        _watches[0].start()
    with _at_work:
        yield


def _watch(launcher: Process) -> None:
    me = this_process()
    while life(launcher, seen_from=me) is not Life.DEAD:
        time.sleep(LOOK_S)
    if _at_work.locked():
        os.kill(os.getpid(), signal.SIGTERM)
    with _at_work:  # once what was computed is saved and closed
        os._exit(75)
