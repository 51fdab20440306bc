"""What a stage tells the world while it runs: an append-only ledger (the truth), W&B (a mirror), a progress bar.

A stage gets a `Tracker` and knows nothing of files, W&B or terminals; `NullTracker` serves plain Python.
"""

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from rich.console import Console
from rich.text import Text

from sft.core.durable import append_line
from sft.core.progress import StageProgress, stage_progress
from sft.core.wandb_mirror import CLOSE_TIMEOUT_S, MirrorSettings, WandbMirror, contained, resolve_mode

LEDGER = "metrics.jsonl"


class Tracker(Protocol):
    """What a stage may tell."""

    def start(self, total: int, unit: str) -> None:
        """Begin to count up to `total` units, such as 400 "steps"; may be called again for the next part."""
        ...

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record metrics at a step (absolute, of this stage) and move the bar there; without metrics only move."""
        ...

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Mirror a table, such as sample answers, to W&B. Every row has one cell per column."""
        ...

    def note(self, text: str) -> None:
        """Tell the person who watches one line."""
        ...


class NullTracker:
    """Tells nobody anything."""

    def start(self, total: int, unit: str) -> None:
        """Do nothing."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Do nothing."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""


class LedgerEntry(NamedTuple):
    """One line of the ledger. `seq` orders lines (clocks may jump); `time` is UTC in ISO format."""

    seq: int
    time: str
    stage: str
    step: int
    metrics: dict[str, float]


class LedgerRows(NamedTuple):
    """What a ledger file holds: its good lines, and how many were broken (cut off by a kill, for example)."""

    entries: list[LedgerEntry]
    broken: int


def read_ledger(path: Path) -> LedgerRows:
    """Read a ledger file; a broken line is counted, never fatal. A missing file is an empty ledger."""
    if not path.exists():
        return LedgerRows([], 0)
    entries: list[LedgerEntry] = []
    broken = 0
    for line in path.read_bytes().split(b"\n"):
        if not line.strip():
            continue
        try:
            entries.append(_parse_entry(line))
        except (ValueError, KeyError, TypeError, AttributeError):
            broken += 1
    return LedgerRows(entries, broken)


def _parse_entry(line: bytes) -> LedgerEntry:
    row = json.loads(line.decode())
    metrics = {str(name): float(value) for name, value in row["metrics"].items()}
    return LedgerEntry(int(row["seq"]), str(row["time"]), str(row["stage"]), int(row["step"]), metrics)


def _json_number(value: float) -> float | str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


class Ledger:
    """An append-only JSON-lines file of metrics: `{seq, time, stage, step, metrics}`, one object a line.

    Numbers that JSON lacks are the strings "NaN", "Infinity" and "-Infinity". Opened again, it carries on counting;
    a half-written last line stays as it is and is fenced off by a line break. Raises StorageError when the disk
    refuses: this file is the truth, so it must not fail silently.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the file."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        entries = read_ledger(path).entries
        self._next = max((entry.seq for entry in entries), default=-1) + 1
        if path.exists() and (content := path.read_bytes()) and not content.endswith(b"\n"):
            append_line(path, "")

    def append(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line with a single write."""
        numbers = {name: float(value) for name, value in metrics.items()}
        row = {
            "seq": self._next,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "stage": stage,
            "step": int(step),
            "metrics": {name: _json_number(value) for name, value in numbers.items()},
        }
        append_line(self.path, json.dumps(row, ensure_ascii=False, allow_nan=False))
        self._next += 1


class _StageTracker:
    """One stage's tracker: ledger first, since it is the truth, then the mirror and the bar."""

    def __init__(self, stage: str, ledger: Ledger, mirror: WandbMirror, progress: StageProgress, samples: bool) -> None:
        self._stage = stage
        self._ledger = ledger
        self._mirror = mirror
        self._progress = progress
        self._samples = samples

    def start(self, total: int, unit: str) -> None:
        self._progress.start(total, unit)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if metrics:
            self._ledger.append(self._stage, step, metrics)
            self._mirror.log(step, metrics)
        self._progress.advance(step, metrics)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        if self._samples:
            self._mirror.table(name, columns, rows)

    def note(self, text: str) -> None:
        self._progress.note(text)


class RunTracker:
    """The tracking of one pipeline run: a ledger for all its stages, one W&B run and one bar for each.

    Args:
        out_dir: run folder; gets `metrics.jsonl` and `wandb/`.
        run_id: the W&B group.
        experiment: first part of each W&B run's name, `<experiment>-<stage>`.
        mode: "auto", "online", "offline" or "disabled", see `resolve_mode`.
        project: W&B project.
        entity: W&B team or user, or None for the key's default.
        config: the whole configuration; secrets are redacted before it is sent.
        tags: of every W&B run.
        console: where people look; standard error when None.
        log_samples: False keeps all tables, and so all texts, out of W&B.
    """

    def __init__(
        self,
        out_dir: Path,
        *,
        run_id: str,
        experiment: str,
        mode: str,
        project: str,
        entity: str | None = None,
        config: Mapping[str, object],
        tags: Sequence[str] = (),
        console: Console | None = None,
        log_samples: bool = True,
    ) -> None:
        """Open the ledger; W&B and the bars begin with each stage."""
        self._out_dir = out_dir
        self._run_id = run_id
        self._experiment = experiment
        self._mode = mode
        self._project = project
        self._entity = entity
        self._config = config
        self._tags = tuple(tags)
        self._console = console or Console(stderr=True)
        self._log_samples = log_samples
        self._mirrors: list[WandbMirror] = []
        self._open = ExitStack()
        self.ledger = Ledger(out_dir / LEDGER)

    def __enter__(self) -> Self:
        """Keep wandb's files inside the run folder, and its messages off the terminal, from here on."""
        self._open.enter_context(contained(self._out_dir))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give W&B a bounded time to take what is still queued."""
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        late = [mirror for mirror in self._mirrors if not mirror.wait(max(0.0, deadline - time.monotonic()))]
        if late:
            self.note(
                f"W&B did not take everything in {CLOSE_TIMEOUT_S:.0f} s; `wandb sync {self._out_dir}/wandb/*run-*`"
            )
        self._mirrors.clear()
        self._open.close()

    @contextmanager
    def stage(self, name: str) -> Iterator[Tracker]:
        """Track one stage; after an error its W&B run ends with exit code 1."""
        progress = stage_progress(name, self._console)
        mirror = WandbMirror(self._settings(name), progress.note)
        self._mirrors.append(mirror)
        exit_code = 1
        try:
            yield _StageTracker(name, self.ledger, mirror, progress, self._log_samples)
            exit_code = 0
        finally:
            progress.close()
            mirror.end(exit_code)

    def cached(self, stage: str) -> None:
        """Say that a stage was found done."""
        self.note(f"{stage}: already done, reused from the registry")

    def note(self, text: str) -> None:
        """Print a line."""
        self._console.print(Text(text), soft_wrap=True)

    def _settings(self, stage: str) -> MirrorSettings:
        return MirrorSettings(
            out_dir=self._out_dir,
            mode=resolve_mode(self._mode, os.environ),
            project=self._project,
            entity=self._entity,
            group=self._run_id,
            job_type=stage,
            name=f"{self._experiment}-{stage}",
            config=self._config,
            tags=self._tags,
        )
