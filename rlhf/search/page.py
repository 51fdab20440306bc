"""study.html: a search as one page that loads nothing and runs nothing."""

from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from rlhf.search import plots
from rlhf.search.config import Objective
from rlhf.search.objectives import MAXIMIZED, UNITS
from rlhf.search.plots import Dot
from rlhf.search.report import Report, gold_of, number_text, numbers, setting_text
from rlhf.search.study import Tried
from sft.core.page import render_page
from sft.core.values import duration, items, number

_TEMPLATE = Path(__file__).with_name("study.html.jinja")


class Row(NamedTuple):
    """A trial in the table."""

    place: int
    state: str
    best: bool
    settings: list[str]
    values: list[str]
    gold: str
    time: str
    remark: str


class Picture(NamedTuple):
    """A plot with what stands below it."""

    svg: Markup
    title: str


def render(report: Report) -> str:
    """Return the whole page."""
    keys = list(dict.fromkeys(key for trial in report.tried for key in trial.settings))
    best = {trial.place for trial in report.best}
    rows = [_row(report, trial, keys, best=trial.place in best) for trial in report.tried]
    return render_page(
        _TEMPLATE,
        {
            "name": report.name,
            "experiment": report.experiment,
            "objectives": [_described(name) for name in report.objectives],
            "names": list(report.objectives),
            "several": len(report.objectives) > 1,
            "counts": report.counts,
            "keys": keys,
            "rows": rows,
            "has_gold": any(row.gold != "–" for row in rows),
            "best": [row for row in rows if row.best],
            "tie": len(report.best) if report.is_tie else 0,
            "commands": [(trial.place, report.command(trial)) for trial in report.told],
            "course": _course(report, best),
            "fronts": _fronts(report, best),
            "slices": _slices(report, keys, best),
        },
    )


def _described(name: str) -> str:
    objective = Objective(name)
    return f"{name} ({UNITS[objective]}, {'up' if objective in MAXIMIZED else 'down'})"


def _row(report: Report, trial: Tried, keys: list[str], *, best: bool) -> Row:
    seconds = sum(number(stage.get("seconds")) or 0.0 for stage in items(trial.outcome.get("stages")))
    return Row(
        trial.place,
        trial.state,
        best,
        [setting_text(trial.settings.get(key)) for key in keys],
        [number_text(numbers(trial, name)) for name in report.objectives],
        number_text(gold_of(trial)),
        duration(seconds) if trial.outcome else "–",
        trial.error or str(trial.outcome.get("pruned") or ""),
    )


def _dot(report: Report, trial: Tried, x: float, name: str, *, best: bool) -> Dot | None:
    found = numbers(trial, name)
    return None if found is None else Dot(x, found.value, found.low, found.high, best)


def _course(report: Report, best: set[int]) -> Markup | None:
    """Return the trials in order; several objectives have no best so far."""
    if len(report.objectives) > 1:
        return None
    (name,) = report.objectives
    found = [dot for t in report.tried if (dot := _dot(report, t, t.place, name, best=t.place in best)) is not None]
    if not found:
        return None
    choose = max if Objective(name) in MAXIMIZED else min
    so_far = [(dot.x, choose(other.y for other in found[: i + 1])) for i, dot in enumerate(found)]
    return Markup(plots.course(found, so_far, "course", name))


def _fronts(report: Report, best: set[int]) -> list[Picture]:
    pictures = []
    for number_, (x, y) in enumerate(combinations(report.objectives, 2)):
        found = []
        for trial in report.best + [t for t in report.tried if t.place not in best]:
            across = numbers(trial, x)
            dot = None if across is None else _dot(report, trial, across.value, y, best=trial.place in best)
            found += [] if dot is None else [dot]
        if found:
            title = f"{y} against {x}; diamonds: the Pareto front"
            pictures.append(Picture(Markup(plots.dots(found, f"front-{number_}", x=x, y=y)), title))
    return pictures


def _slices(report: Report, keys: list[str], best: set[int]) -> list[Picture]:
    """Return the first objective over each setting that is a number."""
    name = report.objectives[0]
    pictures = []
    for place, key in enumerate(keys):
        found = []
        for trial in report.tried:
            value = trial.settings.get(key)
            if isinstance(value, int | float):
                dot = _dot(report, trial, float(value), name, best=trial.place in best)
                found += [] if dot is None else [dot]
        if found:
            values = [dot.x for dot in found]
            log = min(values) > 0 and max(values) / min(values) > 8
            drawn = plots.dots(found, f"slice-{place}", y=name, log=log)
            pictures.append(Picture(Markup(drawn), f"over {key}"))
    return pictures
