"""Gives a checked command line to Hydra: one run, a sweep, or a look at the configuration.

Hydra's own entry point prints errors and exits with 1; here they come out as they are, so that the command line can
choose the exit code. Call `rlhf.preflight.check` with the same words first.
"""

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import _run_hydra, get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf

from rlhf import requeue, schema
from rlhf.config import ExperimentConfig
from rlhf.orphans import working_for
from rlhf.points import Failed, Stop
from rlhf.preflight import VERSION_BASE, Command, conf_dir, parse, register_schema, search_path
from rlhf.runs.process import this_process
from rlhf.search import sweeper
from sft.core.errors import Interrupted, StorageError, UsageError

_LOG = logging.getLogger(__name__)

Result = Mapping[str, object]
Task = Callable[[ExperimentConfig, str, Path, list[str]], Result]
"""(configuration, name of the experiment, output folder, overrides) -> result."""


def launch(argv: Sequence[str], task: Task) -> list[Result]:
    """Run `task` once per point of a command line and return the results in order.

    In a sweep, the other points still run when one fails with a DataError or a foreign exception; the first error is
    raised at the end. After Interrupted or StorageError no further point starts. `--help`, `--cfg`, `--info` and
    `--version` print to standard output and give no results; nor does a launcher that returns none. Logs go to
    standard error and to `rlhf.log` in each output folder.

    Raises:
        RLHFError: what a task raised; UsageError for options that exclude each other.
    """
    version.setbase(VERSION_BASE)
    register_schema()
    sweeper.register()
    if "--version" in argv:
        _show(argv, None)
        return []
    command = parse(argv)
    if command.only_answers or command.only_shows:
        _show(argv, command)
        return []
    job = _job(task)
    hydra = Hydra.create_main_hydra2(task_name="rlhf", config_search_path=search_path(command))
    try:
        if command.arguments.multirun or _mode(hydra, command) == RunMode.MULTIRUN:
            words = [*command.overrides, "hydra.mode=MULTIRUN"]
            returned = hydra.multirun(config_name=command.config_name, task_function=job, overrides=words)
            _tell_of_jobs(returned)
            return _results(returned)
        words = [*command.overrides, "hydra.mode=RUN"]
        return _results([hydra.run(config_name=command.config_name, task_function=job, overrides=words)])
    except Stop as stop:
        raise stop.error from stop.error.__cause__
    finally:
        GlobalHydra.instance().clear()


def _job(task: Task) -> Callable[[DictConfig], Result | Failed]:
    launcher = this_process()

    def job(cfg: DictConfig) -> Result | Failed:
        if requeue.in_job():
            requeue.begin_job()
            return point(cfg)
        with working_for(launcher):
            return point(cfg)

    def point(cfg: DictConfig) -> Result | Failed:
        hydra = HydraConfig.get()
        tree = OmegaConf.to_container(cfg, resolve=True)
        assert isinstance(tree, dict)
        name = str(hydra.runtime.choices.get("experiment") or "default")
        try:
            config = schema.build({str(key): value for key, value in tree.items()})
            return task(config, name, Path(hydra.runtime.output_dir), _words(hydra.overrides.task))
        except (Interrupted, StorageError) as error:
            if isinstance(error, Interrupted) and requeue.in_job():
                requeue.hand_on(error)
            raise Stop(error) from error
        except Exception as error:
            if hydra.mode != RunMode.MULTIRUN:
                raise Stop(error) from error
            _LOG.error("%s", error)
            return Failed(error)

    return job


def _words(overrides: object) -> list[str]:
    """Return the overrides as they were written: `${...}` in them belongs to the configuration."""
    assert isinstance(overrides, ListConfig)
    words = OmegaConf.to_container(overrides, resolve=False)
    assert isinstance(words, list)
    return [str(word) for word in words]


def _mode(hydra: Hydra, command: Command) -> RunMode | None:
    mode = hydra.get_mode(config_name=command.config_name, overrides=command.overrides)
    return mode if isinstance(mode, RunMode) else None


def _results(returned: object) -> list[Result]:
    """Return the results in what a sweeper returned: batches of jobs, jobs, or nothing of the kind.

    Raises the first error of a sweep's points.
    """
    values = [job.return_value for job in _jobs(returned)]
    for value in values:
        if isinstance(value, Failed):
            raise value.error
    return [value for value in values if isinstance(value, Mapping)]


def _tell_of_jobs(returned: object) -> None:
    """Say where jobs of submitit, which print nothing here, have left results and logs."""
    first = next(_jobs(returned), None)
    hydra = None if first is None or first.hydra_cfg is None else first.hydra_cfg.hydra
    if hydra is None or "submitit_folder" not in hydra.launcher:
        return
    folder = str(hydra.launcher.submitit_folder).replace("%j", "*")
    print(f"results: {hydra.sweep.dir}/*/results.json", file=sys.stderr)
    print(f"what the jobs printed: {folder}/*_log.out, errors and progress *_log.err", file=sys.stderr, flush=True)


def _jobs(returned: object) -> Iterator[JobReturn]:
    if isinstance(returned, JobReturn):
        yield returned
    elif isinstance(returned, Iterable) and not isinstance(returned, str | Mapping):
        for item in returned:
            yield from _jobs(item)


def _show(argv: Sequence[str], command: Command | None) -> None:
    """Let Hydra print what was asked for; `None` stands for `--version`, which the parser itself prints."""
    parser = get_args_parser()
    try:
        _run_hydra(
            args=command.arguments if command else parser.parse_args(list(argv)),
            args_parser=parser,
            task_function=_nothing,
            config_path=str(conf_dir()),
            config_name="config",
        )
    except (ValueError, HydraException) as error:
        raise UsageError(str(error)) from error
    except SystemExit as stop:
        if stop.code:
            raise UsageError("Hydra could not show this; its message stands above") from stop


def _nothing(cfg: DictConfig) -> None:
    return None
