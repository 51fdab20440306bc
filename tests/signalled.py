"""Whole micro runs that are sent signals at chosen moments and carried on, and the comparison of what they leave.

Each attempt is the command `rlhf` in a process forked from this one, so that the moments fall into the run and not into
the imports.
"""

import json
import signal
import sqlite3
import time
from pathlib import Path
from typing import NamedTuple

from commands import Command, rlhf
from micro import MICRO

from rlhf.registry import Registry
from sft.core.durable import file_digest
from sft.core.interruption import leave_at_signals

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
FIRST = ("run", *MICRO, "hydra.run.dir=run")
AGAIN = ("resume", "run")
OF_ONE_RUN = ("run_id", "seconds", "cached", "train_steps")
"""Names in results.json whose values no two runs share."""


class Ended(NamedTuple):
    """How an attempt ended that a signal was sent to."""

    number: signal.Signals
    after_s: float
    code: int | None
    took_s: float
    """From the signal to the end."""
    wrong: list[str]
    """What was not as promised."""


def undisturbed(folder: Path, words: tuple[str, ...] = FIRST) -> float:
    """Run in a folder to the end; return the seconds that took."""
    started = time.monotonic()
    done = rlhf(*words, cwd=folder)
    assert done.returncode == 0, done.stderr
    return time.monotonic() - started


def interrupt(folder: Path, number: signal.Signals, after_s: float) -> Ended | None:
    """Start or carry on the run in a folder, and send a signal after some time; None where it ended before that."""
    path, begun = folder / "run" / "run.json", folder / "begun"
    begun.unlink(missing_ok=True)

    def begin() -> None:
        leave_at_signals(75, "the same command")  # as rlhf/__main__.py does
        begun.touch()

    running = Command(*(AGAIN if path.is_file() else FIRST), cwd=folder, first=begin)
    while not begun.exists():
        time.sleep(0.001)
    began = time.monotonic()
    while time.monotonic() - began < after_s:
        if running.ended():
            assert running.wait().returncode == 0, running.wait().stderr
            return None
        time.sleep(0.002)
    running.signal(number)
    sent = time.monotonic()
    done = running.wait(seconds=60)
    return Ended(number, after_s, done.returncode, time.monotonic() - sent, wrong(folder, done.returncode, done.stderr))


def wrong(folder: Path, code: int | None, stderr: str) -> list[str]:
    """Return what an interrupted run has left that it promises not to leave."""
    path = folder / "run" / "run.json"
    state = json.loads(path.read_text())["state"] if path.is_file() else "not begun"
    found = []
    if code not in (0, 75):
        found.append(f"exit code {code}: {stderr[-20000:]}")
    if code == 0 and (state != "finished" or not (folder / "run" / "results.json").is_file()):
        found.append(f"exit code 0, but the run is {state}")
    if code == 75 and "the same command" not in stderr:
        found.append(f"no line that says what to do: {stderr[-2000:]}")
    if state not in ("interrupted", "finished", "not begun"):
        found.append(f"run.json says {state}: {json.loads(path.read_text())['error']}")
    if "Traceback" in stderr:
        found.append(f"a traceback: {stderr[-4000:]}")
    database = folder / "registry" / "registry.db"
    if database.is_file():
        with sqlite3.connect(database) as connection:
            leases = connection.execute("SELECT count(*) FROM leases").fetchone()[0]
        found += [f"{leases} leases left"] if leases else []
        registry = Registry(folder / "registry", create=False)
        found += registry.verify(registry.artifacts())
    return found


def content(folder: Path) -> dict[str, object]:
    """Return all that a finished run decides: every file of every artifact, and its results."""
    registry = Registry(folder / "registry", create=False)
    found: dict[str, object] = {
        f"{artifact.ref}/{path.relative_to(artifact.path)}": file_digest(path)
        for artifact in registry.artifacts()
        for path in sorted(artifact.path.rglob("*"))
        if path.is_file()
    }
    results = json.loads((folder / "run" / "results.json").read_text())
    return found | {"results": _without(results)}


def _without(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without(inner) for key, inner in value.items() if key not in OF_ONE_RUN}
    return [_without(inner) for inner in value] if isinstance(value, list) else value


def different(folder: Path, reference: Path) -> list[str]:
    """Return the names of all that two runs have left differently."""
    a, b = content(folder), content(reference)
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
