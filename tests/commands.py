"""The command `rlhf` in a process forked from the test: libraries are imported once, not once a command."""

import faulthandler
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

HEAVY = ["rlhf.pipeline", "rlhf.report", "sft.model", "sft.train", "reward.train", "rlhf.ppo.train"]
"""What a run imports when it comes to it."""


class Done(NamedTuple):
    """How a command ended; the exit code is minus the signal's number where a signal ended it."""

    returncode: int | None
    stdout: str
    stderr: str


class Command:
    """A command that runs beside the test; what it prints goes to files in the folder where it runs."""

    def __init__(self, *words: str, cwd: Path, first: Callable[[], None] = lambda: None) -> None:
        """Start it; `first` is done in its process before."""
        for name in HEAVY:
            import_module(name)
        number = len(list(cwd.glob("command-*.stdout")))
        self._stdout, self._stderr = (cwd / f"command-{number}.{stream}" for stream in ("stdout", "stderr"))

        def run() -> None:
            os.chdir(cwd)
            os.environ["COLUMNS"] = "200"
            for descriptor, path in ((1, self._stdout), (2, self._stderr)):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
            sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", buffering=1) for descriptor in (1, 2))
            faulthandler.enable()
            sys.argv = ["rlhf", *words]
            first()
            from rlhf.cli import main

            main()

        self._process: BaseProcess = multiprocessing.get_context("fork").Process(target=run)
        self._process.start()

    def ended(self) -> bool:
        """Say whether it is over."""
        return self._process.exitcode is not None

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def wait(self, *, seconds: float = 300) -> Done:
        """Wait for the end; what still runs after the time writes to stderr where it is, and is killed."""
        self._process.join(seconds)
        for number in (signal.SIGABRT, signal.SIGKILL):
            if not self.ended():
                self.signal(number)
                self._process.join(5)
        return Done(self._process.exitcode, self._stdout.read_text(), self._stderr.read_text())


def rlhf(*words: str, cwd: Path) -> Done:
    """Run a command in a folder."""
    return Command(*words, cwd=cwd).wait()
