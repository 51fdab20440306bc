"""What a stage tells the world while it runs: an append-only ledger (the truth), W&B (a mirror), a progress bar.

A stage gets a `Tracker` and knows nothing of files, W&B or terminals; `NullTracker` serves plain Python.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.text import Text

from sft.core.durable import json_digest
from sft.core.ledger import LEDGER, Alert, Ledger, Told, told
from sft.core.progress import StageProgress, marked, stage_progress
from sft.core.redaction import redact, redact_text
from sft.core.wandb_environment import contained, has_key, resolve_mode
from sft.core.wandb_identity import Identity, MirroredRun, read_identity
from sft.core.wandb_mirror import CLOSE_TIMEOUT_S, WandbMirror
from sft.core.wandb_run import Histograms, Lines, MirrorSettings, Points, Product, Row, Table

Values = Sequence[float] | npt.NDArray[np.floating]


Listener = Callable[[int, Mapping[str, float]], None]
"""Hears the step and the metrics of everything that a stage logs."""


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

    def histograms(self, values: Mapping[str, Values]) -> None:
        """Mirror distributions of numbers to W&B, at the step that is logged next."""
        ...

    def lines(self, name: str, title: str, x: str, lines: Mapping[str, Points]) -> None:
        """Mirror a plot to W&B: a label and points (x, y) for each line; without points, nothing."""
        ...

    def alert(self, title: str, text: str, level: str = "WARN") -> None:
        """Tell everybody what must not wait, once a title: the ledger, the person who watches, subscribers of W&B.

        Args:
            title: the condition, the same words every time, below 64 characters.
            text: what was found and what to do; numbers, never a text from data.
            level: "INFO", "WARN" or "ERROR".
        """
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

    def histograms(self, values: Mapping[str, Values]) -> None:
        """Do nothing."""

    def lines(self, name: str, title: str, x: str, lines: Mapping[str, Points]) -> None:
        """Do nothing."""

    def alert(self, title: str, text: str, level: str = "WARN") -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""


class _StageTracker:
    """One stage's tracker: ledger first, since it is the truth, then the mirror and the bar."""

    def __init__(
        self,
        run: MirroredRun,
        ledger: Ledger,
        mirror: WandbMirror,
        progress: StageProgress,
        *,
        samples: bool,
        known: Set[Told],
        listener: Listener | None,
    ) -> None:
        self._run = run
        self._ledger = ledger
        self._mirror = mirror
        self._progress = progress
        self._samples = samples
        self._known = known
        self._listener = listener
        self._step = 0
        self._alerted: set[str] = set()

    def start(self, total: int, unit: str) -> None:
        self._progress.start(total, unit)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._step = step
        if metrics:
            seq = self._ledger.append(self._run.stage, step, metrics, product=self._run.product)
            if (self._run.stage, self._run.product, step, frozenset(metrics)) not in self._known:
                self._mirror.tell(Row(seq, step, dict(metrics)))
        self._progress.advance(step, metrics)
        if self._listener is not None:
            self._listener(step, metrics)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        if self._samples:
            self._mirror.tell(Table(name, tuple(columns), tuple(tuple(row) for row in rows)))

    def histograms(self, values: Mapping[str, Values]) -> None:
        self._mirror.tell(Histograms({name: np.array(found, dtype=np.float64) for name, found in values.items()}))

    def lines(self, name: str, title: str, x: str, lines: Mapping[str, Points]) -> None:
        self._mirror.tell(Lines(name, title, x, {label: list(points) for label, points in lines.items()}))

    def alert(self, title: str, text: str, level: str = "WARN") -> None:
        if title in self._alerted:
            return
        self._alerted.add(title)
        alert = Alert(title, redact_text(text), level)
        self._ledger.append(self._run.stage, self._step, {}, product=self._run.product, alert=alert)
        self._mirror.tell(alert)
        self._progress.note(f"ALERT {title}: {alert.text}")

    def note(self, text: str) -> None:
        self._progress.note(text)


class RunTracker:
    """The tracking of one pipeline run: a ledger for all its stages, one W&B run and one bar for each.

    Args:
        out_dir: run folder; gets `metrics.jsonl`, `wandb.json` and `wandb/`.
        run_id: of this attempt; the first attempt's decides W&B's ids.
        experiment: name of the experiment.
        label: what distinguishes the run, first part of each W&B run's name; the experiment when None.
        group: W&B group, such as a sweep; the first attempt's run id when None.
        mode: "auto", "online", "offline" or "disabled", see `resolve_mode`.
        project: W&B project.
        entity: W&B team or user, or None for the key's default.
        config: the whole configuration; secrets are redacted before it is sent or written.
        about: what W&B's configuration shows beside it, such as Hydra's choices.
        tags: of every W&B run.
        console: where people look; standard error when None.
        mark: stands before every line for people, such as a point of a sweep.
        log_samples: False keeps all tables, and so all texts, out of W&B.
        log_artifacts: False keeps references to the registry out of W&B.
    """

    def __init__(
        self,
        out_dir: Path,
        *,
        run_id: str,
        experiment: str,
        label: str | None = None,
        group: str | None = None,
        mode: str,
        project: str,
        entity: str | None = None,
        config: Mapping[str, object],
        about: Mapping[str, object] | None = None,
        tags: Sequence[str] = (),
        console: Console | None = None,
        mark: str = "",
        log_samples: bool = False,
        log_artifacts: bool = True,
    ) -> None:
        """Open the ledger; W&B and the bars begin with each stage."""
        self._out_dir = out_dir
        self._asked, self._mode = mode, resolve_mode(mode, os.environ)
        self._tags = tuple(redact_text(tag) for tag in tags)
        self._console, self._mark = console or Console(stderr=True), mark
        self._log_samples, self._log_artifacts = log_samples, log_artifacts
        self._mirrors: list[WandbMirror] = []
        self._open = ExitStack()
        self.ledger = Ledger(out_dir / LEDGER)
        decides = {name: value for name, value in config.items() if name not in ("wandb", "resume")}
        digest = json_digest([decides, project, entity])
        known = None if self._mode == "disabled" else read_identity(out_dir)
        if known is not None and known.config_sha256 == digest:
            known = replace(known, attempts=(*known.attempts, self.ledger.next))
        else:
            known = Identity(
                run_id=run_id,
                project=project,
                entity=entity,
                group=group or run_id,
                label=redact_text(label or experiment),
                config=redact({**config, **(about or {})}),
                config_sha256=digest,
                attempts=(self.ledger.next,),
            )
        self._identity = known
        self._known = {told(entry) for entry in known.mirrored(self.ledger.before)}

    def __enter__(self) -> Self:
        """Keep wandb's files inside the run folder, and its messages off the terminal, from here on."""
        self._open.enter_context(contained(self._out_dir))
        if self._asked == "online" and self._mode == "offline" and not has_key(os.environ):
            self.note(
                "wandb.mode=online needs WANDB_API_KEY or `wandb login`; W&B stays offline until `rlhf runs sync`"
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give W&B a bounded time to take what is still queued."""
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        late = [mirror for mirror in self._mirrors if not mirror.wait(max(0.0, deadline - time.monotonic()))]
        if late:
            self.note(f"W&B did not take everything in {CLOSE_TIMEOUT_S:.0f} s; `rlhf runs sync {self._out_dir}`")
        self._mirrors.clear()
        self._open.close()

    @contextmanager
    def stage(
        self,
        name: str,
        product: str = "",
        *,
        tags: Sequence[str] = (),
        about: Mapping[str, object] | None = None,
        listener: Listener | None = None,
    ) -> Iterator[Tracker]:
        """Track one stage, or one of the things that it makes; after an error its W&B run ends with exit code 1.

        Args:
            name: of the stage.
            product: what is made, where the stage makes several things.
            tags: of this W&B run, beside those of all.
            about: what W&B's configuration shows of this stage, such as its inputs.
            listener: gets what is logged, after the ledger has it; what it raises ends the stage.
        """
        progress = stage_progress(name, self._console, mark=self._mark)
        mirrored = self._mirrored(name, product, tags, about or {})
        mirror = WandbMirror(mirror_settings(self._out_dir, self._identity, mirrored, self._mode), progress.note)
        self._mirrors.append(mirror)
        exit_code = 1
        try:
            yield _StageTracker(
                mirrored,
                self.ledger,
                mirror,
                progress,
                samples=self._log_samples,
                known=self._known,
                listener=listener,
            )
            exit_code = 0
        finally:
            progress.close()
            mirror.end(exit_code)

    def registered(self, product: Product) -> None:
        """Tell W&B of a version that the stage in progress has registered."""
        if self._log_artifacts and self._mirrors:
            self._mirrors[-1].tell(product)

    def cached(self, stage: str) -> None:
        """Say that a stage was found done."""
        self.note(f"{stage}: already done, reused from the registry")

    def note(self, text: str) -> None:
        """Print a line."""
        self._console.print(Text(marked(self._mark, text)), soft_wrap=True)

    def _mirrored(self, stage: str, product: str, tags: Sequence[str], about: Mapping[str, object]) -> MirroredRun:
        known = self._identity.find(stage, product)
        if known is None:
            every = (*self._tags, *(redact_text(tag) for tag in tags))
            known = MirroredRun(self._identity.new_id(stage, product), stage, product, every, redact(about))
            self._identity = replace(self._identity, runs=(*self._identity.runs, known))
        if self._mode != "disabled":
            self._identity.write(self._out_dir)
        return known


def mirror_settings(out_dir: Path, identity: Identity, run: MirroredRun, mode: str) -> MirrorSettings:
    """Return what W&B is told about one of a run's W&B runs."""
    stage, _, number = run.stage.partition("-")
    return MirrorSettings(
        out_dir=out_dir,
        mode=mode,
        run_id=run.id,
        project=identity.project,
        entity=identity.entity,
        group=identity.group,
        job_type=stage,
        name=" ".join([identity.label, run.product or stage, *([f"round {number}"] if number else [])]),
        config={**identity.config, **run.config},
        tags=run.tags,
    )
