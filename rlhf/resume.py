"""`rlhf resume RUN`: carry on a run in its folder, with the configuration that its run.json tells.

The words of the first command are composed again and must give the configuration of then. Where YAML files have changed
since, the user chooses between the files as they are now and the configuration as it was recorded.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir
from functools import partial
from pathlib import Path
from typing import NamedTuple

from hydra.core.override_parser.types import Quote, QuotedString

from rlhf import preflight, schema
from rlhf.config import ExperimentConfig
from rlhf.launch import Result, launch
from rlhf.runs.folder import RunFolder, resolve
from rlhf.runs.process import Life, life, this_process
from rlhf.runs.record import Asked, RunRecord, State
from sft.core.durable import json_digest
from sft.core.errors import ConfigError, DataError, Interrupted, StorageError, UsageError
from sft.core.redaction import REDACTED, redact
from sft.core.values import mapping

Task = Callable[[Asked, ExperimentConfig, str, Path, list[str]], Result]
"""(what the first command asked for, configuration, name of the experiment, output folder, overrides) -> result."""
_SHOWN_DIFFERENCES = 8
_ABSENT = "(not set)"


class Accept(NamedTuple):
    """What the user says beside the run."""

    changes: bool = False
    """Take YAML files as they are now, and the current folder in place of one that is gone."""
    recorded: bool = False
    """Take the configuration from run.json, whatever YAML files say."""
    words: tuple[str, ...] = ()
    """Overrides in place of recorded ones."""


class Plan(NamedTuple):
    """A run that can be carried on, and how; or one that has nothing left to do."""

    run: RunFolder
    folder: Path
    words: list[str]
    """For `launch`; empty where the recorded configuration is taken."""
    asked: Asked = Asked()
    config: ExperimentConfig | None = None
    """The recorded configuration, where that is taken."""
    cwd: Path = Path()

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to do."""
        return self.run.record.state in (State.FINISHED, State.PRUNED)


def resume(
    named: Sequence[str],
    folders: Sequence[Path],
    accept: Accept,
    task: Task,
    say: Callable[[str], None],
    *,
    processes: int = 1,
) -> list[Result]:
    """Carry on the runs that words name, one after another; return their results, of finished ones what they had.

    All are checked before the first computes. As in a sweep, one that fails leaves the others to run, and the first
    error is raised at the end.

    Args:
        named: see `resolve`.
        folders: where ids are looked up.
        accept: what the user says beside the runs.
        task: runs an experiment.
        say: tells the person who watches one line.
        processes: that torchrun started.

    Raises:
        RLHFError: a run cannot be carried on, with what to do; or what a task raised.
    """
    found = resolve(named, folders)
    for problem in found.unreadable:
        say(problem)
    plans = [plan(run, accept, processes) for run in found.runs]
    results: list[Result] = []
    failed: list[Exception] = []
    for planned in plans:
        name = f"{planned.run.record.run_id} in {planned.run.path}"
        if planned.is_done:
            say(f"{name} is {planned.run.record.state}: nothing to do")
            results.append(planned.run.results)
            continue
        say(f"{name} was {planned.run.record.state}: carrying on")
        try:
            results += _carry_on(planned, task)
        except (Interrupted, StorageError):
            raise
        except Exception as error:
            if len(plans) > 1:
                say(f"error: {planned.run.path}: {error}")
            failed.append(error)
    if failed:
        raise failed[0]
    if found.unreadable:
        raise DataError(f"{len(found.unreadable)} runs cannot be read, see above; the others are carried on")
    return results


def plan(run: RunFolder, accept: Accept, processes: int = 1) -> Plan:
    """Return how a run is carried on. Raises RLHFError where it cannot be, with what to do."""
    record, folder = run.record, run.path.resolve()
    planned = Plan(run, folder, [])
    if planned.is_done:
        return planned
    _check_state(record, run.path, processes)
    planned = planned._replace(cwd=_launch_folder(record, run.path, accept), asked=record.asked)
    if accept.recorded:
        return planned._replace(config=_recorded(record, run.path, accept))
    overrides = _overrides(record, run.path, accept)
    place = QuotedString(str(folder), Quote.single).with_quotes()
    words = [*_options(record.asked), *overrides, f"hydra.run.dir={place}", "hydra.mode=RUN"]
    with chdir(planned.cwd):
        (point,) = _composed(words, run.path)
    _check_same(record, point.config, run.path, accept)
    return planned._replace(words=words, asked=record.asked._replace(overrides=tuple(overrides)))


def _carry_on(planned: Plan, task: Task) -> list[Result]:
    record = planned.run.record
    with chdir(planned.cwd):
        if planned.config is not None:
            return [task(planned.asked, planned.config, record.experiment, planned.folder, [])]
        return launch(planned.words, partial(task, planned.asked))


def _check_state(record: RunRecord, path: Path, processes: int) -> None:
    process = record.process
    if record.state is State.RUNNING and life(process, seen_from=this_process()) is Life.ALIVE:
        raise UsageError(
            f"{path} is being written by process {process.pid} of {process.host}; wait for it, or stop it first "
            f"(kill -TERM {process.pid}: it saves and ends)"
        )
    if mapping(record.config.get("search")).get("trial") is not None:
        raise UsageError(f"{path} is a trial of a search; run the search's command again, which finds its study")
    if record.processes != processes:
        command = "rlhf" if record.processes == 1 else f"torchrun --nproc-per-node {record.processes} -m rlhf"
        raise UsageError(
            f"{path} was computed by {record.processes} processes, these are {processes}; carry on with "
            f"`{command} resume {path}`"
        )


def _launch_folder(record: RunRecord, path: Path, accept: Accept) -> Path:
    here = Path.cwd()
    if record.cwd is None or Path(record.cwd) == here:
        return here
    if Path(record.cwd).is_dir():
        return Path(record.cwd)
    if accept.changes:
        return here
    raise UsageError(
        f"{path} was started in {record.cwd}, where its relative paths begin, and which is no folder here; change into "
        "the folder that took its place and add --allow-changes"
    )


def _recorded(record: RunRecord, path: Path, accept: Accept) -> ExperimentConfig:
    if accept.words:
        raise UsageError("--recorded takes the configuration as it was; leave --set out, or leave --recorded out")
    hidden = [name for name, value in _leaves(record.config) if REDACTED in str(value)]
    if hidden:
        raise UsageError(
            f"{path} keeps no secrets, so that {', '.join(hidden)} cannot be taken from it; leave --recorded out, and "
            f"give e.g. --set {hidden[0]}=..."
        )
    try:
        return schema.build(record.config)
    except ConfigError as error:
        raise UsageError(
            f"{path} was recorded by another version of this program, which this one cannot read: {error}; run it with "
            "that version, or leave --recorded out"
        ) from error


def _overrides(record: RunRecord, path: Path, accept: Accept) -> list[str]:
    """Return the first command's overrides, those of the user in place of recorded ones."""
    if record.asked == Asked():
        raise UsageError(
            f"{path} was started from Python, not by `rlhf run`; call run_experiment again with the same configuration "
            "and out_dir, or carry on with the configuration that it recorded: add --recorded"
        )
    own = {_key(word) for word in accept.words}
    kept = [word for word in record.asked.overrides if _key(word) not in own]
    for word in kept:
        if REDACTED in word:
            shown = _key(word)
            raise UsageError(f"{path} keeps no secrets: {word!r} is not whole; give it again with --set {shown}=...")
    return [*kept, *accept.words]


def _options(asked: Asked) -> list[str]:
    """Return the first command's options that say where YAML files are."""
    of_folder = [] if asked.config_dir is None else ["--config-dir", asked.config_dir]
    return [*of_folder, "--config-name", asked.config_name]


def _composed(words: Sequence[str], path: Path) -> list[preflight.Point]:
    try:
        return preflight.check(words)
    except ConfigError as error:
        raise UsageError(
            f"{path} cannot be composed from the words of its first command any more: {error}\nput the files back, or "
            "carry on with the configuration that it recorded: add --recorded"
        ) from error


def _check_same(record: RunRecord, config: ExperimentConfig, path: Path, accept: Accept) -> None:
    """Raise UsageError where another configuration has come out, but for what the user has asked to differ."""
    tree = schema.to_tree(config)
    if accept.changes or json_digest(tree) == record.config_sha256:
        return
    own = tuple(_key(word) for word in accept.words)
    found = [difference for difference in _differences(record.config, redact(tree)) if not _belongs(difference, own)]
    if not found and own:
        return
    listed = [f"  {name}: {before} then, {now} now" for name, before, now in found[:_SHOWN_DIFFERENCES]]
    if len(found) > _SHOWN_DIFFERENCES:
        listed.append(f"  and {len(found) - _SHOWN_DIFFERENCES} more")
    if not found:
        listed = ["  a secret, which run.json does not keep"]
    told = "\n".join(listed)
    raise UsageError(
        f"{path} would have another configuration now, since YAML files or the program have changed:\n{told}\nadd "
        "--recorded to carry on with the configuration of then, or --allow-changes to go on with that of now (stages "
        "that it does not change are kept)"
    )


class _Difference(NamedTuple):
    """A setting and its two values."""

    name: str
    before: object
    now: object


def _differences(before: Mapping[str, object], now: Mapping[str, object]) -> list[_Difference]:
    old, new = dict(_leaves(before)), dict(_leaves(now))
    names = [*old, *(name for name in new if name not in old)]
    every = [_Difference(name, old.get(name, _ABSENT), new.get(name, _ABSENT)) for name in names]
    return [found for found in every if found.before != found.now]


def _leaves(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _belongs(difference: _Difference, keys: Sequence[str]) -> bool:
    """Return whether a word of the user sets a name, or chooses a file for its section."""
    return any(difference.name == key or difference.name.startswith(f"{key}.") for key in keys)


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]
