"""`rlhf runs list | show | compare | sync`: read runs' folders without W&B, or send them there.

With --json, standard output is one JSON document.
"""

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sft.core.errors import UsageError

if TYPE_CHECKING:
    from rlhf.runs.folder import Found

app = typer.Typer(help="Runs: what is there, how far they are, how they compare.", no_args_is_help=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
FoldersArgument = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[DIR]...", help="Folders to look in; outputs, multirun and search otherwise."),
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or the beginning of its id.")]
RunsArgument = Annotated[
    list[str], typer.Argument(metavar="RUN...", help="Runs' folders or ids, or folders of runs such as a sweep's.")
]
SyncedArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RUN]...", help="Runs' folders or ids; outputs, multirun and search otherwise."),
]
InOption = Annotated[
    list[Path] | None,
    typer.Option("--in", metavar="DIR", help="Where ids are looked up; outputs, multirun and search otherwise."),
]
OutputOption = Annotated[Path | None, typer.Option("--output", metavar="PAGE.html", help="Write one HTML page.")]


@app.command("list")
def list_runs(folders: FoldersArgument = None, as_json: JsonOption = False) -> None:
    """List runs: when, state, what differs, headline numbers."""
    from rlhf.runs.folder import DEFAULT_FOLDERS, find_runs

    looked_in = folders or list(DEFAULT_FOLDERS)
    for folder in folders or []:
        if not folder.is_dir():
            where = "outputs, multirun and search"
            raise UsageError(f"{folder} is no folder; name one that holds runs, or none for {where}")
    found = find_runs(looked_in)
    if as_json:
        from rlhf.runs.summary import list_as_json

        _print_json(list_as_json(found))
        return
    if found.runs:
        from rlhf.runs import render

        render.show(render.run_list(found.runs, render.terminal_width()))
    else:
        typer.echo(f"no runs in {', '.join(map(str, looked_in))}; `rlhf run experiment=quickstart` makes one", err=True)
    _say_what_is_missing(found)


@app.command("show")
def show_run(run: RunArgument, as_json: JsonOption = False, folders: InOption = None) -> None:
    """Show one run: state, configuration, stages, numbers."""
    from rlhf.runs.folder import DEFAULT_FOLDERS, resolve

    found = resolve([run], folders or DEFAULT_FOLDERS)
    if len(found.runs) != 1:
        raise UsageError(f"{run} holds {len(found.runs)} runs; name one of them, or use `rlhf runs compare {run}`")
    if as_json:
        from rlhf.runs.summary import run_as_json

        _print_json(run_as_json(found.runs[0]))
        return
    from rlhf.runs import render

    render.show(render.run_page(found.runs[0]))


@app.command("compare")
def compare_runs(
    runs: RunsArgument, output: OutputOption = None, as_json: JsonOption = False, folders: InOption = None
) -> None:
    """Compare runs or a sweep, seeds together: numbers with intervals, curves, reward at equal KL, who beats whom."""
    from rlhf.runs.compare import compare
    from rlhf.runs.folder import DEFAULT_FOLDERS, resolve

    if output is not None and not output.parent.is_dir():
        raise UsageError(f"--output {output}: {output.parent} is no folder; make it first, or name another place")

    with _uncollected():
        comparison = compare(resolve(runs, folders or DEFAULT_FOLDERS))
        if output is not None:
            from rlhf.runs.page import render as page
            from sft.core.durable import write_text

            write_text(output, page(comparison))
            typer.echo(str(output), err=as_json)
        if as_json:
            _print_json(comparison.as_dict())
        elif output is None:
            from rlhf.runs import render

            render.show(render.comparison_page(comparison, render.terminal_width()))


@contextmanager
def _uncollected() -> Iterator[None]:
    """Let Python not look for reference cycles: in the many small objects of hundreds of ledgers there are none, and
    the looking takes a sixth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@app.command("sync")
def sync_runs(
    runs: SyncedArgument = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, change nothing.")] = False,
    timeout_s: Annotated[float, typer.Option("--timeout-s", min=1, help="For one call of W&B.")] = 600.0,
    as_json: JsonOption = False,
    folders: InOption = None,
) -> None:
    """Send offline runs to W&B, and back-fill from the ledger what killed runs lost; twice does no harm."""
    from rlhf.runs import sync
    from rlhf.runs.folder import DEFAULT_FOLDERS, find_runs, resolve

    looked_in = folders or DEFAULT_FOLDERS
    found = resolve(runs, looked_in) if runs else find_runs(looked_in)
    if dry_run:
        done = [sync.sync(run, rehearse=True) for run in found.runs]
    else:
        done = sync.sync_all(found.runs, timeout_s=timeout_s)
    _say_what_is_missing(found)
    if as_json:
        typer.echo(sync.as_json(done))
    else:
        for run in done:
            typer.echo(sync.described(run, rehearsed=dry_run))
    if waits := sync.not_sent(done):
        typer.echo(waits, err=True)
    if any(run.failed for run in done):
        raise typer.Exit(1)


def _say_what_is_missing(found: "Found") -> None:
    for problem in found.unreadable:
        typer.echo(problem, err=True)
    if found.older:
        typer.echo(f"{found.older} folders of an older program, without run.json, are not listed", err=True)


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
