"""Stopping from outside: a training loop ends at the border of a step, after saving, when a signal asks for it.

Everything else ends at once: what is unfinished there is done again, from what is registered. The end itself is left in
peace: only a second Ctrl-C disturbs it.

SIGTERM comes from schedulers and `kill`, SIGUSR1 and SIGUSR2 from SLURM's early warning (`--signal`), SIGINT from
Ctrl-C.
"""

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType

from sft.core.errors import Interrupted

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)

_Handler = Callable[[int, FrameType | None], object] | int
_STDERR = 2
_AGAIN_S = 0.01

_open_blocks: list["Interruption"] = []
"""Those of the main thread, the innermost last: signals belong to the process."""
_stopped_by: list[str] = []
"""Names of the signals that came since `stop_at_signals`."""
_whole_blocks: list["Whole"] = []
"""Those of the main thread that are open."""


class Stopped(KeyboardInterrupt):
    """A signal came; the text is its name.

    A class of its own: where a plain KeyboardInterrupt has passed through `exec`, as when a module with a dataclass is
    imported, Python in the end kills itself with SIGINT, whatever the exit code.
    """


def leave_at_signals(exit_code: int, said: str = "") -> None:
    """Have every signal end the process at once with this exit code, where nothing is open that must be closed.

    Args:
        exit_code: of a command that has begun nothing yet, or that has told its result.
        said: what the person who watches is told then.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        with suppress(OSError):
            os.write(_STDERR, said.encode())
        os._exit(exit_code)

    _handle(leave)


def stop_at_signals() -> None:
    """From here on a signal raises Stopped with its name, for the rest of the process.

    Not an Exception: libraries swallow those. Where Python itself drops it, since the signal came within a finalizer or
    a callback of the garbage collector, it is raised again a moment later. After the first signal only Ctrl-C still
    raises it, so that what is open can be closed. While the interpreter itself ends, after all exit handlers, signals
    do nothing.
    """
    _handle(_stop)
    signal.signal(signal.SIGALRM, _raise_again)
    sys.unraisablehook = _hear_what_was_dropped
    atexit.register(_handle, signal.SIG_IGN)


def stopped_by() -> str | None:
    """Return the name of the first signal that came since `stop_at_signals`, whoever may have swallowed it."""
    return _stopped_by[0] if _stopped_by else None


class Whole:
    """A short block that a signal does not cut: what it would have raised within is raised at the end.

    For what holds a lock that the closing needs as well. A second Ctrl-C cuts it all the same.
    """

    def __init__(self) -> None:
        self._put_off = False

    def __enter__(self) -> None:
        """Begin to put off."""
        if threading.current_thread() is threading.main_thread():
            _whole_blocks.append(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raise what was put off, unless something else is being raised: `stopped_by` tells of it then."""
        if self in _whole_blocks:
            _whole_blocks.remove(self)
        if self._put_off and error is None:
            raise Stopped(stopped_by())

    def put_off(self) -> None:
        """Remember that a signal came."""
        self._put_off = True


def raise_if_stopped() -> None:
    """Raise Interrupted if a signal came, and a library that was at work then has swallowed it."""
    name = stopped_by()
    if name is not None:
        raise Interrupted(f"interrupted by {name}; the same command carries on after the last stage", signal=name)


def _handle(handler: _Handler) -> None:
    for number in SIGNALS:
        if signal.getsignal(number) not in (signal.SIG_IGN, None):  # None: a C library's
            signal.signal(number, handler)


def _hear_what_was_dropped(dropped: "sys.UnraisableHookArgs") -> None:
    if _stopped_by and dropped.exc_type is Stopped:
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
    else:
        sys.__unraisablehook__(dropped)


def _raise_again(number: int, frame: FrameType | None) -> None:
    _raise_or_put_off()


def _stop(number: int, frame: FrameType | None) -> None:
    _stopped_by.append(signal.Signals(number).name)
    if len(_stopped_by) == 1:
        _raise_or_put_off()
    elif number == signal.SIGINT:
        raise Stopped(_stopped_by[0])


def _raise_or_put_off() -> None:
    if not _whole_blocks:
        raise Stopped(_stopped_by[0])
    _whole_blocks[0].put_off()


class Interruption:
    """Takes note of signals inside a `with` block instead of dying of them.

    The loop calls `raise_if_requested` where everything is saved. A second Ctrl-C raises KeyboardInterrupt at once. A
    request that nobody has answered by the end of the block raises Interrupted there. Blocks may be nested: a signal
    counts for all of them. Signals that the process ignores stay ignored. Outside the main thread nothing is handled,
    since Python gives signals to the main thread alone.
    """

    requested: str | None
    """Name of the first signal that came, such as "SIGTERM". Processes that train together share it, then assign it:
    they must stop at the same step."""

    def __init__(self) -> None:
        self.requested = None
        self._before: dict[signal.Signals, _Handler] = {}

    def __enter__(self) -> "Interruption":
        """Start to take note of signals."""
        if threading.current_thread() is threading.main_thread():
            _open_blocks.append(self)
            if len(_open_blocks) == 1:
                self.requested = stopped_by()
                self._install()
            else:
                self.requested = _open_blocks[0].requested
        return self

    def _install(self) -> None:
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if handler is not None and handler is not signal.SIG_IGN:  # None: a C library's
                self._before[number] = handler
                signal.signal(number, _take_note)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the handlers of before. Raises Interrupted if a request is left and nothing else is being raised."""
        if self.requested is not None and not _stopped_by and _stop in self._before.values():
            _stopped_by.append(self.requested)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
        if self in _open_blocks:
            _open_blocks.remove(self)
        if error is None:
            self.raise_if_requested("the last checkpoint")

    def raise_if_requested(self, saved: str) -> None:
        """Raise Interrupted if a signal came; `saved` says what is safe, such as "iteration 12"."""
        if self.requested is not None:
            message = f"interrupted by {self.requested}; the same command carries on after {saved}"
            raise Interrupted(message, signal=self.requested)


def _take_note(number: int, frame: FrameType | None) -> None:
    name = signal.Signals(number).name
    if number == signal.SIGINT:
        signal.signal(number, signal.default_int_handler)  # the second one raises KeyboardInterrupt
    for block in _open_blocks:
        block.requested = block.requested or name
    hint = "; press Ctrl-C again to stop at once, without saving" if number == signal.SIGINT else ""
    with suppress(OSError):  # not `print`: a handler may run in the middle of another print
        os.write(_STDERR, f"{name}: this step is finished and saved first{hint}\n".encode())
