"""Progress on standard error: one bar per stage with an ETA and the numbers that matter.

Where standard error is no terminal, a log file gets one plain line now and then instead of a redrawn bar.
"""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

LINE_INTERVAL_S = 10.0


class KeyNumber(NamedTuple):
    """A number worth showing: its short label, and the metric names it may have (the first one present counts)."""

    label: str
    names: tuple[str, ...]


_TRAINER = (
    KeyNumber("loss", ("loss", "train_loss")),
    KeyNumber("eval loss", ("eval_loss",)),
    KeyNumber("accuracy", ("eval_accuracy", "accuracy", "mean_token_accuracy")),
)

KEY_NUMBERS: Mapping[str, tuple[KeyNumber, ...]] = {
    "sft": _TRAINER,
    "reward": _TRAINER,
    "ppo": (
        KeyNumber("reward", ("objective/scores", "reward")),
        KeyNumber("gold", ("objective/gold", "gold")),
        KeyNumber("kl", ("objective/kl", "kl")),
        KeyNumber("length", ("val/response_length", "val/length", "length")),
        KeyNumber("clip", ("policy/clipfrac_avg", "clipfrac")),
    ),
}
"""Stage -> what its bar shows. A stage that is not listed shows its first metrics by name."""

_MOST_NUMBERS = 5
_MOST_UNLISTED = 3


def shown_numbers(stage: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Return label -> value of the numbers that a stage's bar shows, in their order."""
    if stage not in KEY_NUMBERS:
        return {name.rsplit("/", 1)[-1]: metrics[name] for name in sorted(metrics)[:_MOST_UNLISTED]}
    found = {}
    for number in KEY_NUMBERS[stage]:
        name = next((name for name in number.names if name in metrics), None)
        if name is not None:
            found[number.label] = metrics[name]
    return dict(list(found.items())[:_MOST_NUMBERS])


def numbers_text(numbers: Mapping[str, float]) -> str:
    """Return the numbers as one short line: `loss 2.31 · kl 8.4`."""
    return " · ".join(f"{label} {value:.3g}" for label, value in numbers.items())


def marked(mark: str, text: str) -> str:
    """Return a text with the mark of its run before every line; without a mark as it is."""
    return "\n".join(f"{mark} · {line}" for line in text.split("\n")) if mark else text


class StageProgress(Protocol):
    """What a person watching a stage sees."""

    def start(self, total: int, unit: str) -> None:
        """Begin to count up to `total` units."""
        ...

    def advance(self, step: int, metrics: Mapping[str, float]) -> None:
        """Move to `step` (absolute) and show the metrics that matter."""
        ...

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        ...

    def close(self) -> None:
        """End the display; also after an error."""
        ...


class BarProgress:
    """A live bar on a terminal."""

    def __init__(self, stage: str, console: Console, *, mark: str = "") -> None:
        """Show the bar at once, without a total until `start`."""
        self._stage = stage
        self._mark = mark
        self._numbers: dict[str, float] = {}
        self._unit = ""
        self._bar = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[count]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("eta", style="dim"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[numbers]}", style="cyan", markup=False),
            console=console,
            refresh_per_second=4,
        )
        self._task: TaskID = self._bar.add_task(marked(mark, stage), total=None, count="", numbers="")
        self._bar.start()

    def start(self, total: int, unit: str) -> None:
        """Begin to count up to `total` units."""
        self._unit = unit
        self._bar.reset(self._task, total=total, count=f"0/{total} {unit}", numbers=numbers_text(self._numbers))

    def advance(self, step: int, metrics: Mapping[str, float]) -> None:
        """Move to `step` and show the metrics that matter; a number stays until a newer one arrives."""
        self._numbers |= shown_numbers(self._stage, metrics)
        total = self._bar.tasks[0].total
        count = f"{step} {self._unit}" if total is None else f"{step}/{total:.0f} {self._unit}"
        self._bar.update(self._task, completed=step, count=count, numbers=numbers_text(self._numbers))

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(Text(marked(self._mark, f"{self._stage}: {text}")), soft_wrap=True)

    def close(self) -> None:
        """Leave the last state of the bar on the screen."""
        self._bar.stop()


class LineProgress:
    """Plain lines for a log file: the first, the last, and between them one every `LINE_INTERVAL_S` at most."""

    def __init__(
        self, stage: str, console: Console, *, mark: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Print nothing yet; `mark` stands before every line, `clock` gives seconds."""
        self._stage = stage
        self._mark = mark
        self._console = console
        self._clock = clock
        self._numbers: dict[str, float] = {}
        self._total: int | None = None
        self._unit = ""
        self._first: tuple[float, int] | None = None
        self._printed_at: float | None = None
        self._unprinted: str | None = None

    def start(self, total: int, unit: str) -> None:
        """Begin to count up to `total` units; prints the first line."""
        self.close()
        self._total, self._unit, self._first = total, unit, None
        self._print(f"0/{total} {unit}")

    def advance(self, step: int, metrics: Mapping[str, float]) -> None:
        """Move to `step`; prints a line if the last one is old enough, or if the end is reached."""
        self._numbers |= shown_numbers(self._stage, metrics)
        line = self._line(step)
        due = self._printed_at is None or self._clock() - self._printed_at >= LINE_INTERVAL_S
        if due or step == self._total:
            self._print(line)
        else:
            self._unprinted = line

    def note(self, text: str) -> None:
        """Print a line."""
        self._console.print(Text(marked(self._mark, f"{self._stage}: {text}")), soft_wrap=True)

    def close(self) -> None:
        """Print the last state, unless it stands there already."""
        if self._unprinted is not None:
            self._print(self._unprinted)

    def _line(self, step: int) -> str:
        count = f"{step}" if self._total is None else f"{step}/{self._total}"
        parts = [f"{count} {self._unit}".rstrip(), self._eta(step), numbers_text(self._numbers)]
        return " · ".join(part for part in parts if part)

    def _eta(self, step: int) -> str:
        # The rate counts from the first step seen, since a resumed stage does not begin at 0.
        now = self._clock()
        if self._first is None:
            self._first = (now, step)
        since, first_step = self._first
        if self._total is None or step <= first_step or step >= self._total:
            return ""
        seconds = round((now - since) / (step - first_step) * (self._total - step))
        return f"eta {seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"

    def _print(self, line: str) -> None:
        self.note(line)
        self._printed_at = self._clock()
        self._unprinted = None


def stage_progress(stage: str, console: Console, *, mark: str = "") -> StageProgress:
    """Return a live bar where the console is a terminal, else plain lines."""
    return BarProgress(stage, console, mark=mark) if console.is_terminal else LineProgress(stage, console, mark=mark)
