"""Trainings in forked children that are killed, signalled or starved, and the comparison of what they leave.

Children are forked, since importing anew for each kill would take minutes; all compute with one thread.
"""

import gc
import itertools
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel
from trl.trainer.base_trainer import _BaseTrainer

from reward.train import RewardResult
from sft.core import checkpoint
from sft.core.checkpoint import Saving
from sft.core.durable import append_line, folder_digest, write_json
from sft.core.errors import RLHFError
from sft.core.tracking import NullTracker, Tracker
from sft.train import SFTResult

FORK = multiprocessing.get_context("fork")
FINGERPRINT = "f" * 64
TIMINGS = ("runtime", "per_second")
"""Ends of the names of logged numbers that no two runs share."""

Train = Callable[[Path, Tracker, Saving], SFTResult | RewardResult]
Hook = Callable[[], None]


class Job(NamedTuple):
    """A command: what it does, and the folder that it works in."""

    train: Train
    folder: Path
    allow: tuple[str, ...] = ()

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def steps_saved(self) -> list[int]:
        return sorted(int(path.name[5:]) for path in self.checkpoints.glob("step-*"))

    def digests(self) -> dict[str, str]:
        """Return a digest of every checkpoint."""
        return {path.name: folder_digest(path) for path in self.checkpoints.glob("step-*")}

    def lines(self, first_word: str) -> list[str]:
        """Return the rest of all log lines that begin with a word."""
        log = self.folder / "log"
        every = log.read_text().splitlines() if log.exists() else []
        return [line[len(first_word) :].strip() for line in every if line.split()[0] == first_word]

    def refused(self) -> list[str]:
        return [note for note in self.lines("note") if note.startswith("checkpoint ")]


class Moment(NamedTuple):
    """Just before the n-th call of something the child sends itself a signal."""

    place: str
    call: int
    number: signal.Signals = signal.SIGKILL


PLACES: Mapping[str, tuple[object, str]] = {
    "stepping": (torch.optim.AdamW, "step"),
    "looking": (_BaseTrainer, "evaluate"),
    "logging": (_BaseTrainer, "log"),
    "writing tensors": (checkpoint, "save_file"),
    "syncing": (os, "fsync"),
    "moving": (os, "rename"),
    "removing": (shutil, "rmtree"),
    "finishing": (PreTrainedModel, "save_pretrained"),
}


class LogFile(NullTracker):
    """Writes a line per logged loss and per note."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self, total: int, unit: str) -> None:
        append_line(self.path, f"start {total} {unit}")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if "loss" in metrics or "resumed" in metrics:
            numbers = {name: value for name, value in metrics.items() if not name.endswith(TIMINGS)}
            append_line(self.path, f"{'resumed' if 'resumed' in metrics else 'ends'} {step} {json.dumps(numbers)}")

    def note(self, text: str) -> None:
        append_line(self.path, f"note {text}")


def be_the_command(job: Job, moment: Moment | None, hook: Hook | None, file_limit: int | None) -> None:
    """Do in the child what the command does; leave with its exit code."""
    gc.freeze()  # the trainer collects garbage, and need not look at what the parent imported
    if moment is not None:
        send_at(moment)
    if hook is not None:
        hook()
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    log = job.folder / "log"
    try:
        result = job.train(job.folder / "model", LogFile(log), Saving(job.checkpoints, FINGERPRINT, job.allow))
    except RLHFError as error:
        append_line(log, f"error {error}".replace("\n", " "))
        sys.exit(error.exit_code)
    write_json(job.folder / "result.json", {"metrics": result.metrics, "steps": result.steps, "loss": result.loss})


def send_at(moment: Moment) -> None:
    def send() -> None:
        os.kill(os.getpid(), moment.number)

    before_call(*PLACES[moment.place], moment.call, send)


def before_call(owner: object, name: str, number: int, act: Callable[[], None]) -> None:
    """Do something before the n-th call of a function, in this process."""
    original = getattr(owner, name)
    calls = itertools.count(1)

    def hooked(*args: object, **kwargs: object) -> object:
        if next(calls) == number:
            act()
        return original(*args, **kwargs)

    setattr(owner, name, hooked)


def attempt(
    job: Job,
    *,
    moment: Moment | None = None,
    hook: Hook | None = None,
    kill_after_s: float | None = None,
    file_limit: int | None = None,
) -> int:
    """Start the command once and return its exit code; -9 where a kill came before its end."""
    job.folder.mkdir(parents=True, exist_ok=True)
    child = FORK.Process(target=be_the_command, args=(job, moment, hook, file_limit))
    child.start()
    child.join(120 if kill_after_s is None else kill_after_s)
    if child.is_alive():
        assert kill_after_s is not None, "the child hangs"
        child.kill()
    child.join(60)
    assert child.exitcode is not None
    return child.exitcode


class Undisturbed(NamedTuple):
    """A run that nobody disturbed."""

    job: Job
    seconds: float


def undisturbed(train: Train, folder: Path) -> Undisturbed:
    job = Job(train, folder)
    started = time.monotonic()
    code = attempt(job)
    assert code == 0, f"the undisturbed run ended with {code}: {job.lines('error')}"
    return Undisturbed(job, time.monotonic() - started)


def content(job: Job) -> dict[str, object]:
    """Return all that a run decides: the model, its numbers, and its last checkpoint."""
    last = job.checkpoints / f"step-{job.steps_saved()[-1]:08d}"
    found: dict[str, object] = {"last step": last.name}
    files = {"model": job.folder / "model", "checkpoint": last, "": job.folder}
    for place, path in ((place, path) for place, folder in files.items() for path in sorted(folder.iterdir())):
        name = f"{place}/{path.name}"
        if path.suffix == ".safetensors":
            found |= {f"{name}:{key}": tensor for key, tensor in load_file(path).items()}
        elif path.name in ("result.json", "calibration.json", "state.json"):
            found |= {f"{name}:{key}": value for key, value in json.loads(path.read_text()).items()}
    trainer = json.loads(str(found.pop("checkpoint/state.json:trainer")))
    found["log"] = [
        {name: value for name, value in row.items() if not name.endswith(TIMINGS)} for row in trainer["log_history"]
    ]
    return found


def differences(found: Job, expected: Job) -> list[str]:
    """Return the names of all that is not the same bit by bit."""
    return unequal(content(found), content(expected))


def unequal(a: Mapping[str, object], b: Mapping[str, object]) -> list[str]:
    """Return the names of what two runs left that is not the same bit by bit, or is missing from one."""
    assert any("model.safetensors" in name for name in a)
    different = [
        name
        for name in a.keys() & b.keys()
        if not (
            torch.equal(x, y)
            if isinstance(x := a[name], torch.Tensor) and isinstance(y := b[name], torch.Tensor)
            else a[name] == b[name]
        )
    ]
    return sorted({*different, *(a.keys() ^ b.keys())})


class Killed(NamedTuple):
    """What many kills did: how many came before the end of how many runs, and which runs were not the same."""

    kills: int
    runs: int
    different: list[str]
    in_a_save: int
    """Kills that left a half-written checkpoint."""


def kill_many(reference: Undisturbed, folder: Path, *, kills: int, seed: int, most_per_run: int = 2) -> Killed:
    """Kill runs at times drawn over the length of an undisturbed one until enough kills came before the end.

    Runs that no kill reached are left out; the length becomes theirs, since other work may have stretched it before.
    """
    chance = random.Random(seed)
    length = reference.seconds
    runs = 0
    landed = in_a_save = 0
    different: list[str] = []
    for number in itertools.count():
        job = Job(reference.job.train, folder / str(number))
        times = []
        before = landed
        for _ in range(most_per_run):
            times.append(chance.uniform(0, length))
            started = time.monotonic()
            code = attempt(job, kill_after_s=times[-1])
            assert code in (0, -signal.SIGKILL), f"seed {seed}, run {number}: {code}, {job.lines('error')}"
            if code == 0 and landed == before:
                length = min(length, time.monotonic() - started)
                break
            landed += code != 0
            in_a_save += any(job.checkpoints.glob(".tmp-step*"))
        if landed == before:
            shutil.rmtree(job.folder)
            continue
        runs += 1
        assert attempt(job) == 0, f"seed {seed}, run {number}: {job.lines('error')}"
        found = differences(job, reference.job)
        if found or job.refused():
            different.append(f"seed {seed}, run {number}, kills after {times} s: {found} {job.refused()}")
        shutil.rmtree(job.folder)
        if landed >= kills:
            return Killed(landed, runs, different, in_a_save)
    raise AssertionError("never ends")
