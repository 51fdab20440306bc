"""Runs on a terminal: tables of rich. In a pipe or a file the same, plain and unwrapped."""

import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from rlhf.runs.compare import Comparison
from rlhf.runs.folder import RunFolder
from rlhf.runs.measures import HEADLINES, Across, Basis, measured
from rlhf.runs.record import State
from rlhf.runs.summary import LISTED, alias, bias, differing_overrides, headline_names, progress
from sft.core.values import Quantity, duration, percent, plain, shown_interval
from sft.core.visible import visible

_PLAIN_WIDTH = 500
_TITLES = {measure.name: measure for measure in HEADLINES}
_SHORT = {"win_rate": "win rate", "policy_gold": "gold", "kl": "KL", "reward_model_accuracy": "RM accuracy"}
_STYLES = {State.FINISHED: "green", State.FAILED: "red", State.KILLED: "red", State.RUNNING: "cyan"}


def show(renderable: RenderableType) -> None:
    """Print to standard output."""
    width = None if sys.stdout.isatty() else _PLAIN_WIDTH
    Console(width=width, markup=False, highlight=False).print(renderable)


def run_list(runs: Sequence[RunFolder]) -> RenderableType:
    """Return one line per run."""
    table = _table(
        "run", "started, UTC", "state", "seed", "experiment", "overrides that differ", *_SHORT.values(), "bias"
    )
    for run, words in zip(runs, differing_overrides(runs), strict=True):
        record = run.record
        numbers = [_number(measured(run, name), rate=_TITLES[name].rate, interval=False) for name in LISTED]
        table.add_row(
            record.run_id,
            record.started[:16].replace("T", " "),
            Text(progress(run), style=_STYLES.get(record.state, "yellow")),
            str(record.seed),
            record.experiment,
            visible(" ".join(words)) or "-",
            *numbers,
            bias(run) or "-",
        )
    return table


def run_page(run: RunFolder) -> RenderableType:
    """Return everything about one run that fits a terminal."""
    record = run.record
    table = Table.grid(padding=(0, 2))
    table.add_row("run", Text(record.run_id, style="bold"))
    table.add_row("folder", str(run.path))
    table.add_row("state", Text(progress(run), style=_STYLES.get(record.state, "yellow")))
    if record.error:
        table.add_row("error", visible(record.error))
    ended = f", ended {record.ended}" if record.ended else ""
    table.add_row("started", f"{record.started}{ended}, {duration(record.seconds)}, attempt {record.attempt}")
    processes = f", {record.processes} processes" if record.processes > 1 else ""
    table.add_row("process", f"{record.process.pid} of {record.process.host}{processes}")
    changed = " (files were changed since)" if record.revision.dirty else ""
    table.add_row("revision", f"{record.revision.commit or 'unknown'}{changed}")
    table.add_row("experiment", f"{record.experiment}, seed {record.seed}, config {record.config_sha256[:12]}")
    table.add_row("overrides", visible("\n".join(record.asked.overrides)) or "-")
    if record.asked.sweep:
        table.add_row("sweep", record.asked.sweep)
    table.add_row("registry", record.registry)
    if alias(run):
        table.add_row("alias", alias(run))
    if run.ledger and record.state is not State.FINISHED:
        table.add_row("last metrics", f"{run.ledger[-1].stage} step {run.ledger[-1].step}, {run.ledger[-1].time}")
    return Group(table, "", _stages(run), "", _headlines(run)) if run.results else Group(table, "", _stages(run))


def _stages(run: RunFolder) -> Table:
    table = _table("stage", "product", "time", "training steps")
    for stage in run.record.stages:
        time = "found" if stage.cached else duration(stage.seconds)
        table.add_row(stage.name, stage.artifact or "-", time, str(stage.train_steps))
    return table


def _headlines(run: RunFolder) -> Table:
    table = _table("number", "value", "95 % interval", "n")
    for name, title, rate in headline_names(run):
        found = measured(run, name)
        assert found is not None
        n = "-" if found.n is None else str(found.n)
        value = percent(found.value) if rate else plain(round(found.value, 4))
        table.add_row(title, value, shown_interval(found, rate=rate) or "-", n)
    table.add_row("bias gate", bias(run) or "not measured", "", "")
    return table


def comparison_page(comparison: Comparison) -> RenderableType:
    """Return groups and their headline numbers; the page holds the rest."""
    table = _table("group", *comparison.sorted.fields, "seeds", *_SHORT.values())
    for group in comparison.groups:
        seeds = ", ".join(str(run.record.seed) for run in group.runs)
        numbers = [
            _across(comparison.numbers.get(name, {}).get(group.letter), rate=_TITLES[name].rate) for name in LISTED
        ]
        table.add_row(group.letter, *(visible(value) for value in group.settings.values()), seeds, *numbers)
    note = "Means over seeds with Student's 95 % interval; (prompts): of one seed, over its prompts. --output PAGE.html"
    return Group(
        table, *comparison.remarks, f"{note} has curves, reward at equal KL, who beats whom, time and answers."
    )


def _across(found: Across | None, *, rate: bool) -> str:
    if found is None:
        return "-"
    over = " (prompts)" if found.basis is Basis.PROMPTS else ""
    return f"{_number(Quantity(found.mean, found.low, found.high), rate=rate, interval=True)}{over}"


def _number(found: Quantity | None, *, rate: bool, interval: bool) -> str:
    if found is None:
        return "-"
    value = percent(found.value) if rate else f"{found.value:.3g}"
    return f"{value} {shown_interval(found, rate=rate)}".rstrip() if interval else value


def _table(*names: str) -> Table:
    return Table(*names, box=box.SIMPLE_HEAD if sys.stdout.isatty() else None, pad_edge=False)
