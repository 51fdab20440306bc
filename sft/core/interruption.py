"""Stopping from outside: a training loop ends at the border of a step, after saving, when a signal asks for it.

SIGTERM comes from schedulers and `kill`, SIGUSR1 and SIGUSR2 from SLURM's early warning (`--signal`), SIGINT from
Ctrl-C.
"""

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType

from sft.core.errors import Interrupted

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)

_Handler = Callable[[int, FrameType | None], object] | int
_STDERR = 2

_open_blocks: list["Interruption"] = []
"""Those of the main thread, the innermost last: signals belong to the process."""


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
            raise Interrupted(f"interrupted by {self.requested}; the same command carries on after {saved}")


def _take_note(number: int, frame: FrameType | None) -> None:
    name = signal.Signals(number).name
    if number == signal.SIGINT:
        signal.signal(number, signal.default_int_handler)  # the second one raises KeyboardInterrupt
    for block in _open_blocks:
        block.requested = block.requested or name
    hint = "; press Ctrl-C again to stop at once, without saving" if number == signal.SIGINT else ""
    with suppress(OSError):  # not `print`: a handler may run in the middle of another print
        os.write(_STDERR, f"{name}: this step is finished and saved first{hint}\n".encode())
