"""Reads runs from their folders, and finds them: below folders, or by the beginning of a run's id."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from rlhf.runs.journal import STAGES_FOLDER
from rlhf.runs.process import Life, Process, life, this_process
from rlhf.runs.record import RUN_FILE, RunRecord, State, parse_record
from sft.core.errors import DataError, UsageError
from sft.core.ledger import LEDGER, LedgerEntry, read_ledger
from sft.core.values import Json, mapping

RESULTS_FILE = "results.json"
DEFAULT_FOLDERS = (Path("outputs"), Path("multirun"), Path("search"))
"""Where Hydra puts runs and sweeps."""
_PASSED_BY = {"wandb", STAGES_FOLDER}
_SHOWN_MATCHES = 5


@dataclass(frozen=True)
class RunFolder:
    """A run as its folder tells it; every file is read once, when it is first asked for."""

    path: Path
    record: RunRecord

    @cached_property
    def results(self) -> Json:
        """results.json; empty before the run's end, and where the file is of an earlier run in the same folder."""
        found = _read_json(self.path / RESULTS_FILE)
        return found if found.get("run_id") == self.record.run_id else {}

    @property
    def place(self) -> int | None:
        """A trial's place in its search, by which people know it: the name of its folder, else its own number."""
        named = self.path.resolve().name
        return int(named) if self.record.trial is not None and named.isdecimal() else self.record.trial

    def report(self, stage: str) -> Json:
        """Return what a finished stage reported; empty for any other."""
        if all(done.name != stage for done in self.record.stages):
            return {}
        return _read_json(self.path / STAGES_FOLDER / f"{stage}.json")

    @cached_property
    def ppo(self) -> Json:
        """The last PPO stage's report."""
        return self.report("ppo")

    @cached_property
    def evaluation(self) -> Json:
        """The evaluation's report."""
        return self.report("evaluation")

    @cached_property
    def ledger(self) -> list[LedgerEntry]:
        """The ledger's lines of this configuration."""
        return [entry for entry in read_ledger(self.path / LEDGER).entries if entry.seq >= self.record.ledger_from]


class Found(NamedTuple):
    """The runs below some folders, in the order of their start, and what could not be read."""

    runs: list[RunFolder]
    unreadable: list[str]
    """One line for each run.json that is damaged."""
    older: int
    """Folders with results.json alone, written before run.json was."""


def read_run(folder: Path, me: Process) -> RunFolder:
    """Read a run's folder; a run whose process is gone without a word counts as killed.

    Raises:
        DataError: run.json is missing or damaged.
    """
    path = folder / RUN_FILE
    try:
        record = parse_record(json.loads(path.read_text(encoding="utf-8")))
    except DataError as error:
        raise DataError(f"{path} {error}; restore it, or remove the folder") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); restore it, or remove the folder") from None
    if record.state is State.RUNNING and life(record.process, seen_from=me) is Life.DEAD:
        record = replace(record, state=State.KILLED)
    return RunFolder(folder, record)


def find_runs(folders: Sequence[Path]) -> Found:
    """Return all runs below folders, each once; a folder that does not exist holds none."""
    me = this_process()
    runs: dict[Path, RunFolder] = {}
    unreadable: list[str] = []
    older = 0
    for root in folders:
        for name, inner, files in os.walk(root):
            inner[:] = sorted(below for below in inner if below not in _PASSED_BY and not below.startswith("."))
            if RUN_FILE in files:
                inner.clear()
                try:
                    runs[Path(name).resolve()] = read_run(Path(name), me)
                except DataError as error:
                    unreadable.append(str(error))
            elif RESULTS_FILE in files:
                inner.clear()
                older += 1
    ordered = sorted(runs.values(), key=lambda run: (run.record.started, str(run.path)))
    return Found(ordered, unreadable, older)


def resolve(words: Sequence[str], folders: Sequence[Path]) -> Found:
    """Return the runs that words name, in their order: a run's folder, a folder of runs such as a sweep, or a run id.

    Args:
        words: each a folder, or the beginning of one run's id.
        folders: where ids are looked up.

    Raises:
        UsageError: a word names no run, or an id's beginning names several.
        DataError: a run.json is damaged.
    """
    runs: dict[Path, RunFolder] = {}
    unreadable: list[str] = []
    older = 0
    known: Found | None = None
    for word in words:
        if Path(word).is_dir():
            found = find_runs([Path(word)])
            if not found.runs:
                raise UsageError(_nothing_in(word, found))
            named, unreadable, older = found.runs, unreadable + found.unreadable, older + found.older
        else:
            known = known or find_runs(folders)
            named = [_by_id(word, known.runs, folders)]
        runs.update((run.path.resolve(), run) for run in named)
    return Found(list(runs.values()), unreadable, older)


def _by_id(word: str, runs: Sequence[RunFolder], folders: Sequence[Path]) -> RunFolder:
    matches = [run for run in runs if run.record.run_id.startswith(word)]
    exact = [run for run in matches if run.record.run_id == word]
    if len(exact or matches) == 1:
        return (exact or matches)[0]
    where = ", ".join(map(str, folders))
    if not matches:
        raise UsageError(f"{word} is no folder, and no run in {where} has an id that starts so; see `rlhf runs list`")
    shown = ", ".join(run.record.run_id for run in matches[:_SHOWN_MATCHES])
    more = f" and {len(matches) - _SHOWN_MATCHES} more" if len(matches) > _SHOWN_MATCHES else ""
    raise UsageError(f"{word} is the beginning of {len(matches)} run ids: {shown}{more}; write more of it")


def _nothing_in(word: str, found: Found) -> str:
    if found.unreadable:
        return f"no run in {word} can be read: {found.unreadable[0]}"
    if found.older:
        return f"{word} holds runs of an older program, without run.json; run the same command again to get one"
    return f"{word} holds no run (no run.json in it or below); see `rlhf runs list`"


def _read_json(path: Path) -> Json:
    try:
        return mapping(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); restore it, or remove the run's folder") from None
