"""What a search has found: study.json, study.html, and a table for the terminal."""

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlhf.search.config import SearchConfig
from rlhf.search.front import front
from rlhf.search.space import Value
from rlhf.search.study import Tried
from sft.core.durable import write_json, write_text
from sft.core.values import Json, Quantity, mapping, plain, quantity, shown_interval

STUDY_JSON, STUDY_PAGE = "study.json", "study.html"
_OWN_WORDS = ("search.", "wandb.")
_TOLD = 10


class Report(NamedTuple):
    """A study as it stands."""

    name: str
    experiment: str
    objectives: tuple[str, ...]
    tried: list[Tried]
    """In order of place."""
    best: list[Tried]
    """By one objective the best, by several the Pareto front; empty while none is complete."""
    fixed: tuple[str, ...]
    """The words that hold for every trial."""

    @property
    def is_tie(self) -> bool:
        """Whether several trials share the best number of a single objective."""
        return len(self.objectives) == 1 and len(self.best) > 1

    @property
    def told(self) -> list[Tried]:
        """Return the trials whose commands people are shown: of a tie the first one alone."""
        return self.best[: 1 if self.is_tie else _TOLD]

    @property
    def counts(self) -> Json:
        """How many trials ended how."""
        return dict(Counter(trial.state for trial in self.tried))

    def command(self, trial: Tried) -> str:
        """Return the command that runs settings once more as an experiment of their own, measured on test data."""
        words = [word for word in self.fixed if not word.lstrip("+").startswith(_OWN_WORDS)]
        return shlex.join(["rlhf", "run", *words, *(f"{key}={value}" for key, value in trial.settings.items())])

    def as_dict(self) -> dict[str, object]:
        """Return study.json."""
        return {
            "study": self.name,
            "experiment": self.experiment,
            "objectives": list(self.objectives),
            "counts": self.counts,
            "best": [{"place": trial.place, "command": self.command(trial)} for trial in self.best],
            "trials": [
                {**trial._asdict(), "settings": dict(trial.settings), "values": list(trial.values)}
                for trial in self.tried
            ],
        }


def numbers(trial: Tried, objective: str) -> Quantity | None:
    """Return an objective of a trial with its interval."""
    return quantity(mapping(trial.outcome.get("objectives")).get(objective))


def gold_of(trial: Tried) -> Quantity | None:
    """Return the true utility of a trial's policy, where it is known."""
    return quantity(trial.outcome.get("gold"))


def write_report(
    folder: Path, tried: Sequence[Tried], config: SearchConfig, *, name: str, experiment: str, fixed: Sequence[str]
) -> Report:
    """Write study.json and study.html into the search's folder.

    Raises:
        StorageError: the disk refuses.
    """
    from rlhf.search.page import render

    objectives = tuple(str(objective) for objective in config.objectives)
    report = Report(name, experiment, objectives, list(tried), front(tried, objectives), tuple(fixed))
    write_json(folder / STUDY_JSON, report.as_dict())
    write_text(folder / STUDY_PAGE, render(report))
    return report


def show(report: Report, folder: Path) -> None:
    """Print what was found, best first by place, and where the rest stands."""
    several = len(report.objectives) > 1
    best = "Pareto front" if several else f"best, a tie of {len(report.best)}" if report.is_tie else "best"
    table = Table(title=f"search {report.name}: {best}", title_justify="left")
    for column in ("trial", *report.objectives, "settings"):
        table.add_column(column, overflow="fold")
    for trial in report.best[:_TOLD]:
        values = [number_text(numbers(trial, name)) for name in report.objectives]
        settings = " ".join(f"{key}={setting_text(value)}" for key, value in trial.settings.items())
        table.add_row(str(trial.place), *values, Text(settings))
    console = Console()
    console.print(table)
    ended = ", ".join(f"{count} {state}" for state, count in report.counts.items())
    console.print(f"{len(report.tried)} trials: {ended}", highlight=False)
    if report.best:
        first = f" (trial {report.best[0].place}, the first of the tie)" if report.is_tie else ""
        console.print(f"On test data, which the search has not seen{first}:", highlight=False)
        console.print(f"  {report.command(report.best[0])}", soft_wrap=True, highlight=False, markup=False)
    console.print(str(folder / STUDY_PAGE), soft_wrap=True, highlight=False)


def setting_text(value: Value | None) -> str:
    """Return a setting, rounded for people."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def number_text(found: Quantity | None) -> str:
    """Return a number with its interval."""
    return "–" if found is None else f"{plain(found.value)} {shown_interval(found, rate=False)}".strip()
