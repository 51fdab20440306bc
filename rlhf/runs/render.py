"""Runs on a terminal, as wide as it is. In a pipe or a file the same, plain and unwrapped."""

import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Column as TableColumn
from rich.table import Table
from rich.text import Text

from rlhf.runs.compare import Comparison
from rlhf.runs.folder import RunFolder
from rlhf.runs.lines import Column, cell, laid_out
from rlhf.runs.measures import HEADLINES, VALIDATION, Across, Basis, measured
from rlhf.runs.record import State
from rlhf.runs.summary import (
    LISTED,
    alias,
    bias,
    headline_names,
    lacking,
    listed_names,
    no_objectives,
    own_words,
    progress,
    shared_words,
    stopped,
)
from sft.core.values import Quantity, duration, percent, shown_interval, shown_value
from sft.core.visible import visible

_PLAIN_WIDTH = 500
_TITLES = {measure.name: measure for measure in HEADLINES}
_SHORT = {"win_rate": "win rate", "policy_gold": "gold", "kl": "KL", "reward_model_accuracy": "RM accuracy"}
_LEAVES = {"win_rate": 2, "kl": 3, "policy_gold": 6, "reward_model_accuracy": 7}
"""Which column of the list goes first in a narrow terminal: the highest."""
_STYLES = {State.FINISHED: "green", State.FAILED: "red", State.KILLED: "red", State.RUNNING: "cyan"}


def show(renderable: RenderableType) -> None:
    """Print to standard output."""
    width = None if sys.stdout.isatty() else _PLAIN_WIDTH
    console = Console(width=width, markup=False, highlight=False)
    console.print(renderable, soft_wrap=width is not None)


def terminal_width() -> int | None:
    """Return how many characters a line of the terminal has; None where standard output is none."""
    return Console().width if sys.stdout.isatty() else None


def run_list(runs: Sequence[RunFolder], width: int | None) -> RenderableType:
    """Return the overrides that most runs share, then a line for each run, with what it has of its own.

    Args:
        runs: at least one.
        width: of the terminal; None for a pipe or a file.
    """
    shared = shared_words(runs)
    columns = [
        Column("run", [cell(run.record.run_id) for run in runs]),
        Column("started, UTC", [cell(run.record.started[:16].replace("T", " ")) for run in runs], leaves=8),
        Column("state", [cell(run.record.state.value, _style(run)) for run in runs], leaves=1),
        Column("seed", [cell(str(run.record.seed)) for run in runs], leaves=4),
        Column("experiment", [cell(run.record.experiment) for run in runs], leaves=9),
        *(Column(_SHORT[name], [_listed(run, name) for run in runs], _LEAVES[name]) for name in LISTED),
        Column("bias", [cell(bias(run)) for run in runs], leaves=5),
    ]
    lines = laid_out(columns, [_of_its_own(run, shared) for run in runs], called="of its own", width=width)
    return Group(f"most runs share: {visible(' '.join(shared))}", "", lines) if shared else lines


def _of_its_own(run: RunFolder, shared: Sequence[str]) -> list[str]:
    missing = lacking(run, shared)
    without = ["all that most share"] if len(missing) == len(shared) > 1 else missing
    parts = [
        [text] if (text := stopped(run)) else [],
        _of_a_trial(run),
        own_words(run, shared),
        ["without", *without] if missing else [],
    ]
    return [visible(piece) for piece in _joined([part for part in parts if part], ";")]


def _of_a_trial(run: RunFolder) -> list[str]:
    if run.record.trial is None:
        return []
    which = f"trial {run.place} of {run.record.study or 'a search'},"
    numbers = [[f"{name.removeprefix(VALIDATION)} {_with_n(run, name)}"] for name in listed_names(run)]
    if not numbers:
        return [which, "no objectives:", *no_objectives(run).split()]
    return [which, "on validation data:", *_joined(numbers, ",")]


def _joined(parts: Sequence[Sequence[str]], mark: str) -> list[str]:
    """Return the pieces of all parts, with a mark behind the last one of each but the last part."""
    pieces = [piece for part in parts[:-1] for piece in (*part[:-1], f"{part[-1]}{mark}")]
    return [*pieces, *(parts[-1] if parts else ())]


def _listed(run: RunFolder, name: str) -> Text:
    found = measured(run, name)
    return cell(None if found is None else _number(found, rate=_TITLES[name].rate, interval=False))


def _with_n(run: RunFolder, name: str) -> str:
    found = measured(run, name)
    assert found is not None
    n = "" if found.n is None else f" (n {found.n})"
    return f"{_number(found, rate=_TITLES[name].rate, interval=True)}{n}"


def _style(run: RunFolder) -> str:
    return _STYLES.get(run.record.state, "yellow")


def run_page(run: RunFolder) -> RenderableType:
    """Return everything about one run that fits a terminal."""
    record = run.record
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("run", Text(record.run_id, style="bold"))
    table.add_row("folder", str(run.path))
    table.add_row("state", Text(progress(run), style=_style(run)))
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
        value = percent(found.value) if rate else shown_value(found)
        table.add_row(title, value, shown_interval(found, rate=rate) or "-", n)
    table.add_row("bias gate", bias(run) or "not measured", "", "")
    return table


def comparison_page(comparison: Comparison, width: int | None) -> RenderableType:
    """Return groups and their headline numbers, those of trials apart; the page holds the rest.

    Args:
        comparison: of at least one run.
        width: of the terminal; None for a pipe or a file.
    """
    groups = comparison.groups
    trials = [name for name in comparison.numbers if name.startswith(VALIDATION)]
    titles = [(name, title, 2 * place + 1) for place, (name, title) in enumerate(_SHORT.items())]
    titles += [(name, f"validation: {name.removeprefix(VALIDATION)}", 2 * at + 2) for at, name in enumerate(trials)]
    columns = [
        Column("group", [cell(group.letter) for group in groups]),
        Column("seeds", [cell(", ".join(str(run.record.seed) for run in group.runs)) for group in groups]),
    ]
    for name, title, leaves in titles:
        found = [comparison.numbers.get(name, {}).get(group.letter) for group in groups]
        columns.append(Column(title, [_across(each, rate=_TITLES[name].rate) for each in found], leaves))
    settings = [[visible(f"{name}={value}") for name, value in group.settings.items()] for group in groups]
    note = "Means over seeds with Student's 95 % interval; (prompts): of one seed, over its prompts. --output PAGE.html"
    return Group(
        laid_out(columns, settings, called="settings", width=width),
        *comparison.remarks,
        f"{note} has curves, reward at equal KL, who beats whom, time and answers.",
    )


def _across(found: Across | None, *, rate: bool) -> Text:
    if found is None:
        return cell(None)
    over = " (prompts)" if found.basis is Basis.PROMPTS else ""
    return cell(f"{_number(Quantity(found.mean, found.low, found.high), rate=rate, interval=True)}{over}")


def _number(found: Quantity, *, rate: bool, interval: bool) -> str:
    if rate or not interval:
        value = percent(found.value) if rate else f"{found.value:.3g}"
        return f"{value} {shown_interval(found, rate=rate)}".rstrip() if interval else value
    return f"{shown_value(found)} {shown_interval(found, rate=False)}".rstrip()


def _table(*names: str) -> Table:
    columns = (TableColumn(name, overflow="fold") for name in names)
    return Table(*columns, box=box.SIMPLE_HEAD if sys.stdout.isatty() else None, pad_edge=False)
