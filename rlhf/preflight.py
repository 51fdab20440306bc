"""The door before Hydra: every problem of every point of a sweep, found before any compute, in one error.

Hydra itself stops at the first bad override, finds the bad third point of a sweep after two jobs have run, and runs
code that a YAML file names under `hydra.callbacks`. Here each point is composed by Hydra's own loader with an untyped
schema, so that unknown keys do not stop it, and its tree is read against the dataclasses. Imports no torch.
"""

import argparse
import copy
import difflib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import setup_globals
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rlhf import schema
from rlhf.config import ExperimentConfig
from rlhf.hydra_limits import hydra_problems, reference_problems, word_problems
from rlhf.inputs import file_problems
from rlhf.memory import available_memory, planned_problems
from rlhf.search import sweeper
from rlhf.search.space import Axis, axis_of
from rlhf.yaml_limits import check_yaml
from sft.core.config import raise_problems
from sft.core.errors import ConfigError, ConfigProblem, UsageError
from sft.core.urls import holds_password

VERSION_BASE = "1.3"
"""The behaviour that Hydra is asked for."""
MAX_POINTS = 10_000
"""Runs of one sweep, at most."""
MAX_CORNERS = 256
"""Of a larger search not every corner is checked beforehand, but each end of each setting."""


class Point(NamedTuple):
    """One run that a command line asks for."""

    overrides: list[str]
    """Its words without those for Hydra itself."""
    config: ExperimentConfig
    experiment: str
    """Name of its file in conf/experiment, "default" where none was chosen."""


class Command(NamedTuple):
    """A command line, sorted."""

    overrides: list[str]
    arguments: argparse.Namespace
    """Hydra's own options."""

    @property
    def config_name(self) -> str:
        """Name of the root configuration."""
        return str(self.arguments.config_name or "config")

    @property
    def config_dir(self) -> Path | None:
        """Folder with the user's YAML files."""
        return Path(self.arguments.config_dir).absolute() if self.arguments.config_dir else None

    @property
    def only_answers(self) -> bool:
        """Whether the command prints a help text or serves the shell and composes nothing worth checking."""
        return bool(self.arguments.help or self.arguments.hydra_help or self.arguments.shell_completion)

    @property
    def only_shows(self) -> bool:
        """Whether the command prints a configuration instead of running it."""
        return self.arguments.cfg is not None or self.arguments.info is not None


def conf_dir() -> Path:
    """Return our folder of YAML files: `conf` beside the packages in a checkout, inside `rlhf` once installed."""
    here = Path(__file__).resolve().parent
    packaged = here / "conf"
    return packaged if (packaged / "config.yaml").is_file() else here.parent / "conf"


def register_schema() -> None:
    """Put what no YAML file holds into Hydra's store: the defaults, untyped, as `rlhf_schema`, and our sweeper."""
    ConfigStore.instance().store(name="rlhf_schema", node=schema.defaults(), provider="rlhf")
    sweeper.store_node()


def search_path(command: Command) -> ConfigSearchPath:
    """Return where Hydra looks for YAML files: ours first, then the user's."""
    path = create_config_search_path(str(conf_dir()))
    if command.config_dir is not None:
        anchor = SearchPathQuery(provider="schema")
        path.prepend(provider="command-line", path=f"file://{command.config_dir}", anchor=anchor)
    return path


def parse(argv: Sequence[str]) -> Command:
    """Sort the words after `rlhf run` into overrides and Hydra's options, in any order.

    Raises:
        ConfigError: every option that does not exist or is refused.
    """
    command, problems = _sorted(argv)
    raise_problems(problems)
    return command


def _sorted(argv: Sequence[str]) -> tuple[Command, list[ConfigProblem]]:
    parser = get_args_parser()
    parser.exit_on_error = False
    try:
        arguments, extra = parser.parse_known_intermixed_args(list(argv))
    except argparse.ArgumentError as error:
        problem = ConfigProblem("option", error.argument_name, error.message, "see `rlhf run --help`")
        raise ConfigError([problem]) from error
    known = [option for action in parser._actions for option in action.option_strings]
    found = [_option_problem(word, known) for word in extra if word.startswith("-")]
    if arguments.experimental_rerun is not None:
        rule = "unpickles a file, which can run code"
        remedy = "run the same overrides again"
        found.append(ConfigProblem("--experimental-rerun", arguments.experimental_rerun, rule, remedy))
    if arguments.config_path is not None:
        rule = "would replace the built-in configuration"
        found.append(ConfigProblem("--config-path", arguments.config_path, rule, "use --config-dir DIR"))
        arguments.config_path = None
    if arguments.config_dir is not None and not Path(arguments.config_dir).is_dir():
        remedy = "give an existing folder with e.g. experiment/NAME.yaml"
        found.append(ConfigProblem("--config-dir", arguments.config_dir, "is no folder", remedy))
        arguments.config_dir = None
    words = [*arguments.overrides, *(word for word in extra if not word.startswith("-"))]
    found += word_problems(words)
    arguments.overrides = [word for word in words if not holds_password(word)]
    return Command(list(arguments.overrides), arguments), found


def check_something_asked(command: Command) -> None:
    """Raise UsageError, with what there is to run, where no word says what to run."""
    if command.overrides or command.config_name != "config":
        return
    folders = [conf_dir(), *([] if command.config_dir is None else [command.config_dir])]
    names = sorted({path.stem for folder in folders for path in (folder / "experiment").glob("*.yaml")})
    raise UsageError(
        "`rlhf run` computes nothing without a word that says what\n"
        "usage: rlhf run experiment=NAME [SETTING=VALUE ...]\n"
        f"experiments: {', '.join(names)}\n"
        "try first: rlhf run experiment=quickstart   (`rlhf run --help` says more)"
    )


def check(argv: Sequence[str]) -> list[Point]:
    """Return the runs that the words after `rlhf run` ask for, each checked, files included.

    Commands that run nothing (`--help`, `--cfg`, `--info`) give no points; of `--cfg` and `--info` only names are
    checked, so that a configuration with wrong values can be looked at.

    Raises:
        ConfigError: every problem of every point, each once.
    """
    if "--version" in argv:
        return []
    command, problems = _sorted(argv)
    found = _Findings()
    found.add(*problems)
    points = [] if command.only_answers else list(_all_points(command, found))
    raise_problems(found.problems())
    return points


def _all_points(command: Command, found: "_Findings") -> Iterator[Point]:
    composer = _Composer(command)
    if composer.has_root():
        yield from _points(command, composer, found)
    else:
        remedy = f"give the name of a file in {command.config_dir or conf_dir()}"
        found.add(ConfigProblem("--config-name", command.config_name, "no such file", remedy))


class _Findings:
    """Problems in the order they were found, each once."""

    def __init__(self) -> None:
        self._problems: dict[tuple[str, str, str], ConfigProblem] = {}

    def add(self, *problems: ConfigProblem) -> None:
        for problem in problems:
            value = "" if problem.rule.startswith(schema.UNKNOWN) else repr(problem.value)  # a sweep sets many
            self._problems.setdefault((problem.field, value, problem.rule), problem)

    def problems(self) -> list[ConfigProblem]:
        return list(self._problems.values())


class _CheckedFiles(FileConfigSource):
    """Hydra's reader of a folder, with the limits of `check_yaml` before each file."""

    def load_config(self, config_path: str) -> ConfigResult:
        """Read one file. Raises ConfigError."""
        path = Path(self.path) / self._normalize_file_name(config_path)
        if path.is_file():
            check_yaml(path)
        return super().load_config(config_path)


class _Composed(NamedTuple):
    """What Hydra makes of a choice of files."""

    job: DictConfig
    hydra: dict[str, object]
    """The `hydra` node, references not resolved."""
    experiment: str
    groups: set[str]
    """Folders of which a file was chosen."""
    sweeps: bool
    """Whether the files ask for a sweep (`hydra.mode=MULTIRUN`)."""


class _Composer:
    """Hydra's loader without its global state, and what it composed, by choice of files."""

    def __init__(self, command: Command) -> None:
        version.setbase(VERSION_BASE)
        setup_globals()
        register_schema()
        self.command = command
        self._loader = ConfigLoaderImpl(search_path(command))
        repository = self._loader.repository
        repository.sources = [
            _CheckedFiles(source.provider, source.path) if source.scheme() == FileConfigSource.scheme() else source
            for source in repository.sources  # Hydra loads its plugins a second time, so isinstance would be False
        ]
        self._parser = OverridesParser.create(config_loader=self._loader)
        self._parsed: dict[str, Override] = {}
        self._composed: dict[tuple[str, ...], _Composed] = {}
        self.groups = [name for name in repository.get_group_options("", ObjectType.GROUP) if name != "hydra"]
        self.available_memory = available_memory()
        self.searches = False

    def has_root(self) -> bool:
        return self._exists(self.command.config_name)

    def is_group(self, name: str) -> bool:
        return self._loader.repository.group_exists(name)

    def has_option(self, group: str, option: str) -> bool:
        return self._exists(f"{group}/{option}")

    def _exists(self, name: str) -> bool:
        leaves_folder = name.startswith("/") or "//" in name or ".." in name.split("/")
        return not leaves_folder and self._loader.repository.config_exists(name)

    def hides(self, group: str, option: str) -> bool:
        """Return whether one of our files hides one of the user's."""
        folder = self.command.config_dir
        return folder is not None and all((root / group / f"{option}.yaml").is_file() for root in (conf_dir(), folder))

    def options(self, group: str) -> list[str]:
        return list(self._loader.repository.get_group_options(group))

    def override(self, word: str) -> Override:
        """Parse one word. Raises HydraException."""
        if word not in self._parsed:
            self._parsed[word] = self._parser.parse_overrides([word])[0]
        return self._parsed[word]

    def compose(self, words: Sequence[str]) -> _Composed:
        """Return what a choice of files gives. Raises what Hydra raises, and ConfigError."""
        key = tuple(words)
        if key not in self._composed:
            cfg = self._loader.load_configuration(self.command.config_name, list(words), run_mode=RunMode.RUN)
            self._composed[key] = _split(cfg)
        return self._composed[key]


def _split(cfg: DictConfig) -> _Composed:
    choices = cfg.hydra.runtime.choices
    experiment, groups = str(choices.get("experiment") or "default"), {str(group) for group in choices}
    hydra, sweeps = _tree(cfg.hydra, resolve=False), cfg.hydra.mode == RunMode.MULTIRUN
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    return _Composed(cfg, hydra, experiment, groups, sweeps)


class _Axis(NamedTuple):
    """One override and the words, more than one in a sweep, that it stands for."""

    key: str
    written: str
    words: list[str]
    chooses_file: bool


def _points(command: Command, composer: _Composer, found: _Findings) -> Iterator[Point]:
    composer.searches = _searches(command, composer)
    hydra_words, axes = _sort(command.overrides, composer, found)
    fixed = [axis.words[0] for axis in axes if axis.chooses_file and len(axis.words) == 1]
    base = _compose([*hydra_words, *fixed], composer, found)
    if base is None:
        return
    many = command.arguments.multirun or base.sweeps
    if many:
        hydra_axes, sweeper_axes = _sort(_sweeper_params(base.hydra), composer, found)
        found.add(*(_hydra_sweep(word) for word in hydra_axes))
        axes = sweeper_axes + axes
    elif any(len(axis.words) > 1 for axis in axes):
        found.add(*(_needs_multirun(axis) for axis in axes if len(axis.words) > 1))
    by_key = {axis.key: axis for axis in axes}  # as Hydra's sweeper: the last word of a key counts
    if composer.searches:
        found.add(*_search_problems(by_key, many=many))
    count = math.prod(len(axis.words) for axis in by_key.values())
    if count > MAX_POINTS and not composer.searches:
        found.add(ConfigProblem("-m", count, f"makes more than {MAX_POINTS} runs", "sweep fewer values"))
        return
    chooses_file = {word: axis.chooses_file for axis in by_key.values() for word in axis.words}
    of_axes = [axis.words for axis in by_key.values()]
    every = _one_at_a_time(of_axes) if count > MAX_CORNERS and composer.searches else itertools.product(*of_axes)
    for words in every:
        files = [word for word in words if chooses_file[word]]
        values = [word for word in words if not chooses_file[word]]
        values += ["search.trial=0"] if composer.searches else []
        composed = _compose([*hydra_words, *files], composer, found)
        if composed is not None:
            overrides = list(words) if many else [axis.written for axis in axes]
            yield from _point(composed, overrides, values, composer, found)


def _searches(command: Command, composer: _Composer) -> bool:
    """Return whether an Optuna study chooses the points, so that intervals have values."""
    unheard = _Findings()
    hydra_words, axes = _sort(command.overrides, composer, unheard)
    files = [axis.words[0] for axis in axes if axis.chooses_file and len(axis.words) == 1]
    base = _compose([*hydra_words, *files], composer, unheard)
    chosen = None if base is None else base.hydra.get("sweeper")
    return isinstance(chosen, dict) and chosen.get("_target_") == sweeper.TARGET


def _search_problems(axes: Mapping[str, _Axis], *, many: bool) -> list[ConfigProblem]:
    if not many:
        return [ConfigProblem("hydra/sweeper", "optuna", "searches nothing in a single run", "add -m")]
    found = []
    if all(len(axis.words) == 1 for axis in axes.values()):
        remedy = "give at least one setting several values: ppo.kl_coef='interval(0.01,0.3)'"
        found.append(ConfigProblem("hydra/sweeper", "optuna", "has nothing to search", remedy))
    if "search.trial" in axes:
        found.append(ConfigProblem("search.trial", axes["search.trial"].written, "is set by the search", "remove it"))
    return found


def _one_at_a_time(axes: Sequence[Sequence[str]]) -> Iterator[tuple[str, ...]]:
    """Yield the first word of each axis, then each further word with the first ones of the others."""
    first = [words[0] for words in axes]
    yield tuple(first)
    for place, words in enumerate(axes):
        for word in words[1:]:
            yield (*first[:place], word, *first[place + 1 :])


def _point(
    composed: _Composed, overrides: list[str], values: Sequence[str], composer: _Composer, found: _Findings
) -> Iterator[Point]:
    job = copy.deepcopy(composed.job)
    for word in values:
        found.add(*_apply(composer.override(word), job, composer.groups))
    if composer.command.only_shows:
        found.add(*schema.unknown_keys(_tree(job, resolve=False)))
        return
    tree, broken = _resolved(job)
    config, problems = schema.read(tree)
    problems = broken + [problem for problem in problems if problem.field not in {other.field for other in broken}]
    problems += _file_problems(config, {problem.field for problem in problems})
    found.add(*problems)
    if not problems:
        found.add(*planned_problems(config, composer.available_memory))
    yield Point(overrides, config, composed.experiment)


def _file_problems(config: ExperimentConfig, reported: set[str]) -> list[ConfigProblem]:
    """Return what is wrong with files, except where a field that was reported before decides what is read."""
    unsure = tuple(f"{name.partition('.')[0]}." for name in ("data.source", "model.kind") if name in reported)
    problems = (problem for problem in file_problems(config) if problem.field not in reported)
    return [problem for problem in problems if not problem.field.startswith(unsure)]


def _sort(words: Sequence[str], composer: _Composer, found: _Findings) -> tuple[list[str], list[_Axis]]:
    """Return the words for Hydra itself and one axis per other word, without those that cannot be used."""
    hydra_words: list[str] = []
    axes: list[_Axis] = []
    for word in words:
        try:
            override = composer.override(word)
        except HydraException as error:
            found.add(_grammar_problem(word, error))
            continue
        key = override.key_or_group
        if key == "hydra.searchpath":
            rule = "adds folders that are not checked"
            found.add(ConfigProblem(key, override.value(), rule, "use --config-dir DIR"))
        elif override.is_hydra_override() and override.is_sweep_override():
            found.add(_hydra_sweep(word))
        elif key.startswith("hydra/") or (composer.is_group(key) and not isinstance(override.value(), dict)):
            chosen = _file_words(override, composer, found)
            if override.is_hydra_override():
                hydra_words += chosen
            elif chosen:
                axes.append(_Axis(override.get_key_element().lstrip("+"), word, chosen, True))
        elif override.is_hydra_override():
            hydra_words.append(word)
        elif alternatives := _alternatives(override, composer, found):
            axes.append(_Axis(override.get_key_element(), word, alternatives, False))
    return hydra_words, axes


def _alternatives(override: Override, composer: _Composer, found: _Findings) -> list[str]:
    """Return the words that an override stands for: one per value of a sweep, the ends of what a search varies."""
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [f"{key}={override.get_value_element_as_str()}"]
    if composer.searches:
        axis = axis_of(override)
        if isinstance(axis, Axis):
            return list(axis.ends)
        found.add(axis)
        return []
    if not override.is_discrete_sweep():
        rule = "is an interval, of which the basic sweeper cannot try every value"
        remedy = "list values: a,b,c, or search in it with hydra/sweeper=optuna"
        found.add(ConfigProblem(override.key_or_group, override.get_value_string(), rule, remedy))
        return []
    try:
        values = list(itertools.islice(override.sweep_string_iterator(), MAX_POINTS + 1))
    except HydraException as error:
        found.add(ConfigProblem(override.key_or_group, override.get_value_string(), str(error), "list values: a,b,c"))
        return []
    if not values:
        rule = "is an empty sweep"
        found.add(ConfigProblem(override.key_or_group, override.get_value_string(), rule, "list values: a,b,c"))
    return [f"{key}={value}" for value in values]


def _file_words(override: Override, composer: _Composer, found: _Findings) -> list[str]:
    """Return the words of a choice of files, without files that do not exist."""
    group = override.key_or_group
    if override.is_delete():
        return [override.input_line or ""]
    if not composer.is_group(group):
        near = difflib.get_close_matches(group, composer.groups, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"groups: {', '.join(composer.groups)}"
        found.add(ConfigProblem(group, override.get_value_string(), "is no folder of conf", remedy))
        return []
    kept = []
    for word in _alternatives(override, composer, found):
        value = composer.override(word).value()
        options = value if isinstance(value, list) else [value]
        missing = [o for o in options if o is not None and not composer.has_option(group, str(o))]
        found.add(*(_missing_file(group, str(option), composer) for option in missing))
        found.add(*(_hidden_file(group, str(o), composer) for o in options if composer.hides(group, str(o))))
        if not missing:
            kept.append(word)
    if override.is_add() and group in composer.groups and group in _default_groups(composer):
        remedy = f"write {group}={override.get_value_string()}"
        found.add(ConfigProblem(group, override.input_line, "is chosen by default, and '+' adds a second one", remedy))
        return [word.lstrip("+") for word in kept]
    return kept


def _default_groups(composer: _Composer) -> set[str]:
    try:
        return composer.compose([]).groups
    except Exception:  # a broken root file is reported where it is composed for a point
        return set()


def _missing_file(group: str, option: str, composer: _Composer) -> ConfigProblem:
    options = composer.options(group)
    folders = [f"conf/{group}"]
    if composer.command.config_dir is not None:
        folders.append(str(composer.command.config_dir / group))
    near = difflib.get_close_matches(option, options, n=1)
    remedy = f"available: {', '.join(options)}"
    return ConfigProblem(
        group,
        option,
        f"no such file in {' or '.join(folders)}",
        f"did you mean {near[0]}? {remedy}" if near else remedy,
    )


def _hidden_file(group: str, option: str, composer: _Composer) -> ConfigProblem:
    rule = f"is a built-in file, which hides {composer.command.config_dir}/{group}/{option}.yaml"
    return ConfigProblem(group, option, rule, "give your file another name")


def _compose(words: Sequence[str], composer: _Composer, found: _Findings) -> _Composed | None:
    """Compose a choice of files; words that cannot be composed are reported and left out."""
    try:
        composed = composer.compose(words)
    except Exception:
        bad = [word for word in words if not _composes(word, composer, found)]
        if not bad:
            found.add(*_joint_problem(words, composer))
            return None
        return _compose([word for word in words if word not in bad], composer, found)
    found.add(*hydra_problems(composed.hydra))
    return composed


def _composes(word: str, composer: _Composer, found: _Findings) -> bool:
    """Try one word alone. Whatever a stranger's YAML file makes Hydra raise is a problem of that file."""
    try:
        composer.compose([word])
    except ConfigError as error:
        found.add(*error.problems)
    except Exception as error:
        override = composer.override(word)
        found.add(_compose_problem(override.key_or_group, override.get_value_string(), error))
    else:
        return True
    return False


def _joint_problem(words: Sequence[str], composer: _Composer) -> list[ConfigProblem]:
    try:
        composer.compose(words)
    except ConfigError as error:
        return error.problems
    except Exception as error:
        return [_compose_problem("--config-name", composer.command.config_name, error)]
    return []


def _compose_problem(field: str, value: object, error: Exception) -> ConfigProblem:
    told = " ".join(line.strip() for line in str(error.__cause__ or error).splitlines()[:2])
    return ConfigProblem(field, value, f"cannot be composed: {told}", "correct it, or see `rlhf run --info config`")


def _apply(override: Override, job: DictConfig, groups: Sequence[str]) -> list[ConfigProblem]:
    """Write one value into a tree, as Hydra does, unless its name is wrong."""
    name, value = override.key_or_group, override.value()
    there = OmegaConf.select(job, name, throw_on_missing=False) is not None or name in _names()
    parent = name.partition("[")[0].rpartition(".")[0]
    if not there and not schema.is_free_mapping(parent):
        return [schema.unknown_key(name, value, groups)]
    if there and override.is_add():
        return [ConfigProblem(name, value, "has a value, and '+' adds a new name", f"write {name}={value}")]
    if not there and not (override.is_add() or override.is_force_add()):
        return [ConfigProblem(name, value, f"is new in {parent}", f"write +{name}=...")]
    try:
        if override.is_delete():
            OmegaConf.update(job, name, None)
            parent_node = OmegaConf.select(job, parent) if parent else job
            del parent_node[name.rpartition(".")[2]]
        else:
            OmegaConf.update(job, name, value, merge=True, force_add=True)
    except OmegaConfBaseException as error:
        return [_compose_problem(name, value, error)]
    return []


def _names() -> set[str]:
    """Every dotted name, of settings and of sections."""
    settings = [leaf.name for leaf in schema.leaves()]
    return {*settings, *(name.rpartition(".")[0] for name in settings)} - {""}


def _tree(node: DictConfig, *, resolve: bool) -> dict[str, object]:
    tree = OmegaConf.to_container(node, resolve=resolve)
    assert isinstance(tree, dict)
    return {str(key): value for key, value in tree.items()}


def _resolved(job: DictConfig) -> tuple[dict[str, object], list[ConfigProblem]]:
    """Return the tree with plain references (`${seed}`) written out; calls (`${oc.env:...}`) are refused."""
    tree = _tree(job, resolve=False)
    found = reference_problems(tree)
    if found:
        return tree, found
    try:
        return _tree(job, resolve=True), []
    except OmegaConfBaseException as error:
        return tree, [_compose_problem(error.full_key or "configuration", "${...}", error)]


def _sweeper_params(hydra: Mapping[str, object]) -> list[str]:
    """Return the overrides that a configuration itself sweeps (`hydra.sweeper.params`)."""
    sweeper = hydra.get("sweeper")
    params = sweeper.get("params") if isinstance(sweeper, dict) else None
    return [f"{key}={value}" for key, value in params.items()] if isinstance(params, dict) else []


def _option_problem(word: str, known: Sequence[str]) -> ConfigProblem:
    near = difflib.get_close_matches(word.partition("=")[0], known, n=1)
    remedy = f"did you mean {near[0]}?" if near else "see `rlhf run --help`"
    return ConfigProblem("option", word, "is no option of `rlhf run`", remedy)


def _grammar_problem(word: str, error: HydraException) -> ConfigProblem:
    field, _, value = word.partition("=")
    told = str(error).splitlines()[0]
    remedy = "write name=value; put quotes around a value with spaces or signs: name=\"'a, b'\""
    return ConfigProblem(field.lstrip("+~"), value, f"is no override that Hydra can read ({told})", remedy)


def _hydra_sweep(word: str) -> ConfigProblem:
    key, _, value = word.partition("=")
    return ConfigProblem(key, value, "cannot be swept: it belongs to Hydra itself", "give one value")


def _needs_multirun(axis: _Axis) -> ConfigProblem:
    values = ",".join(word.partition("=")[2] for word in axis.words)
    remedy = f"add -m to sweep over them, or write [{values}] for a list"
    return ConfigProblem(axis.key.lstrip("+~"), values, "gives several values to a single run", remedy)
