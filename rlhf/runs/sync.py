"""Sends to W&B what stayed here: folders of offline runs, and the ledger's rows that a killed run's folder lost.

A row of the ledger is W&B's step of its number (`seq`), so what a folder lacks can be told line by line. The server
appends whatever it is sent: each folder is therefore sent once, which `wandb/sent.jsonl` remembers, and the folders of
one W&B run go one after the other, oldest rows first.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from rlhf.runs.folder import RunFolder
from rlhf.runs.lock import only_writer
from rlhf.runs.record import State
from sft.core.errors import DataError, UsageError
from sft.core.ledger import LEDGER, LedgerEntry, read_ledger
from sft.core.redaction import redact_text
from sft.core.tracking import mirror_settings
from sft.core.values import counted, mapping
from sft.core.wandb_environment import base_url, check_answers, contained, has_key
from sft.core.wandb_files import MirrorFile, cut_torn, settled_files
from sft.core.wandb_identity import Identity, MirroredRun, read_identity
from sft.core.wandb_mirror import SENT, mark_sent
from sft.core.wandb_run import PROBE_TIMEOUT_S, Row, open_run

TIMEOUT_S = 600.0
"""For one call of `wandb sync`."""
_SHOWN_STEPS = 10
Send = Callable[[Path, Sequence[Path], float], str]
"""(run's folder, W&B's folders, seconds) -> what was printed. What arrived is read from the folders.

Raises ConnectionError where the server does not answer."""


class Lost(NamedTuple):
    """Rows of one W&B run that none of its folders holds, and that stand between the same two of them."""

    run: MirroredRun
    entries: tuple[LedgerEntry, ...]

    def as_dict(self) -> dict[str, object]:
        """Return the rows as plain JSON."""
        return {
            "stage": self.run.stage,
            "product": self.run.product,
            "id": self.run.id,
            "steps": [entry.step for entry in self.entries],
        }


class Plan(NamedTuple):
    """What is to be done for a run."""

    waiting: tuple[MirrorFile, ...]
    """W&B's folders that the server lacks."""
    sent: int
    """Folders that it has."""
    empty: int
    """Folders in which a kill left nothing at all."""
    lost: tuple[Lost, ...]
    identity: Identity | None


class Synced(NamedTuple):
    """What was done for a run, or in a rehearsal would be."""

    folder: Path
    run_id: str
    sent: tuple[str, ...] = ()
    """Names of W&B's folders."""
    already: int = 0
    """Folders that the server had before."""
    empty: int = 0
    lost: tuple[Lost, ...] = ()
    """Rows that were back-filled from the ledger."""
    failed: tuple[str, ...] = ()
    """One line for each folder that the server does not have for sure."""
    skipped: str | None = None
    waiting: int = 0
    """Folders that were not sent, since the server does not answer."""

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON."""
        return self._asdict() | {"folder": str(self.folder), "lost": [lost.as_dict() for lost in self.lost]}


def plan(folder: Path) -> Plan:
    """Return what is to be done for a run's folder; changes nothing.

    Raises:
        DataError: wandb.json or one of W&B's files is damaged.
    """
    identity = read_identity(folder)
    files = settled_files(folder)
    known = _known_as_sent(folder)
    whole = [file for file in files if file.run_id]
    waiting = tuple(file for file in whole if not file.sent and file.folder.name not in known)
    entries = [] if identity is None else identity.mirrored(read_ledger(folder / LEDGER).entries)
    lost = [] if identity is None else [part for run in identity.runs for part in _lost(run, files, entries)]
    return Plan(waiting, len(whole) - len(waiting), len(files) - len(whole), tuple(lost), identity)


def _lost(run: MirroredRun, files: Sequence[MirrorFile], entries: Sequence[LedgerEntry]) -> list[Lost]:
    """Return the rows that a W&B run lacks, in parts: the folders between which they stand tell them apart."""
    own = [file.seqs for file in files if file.run_id == run.id and file.seqs]
    held = frozenset().union(*own)
    begins = sorted(min(seqs) for seqs in own)
    parts: dict[int, list[LedgerEntry]] = {}
    for entry in entries:
        if (entry.stage, entry.product) == (run.stage, run.product) and entry.seq not in held:
            parts.setdefault(sum(begin < entry.seq for begin in begins), []).append(entry)
    return [Lost(run, tuple(part)) for _, part in sorted(parts.items())]


def _known_as_sent(folder: Path) -> set[str]:
    path = folder / SENT
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {name for line in lines if (name := line.strip('"'))}


def sync_all(runs: Sequence[RunFolder], *, timeout_s: float = TIMEOUT_S, send: Send | None = None) -> list[Synced]:
    """Send runs one after the other, as `sync` does; once the server does not answer, no further one is tried.

    Raises:
        UsageError: there is no key for W&B.
    """
    done: list[Synced] = []
    for run in runs:
        silent = any(before.waiting for before in done)
        found = sync(run, rehearse=silent, timeout_s=timeout_s, send=send)
        done.append(_put_off(found) if silent else found)
    return done


def _put_off(planned: Synced) -> Synced:
    """Return what a rehearsal would have sent as waiting, with the folders that lost rows will have."""
    return planned._replace(sent=(), lost=(), waiting=len(planned.sent) + len(planned.lost))


def sync(run: RunFolder, *, rehearse: bool = False, timeout_s: float = TIMEOUT_S, send: Send | None = None) -> Synced:
    """Back-fill and send one run; a run in progress is left alone.

    Args:
        run: its folder.
        rehearse: change and send nothing.
        timeout_s: for one call of `wandb sync`.
        send: does the sending; `wandb sync` in a process of its own when None.

    A damaged wandb.json or file of W&B's is told as what failed, so that other runs are sent all the same.

    Raises:
        UsageError: there is no key for W&B.
    """
    if run.record.state is State.RUNNING:
        return Synced(run.path, run.record.run_id, skipped="it is running; it sends by itself, or is sent afterwards")
    try:
        if not (run.path / "wandb").exists() and read_identity(run.path) is None:
            return Synced(run.path, run.record.run_id, skipped=_why_nothing_is_kept(run))
        return _planned(run, rehearse, timeout_s, send or wandb_sync)
    except DataError as error:
        return Synced(run.path, run.record.run_id, failed=(str(error),))


def _why_nothing_is_kept(run: RunFolder) -> str:
    if mapping(run.record.config.get("wandb")).get("mode") == "disabled":
        return "W&B was off (wandb=disabled), so there is nothing to send"
    return "nothing was kept for W&B: it was off (WANDB_MODE=disabled), or no stage had begun"


def _planned(run: RunFolder, rehearse: bool, timeout_s: float, send: Send) -> Synced:
    found = plan(run.path)
    if rehearse or not (found.waiting or found.lost):
        names = tuple(file.folder.name for file in found.waiting)
        return Synced(run.path, run.record.run_id, names, found.sent, found.empty, found.lost)
    if not has_key(os.environ):
        raise UsageError("W&B has no key here; set WANDB_API_KEY or run `wandb login`, then run this command again")
    with ExitStack() as lock:
        try:
            lock.enter_context(only_writer(run.path))
        except UsageError as error:
            return Synced(run.path, run.record.run_id, skipped=str(error))
        return _synced(run, timeout_s, send)


def _synced(run: RunFolder, timeout_s: float, send: Send) -> Synced:
    found = plan(run.path)
    for lost in found.lost:
        assert found.identity is not None
        back_fill(run, found.identity, lost)
    waiting = plan(run.path).waiting
    sent: list[str] = []
    failed: list[str] = []
    answers = True
    for wave in _waves(waiting):
        for file in wave:
            cut_torn(file)
        try:
            said = send(run.path, [file.folder for file in wave], timeout_s)
        except ConnectionError as error:
            said, answers = redact_text(str(error)), False
        for file in wave:
            if file.sent:
                mark_sent(run.path, file.folder.name)
                sent.append(file.folder.name)
            else:
                failed.append(f"{file.folder}: {said}")
        if failed or not answers:
            break
    left = 0 if answers else len(waiting) - len(sent)
    return Synced(
        run.path, run.record.run_id, tuple(sent), found.sent, found.empty, found.lost, tuple(failed), waiting=left
    )


def back_fill(run: RunFolder, identity: Identity, lost: Lost) -> None:
    """Write lost rows into one more offline folder of their W&B run; each has its own step and time."""
    done = any(stage.name == lost.run.stage for stage in run.record.stages)
    with contained(run.path):
        settings = mirror_settings(run.path, identity, lost.run, "offline")
        mirror = open_run(settings, "offline")
        for entry in lost.entries:
            row = Row(entry.seq, entry.step, entry.metrics).payload(settings)
            then = {"_timestamp": datetime.fromisoformat(entry.time).timestamp()}
            mirror.log(row | then, step=entry.seq, commit=True)
        mirror.finish(exit_code=0 if done else 1)


def _waves(files: Sequence[MirrorFile]) -> list[list[MirrorFile]]:
    """Return folders in calls of `wandb sync`: those of one W&B run in different ones, by their oldest rows."""
    by_id: dict[str, list[MirrorFile]] = {}
    for file in sorted(files, key=lambda file: min(file.seqs, default=-1)):
        by_id.setdefault(file.run_id, []).append(file)
    return [[file for file in wave if file is not None] for wave in zip_longest(*by_id.values())]


def wandb_sync(folder: Path, mirrored: Sequence[Path], timeout_s: float) -> str:
    """Let `wandb sync` send folders, in a process that is ended when it takes too long; return its last line.

    Raises:
        ConnectionError: the server does not answer; wandb itself would try again and again until the time is up.
    """
    check_answers(base_url(os.environ), min(timeout_s, PROBE_TIMEOUT_S))
    command = [sys.executable, "-m", "wandb", "sync", "--include-online", *(str(path.resolve()) for path in mirrored)]
    child = subprocess.Popen(
        command,
        env=_environment(folder, os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = child.communicate(timeout=timeout_s)
    except BaseException as error:  # Ctrl-C too: what the next call sends must not be on its way
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        raise ConnectionError(f"no answer of W&B in {timeout_s:.0f} s") from None
    lines = redact_text(said).strip().splitlines() or [f"exit code {child.returncode}"]
    return next((line for line in lines if "ERROR" in line or "panic:" in line), lines[-1])[:300]


def _environment(folder: Path, own: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of `wandb sync`: tables were staged in the run's folder; WANDB_MODE must not stop it."""
    kept = {name: value for name, value in own.items() if name not in ("WANDB_MODE", "WANDB_SILENT")}
    return kept | {"WANDB_DATA_DIR": str((folder / "wandb").resolve())}


def described(run: Synced, *, rehearsed: bool) -> str:
    """Return what was done, or would be, for people."""
    if run.skipped is not None:
        return f"{run.folder}: skipped, {run.skipped}"
    rows = sum(len(lost.entries) for lost in run.lost)
    told = [f"{len(run.sent)} {'to send' if rehearsed else 'sent'}", f"{run.already} sent before"]
    told += [f"{run.waiting} waiting"] if run.waiting else []
    told += [f"{run.empty} empty"] if run.empty else []
    told += [f"{rows} lost rows {'to back-fill' if rehearsed else 'back-filled'}"] if rows else []
    lines = [f"{run.folder}: {', '.join(told)}"]
    for lost in run.lost:
        steps = ", ".join(str(entry.step) for entry in lost.entries[:_SHOWN_STEPS])
        more = f" and {len(lost.entries) - _SHOWN_STEPS} more" if len(lost.entries) > _SHOWN_STEPS else ""
        lines.append(f"  lost: {lost.run.stage} {lost.run.product}, steps {steps}{more}")
    return "\n".join([*lines, *(f"  FAILED {line}" for line in run.failed)])


def not_sent(done: Sequence[Synced]) -> str:
    """Return how many folders wait for a server that does not answer; nothing where it does."""
    runs = [run for run in done if run.waiting]
    if not runs:
        return ""
    folders, of = sum(run.waiting for run in runs), counted(len(runs), "run")
    remedy = "look at the network and WANDB_BASE_URL, then run this command again"
    return f"W&B does not answer: {folders} folders of {of} wait; {remedy}"


def as_json(done: Sequence[Synced]) -> str:
    """Return what was done as one JSON document."""
    return json.dumps({"runs": [run.as_dict() for run in done]}, indent=2, ensure_ascii=False)
