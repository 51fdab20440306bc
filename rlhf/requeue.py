"""A point of a sweep as a job of submitit, which has the scheduler run it again from a signal handler of its own.

What a training loop put off until it had saved is handed on to that handler afterwards. SIGTERM is left alone, as
submitit does: schedulers send it beside the signal that announces the end, or to cancel.
"""

import os
import signal

from sft.core.errors import Interrupted


def in_job() -> bool:
    """Return whether submitit runs this process."""
    return "SUBMITIT_EXECUTOR" in os.environ


def begin_job() -> None:
    """Have training loops leave SIGTERM alone: they leave alone what a process ignores."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def hand_on(interrupted: Interrupted) -> None:
    """Give the signal to the handler that was there before the loop; submitit's ends this process."""
    if interrupted.signal is not None:
        signal.raise_signal(signal.Signals[interrupted.signal])
