"""The command `rlhf`: run experiments, compare runs, look at registered models, keep human labels, examine the machine.

Heavy libraries are imported inside the commands, so that help and errors answer at once. With --json, standard output
is exactly one JSON document; everything else goes to standard error.
"""

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from rlhf.collect import create_command
from rlhf.labelling.commands import erase_command, export_command
from rlhf.labels.commands import app as labels_app
from rlhf.labels.people_commands import serve_command, users_app
from rlhf.publishing.commands import export_command as export_model_command
from rlhf.publishing.commands import import_command, lineage_command, used_by_command
from rlhf.registry.commands import app as models_app
from rlhf.runs.commands import app as runs_app
from sft.core.errors import ConfigError, Interrupted, RLHFError, StorageError
from sft.core.interruption import leave_at_signals, stop_at_signals, stopped_by
from sft.core.world import ALONE, torchrun_world

if TYPE_CHECKING:
    from rlhf.config import ExperimentConfig
    from rlhf.launch import Result
    from rlhf.resume import Accept
    from rlhf.runs.record import Asked
    from sft.core.distributed import Peers

app = typer.Typer(
    help="SFT -> reward model -> PPO -> evaluation -> bias checks -> registry.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models_app.command("lineage")(lineage_command)
models_app.command("used-by")(used_by_command)
models_app.command("export")(export_model_command)
models_app.command("import")(import_command)
app.add_typer(models_app, name="models")
labels_app.command("create")(create_command)
labels_app.command("export")(export_command)
labels_app.command("erase")(erase_command)
labels_app.command("serve")(serve_command)
labels_app.add_typer(users_app, name="users")
app.add_typer(labels_app, name="labels")
app.add_typer(runs_app, name="runs")


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"rlhf {version('rlhf')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options of `rlhf` itself."""


@app.command(
    "run",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    add_help_option=False,
)
def run_command(context: typer.Context) -> None:
    """Run an experiment or a sweep (-m); takes Hydra's words, such as experiment=quickstart ppo.kl_coef=0.1."""
    words = [word for word in context.args if word != "--json"]
    _compute(partial(_run, words), as_json="--json" in context.args)


@app.command("resume")
def resume_command(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs' folders or ids, or a sweep's folder.")],
    recorded: Annotated[
        bool, typer.Option("--recorded", help="Take the configuration from run.json, whatever YAML files say now.")
    ] = False,
    allow_changes: Annotated[
        bool,
        typer.Option(
            "--allow-changes", help="Take YAML files as they are now, and this folder where the run's own is gone."
        ),
    ] = False,
    words: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="An override in place of a recorded one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    folders: Annotated[
        list[Path] | None,
        typer.Option("--in", metavar="DIR", help="Where ids are looked up; outputs, multirun and search otherwise."),
    ] = None,
) -> None:
    """Carry on runs that were interrupted, killed, failed or waited for people, each in its folder."""
    from rlhf.resume import Accept

    accept = Accept(allow_changes, recorded, tuple(words or ()))
    _compute(partial(_resume, runs, folders, accept), as_json=as_json)


def _compute(work: "Callable[[Peers | None], list[Result]]", *, as_json: bool) -> None:
    """Do what trains: stop at signals, lead the processes of torchrun, print results as JSON."""
    with _interrupted_by_signals():
        stop_at_signals()
        with _stdout_for_json(as_json), _interrupted_by_signals():
            peers = _meet()
            if peers is not None and peers.world.rank > 0:
                _follow(peers)
            with nullcontext() if peers is None else peers.leading(), _interrupted_by_signals():
                results = work(peers)
        if as_json:
            print(json.dumps(results[0] if len(results) == 1 else results, indent=2, ensure_ascii=False))
        sys.stdout.flush()
        leave_at_signals(0)


def _run(words: list[str], peers: "Peers | None") -> "list[Result]":
    from rlhf import preflight
    from rlhf.launch import launch

    command = preflight.parse(words)
    if not (command.only_answers or command.only_shows):
        preflight.check_something_asked(command)
        points = preflight.check(words)
        from rlhf.pipeline import check_processes

        for point in points:
            check_processes(point.config, ALONE if peers is None else peers.world)
    return launch(words, partial(_task, peers, None))


def _resume(runs: list[str], folders: list[Path] | None, accept: "Accept", peers: "Peers | None") -> "list[Result]":
    from rlhf.resume import resume
    from rlhf.runs.folder import DEFAULT_FOLDERS

    world = ALONE if peers is None else peers.world
    say = partial(print, file=sys.stderr, flush=True)
    looked_in = folders or DEFAULT_FOLDERS
    return resume(runs, looked_in, accept, partial(_task, peers), say, processes=world.size)


def _meet() -> "Peers | None":
    """Return the processes that torchrun started, None where this one is alone."""
    world = torchrun_world(os.environ)
    if world.size == 1:
        return None
    from sft.core.distributed import Peers

    return Peers.meet(os.environ, world)


def _follow(peers: "Peers") -> NoReturn:
    """Do what rank 0 orders and exit as it does; standard output is rank 0's."""
    from rlhf.pipeline import follow

    try:
        exit_code = follow(peers)
    except RLHFError as error:
        print(f"rank {peers.world.rank}: {error}", file=sys.stderr, flush=True)
        exit_code = error.exit_code
    raise typer.Exit(exit_code)


@contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """Tell what a signal led to as Interrupted: KeyboardInterrupt, and whatever foreign code made of it."""
    try:
        yield
    except (Interrupted, StorageError, SystemExit):
        raise
    except BaseException as error:
        name = stopped_by() or ("Ctrl-C" if isinstance(error, KeyboardInterrupt) else None)
        if name is None:
            raise
        raise Interrupted(
            f"interrupted by {name}; the same command carries on after the last checkpoint or finished stage"
        ) from None


def _task(
    peers: "Peers | None",
    asked: "Asked | None",
    config: "ExperimentConfig",
    experiment: str,
    out_dir: Path,
    overrides: list[str],
) -> Mapping[str, object]:
    from rich.console import Console

    from rlhf.marks import mark
    from rlhf.pipeline import run_experiment
    from rlhf.report import Results, summary_table
    from rlhf.runs.launched import asked_of_hydra
    from sft.core.progress import marked

    asked = asked or asked_of_hydra(overrides)
    point = mark(asked, experiment, out_dir)
    results = run_experiment(config, experiment=experiment, out_dir=out_dir, peers=peers, asked=asked)
    console = Console()
    if not isinstance(results, Results):
        console.print(marked(point, results.message()), soft_wrap=True, highlight=False, markup=False)
        return results.as_dict()
    console.print(summary_table(results, mark=point))
    for name in ("results.json", "report.html"):
        console.print(str(out_dir / name), soft_wrap=True, highlight=False)
    return results.as_dict()


@app.command("doctor")
def doctor_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    registry: Annotated[Path, typer.Option("--registry", metavar="DIR", help="Folder of the registry.")] = Path(
        "registry"
    ),
) -> None:
    """Show versions, devices, registry, W&B mode and SQLite; exit with 1 if something would fail."""
    from rlhf.doctor import examine

    findings = examine(registry)
    if as_json:
        print(json.dumps({"ok": all(f.ok for f in findings), "findings": [vars(f) for f in findings]}, indent=2))
    else:
        for finding in findings:
            remedy = f"  -> {finding.remedy}" if finding.remedy else ""
            print(f"{'ok ' if finding.ok else 'BAD'} {finding.name:<13} {finding.value}{remedy}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


@contextmanager
def _stdout_for_json(active: bool) -> Iterator[None]:
    """Send all that is printed meanwhile, also by libraries and child processes, to standard error."""
    if not active:
        yield
        return
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)


def main() -> NoReturn:
    """Run the command line; turn errors into one message and the exit code that scripts rely on."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        app()
    except RLHFError as error:
        _fail(error)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        message = f"{error.strerror}: {error.filename or 'the disk'}; free space, then run the same command again"
        _fail(StorageError(message))
    sys.exit(0)


def _fail(error: RLHFError) -> NoReturn:
    print(f"error: {error}", file=sys.stderr, flush=True)
    if "--json" in sys.argv:
        document: dict[str, object] = {"error": str(error), "exit_code": error.exit_code}
        if isinstance(error, ConfigError):
            document["problems"] = [{k: _plain(v) for k, v in p._asdict().items()} for p in error.problems]
        print(json.dumps(document, indent=2, ensure_ascii=False), flush=True)
    leave_at_signals(error.exit_code)
    sys.exit(error.exit_code)


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
