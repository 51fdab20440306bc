"""`hydra/sweeper=optuna`: Hydra's sweeper that asks an Optuna study what to run next.

Each trial is an ordinary job of Hydra's launcher, whichever that is. Optuna is imported where a search begins.
"""

import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from rlhf import schema
from rlhf.config import ExperimentConfig
from rlhf.points import Failed
from rlhf.search.places import folder_name
from rlhf.search.space import Axis, Value, axis_of, defaults
from sft.core.config import raise_problems
from sft.core.durable import json_digest, make_folder, write_text
from sft.core.errors import ConfigProblem, DataError
from sft.core.values import mapping, number

if TYPE_CHECKING:
    from rlhf.search.study import Study, Suggestion

TARGET = "hydra_plugins.rlhf.OptunaSweeper"
"""The sweeper's name in configurations: Hydra takes plugins by names of this form alone."""
STUDY_FILE = "study.sqlite"
_LOG = logging.getLogger(__name__)
_MAY_DIFFER = ("registry", "wandb", "resume", "runtime")
"""Parts of a configuration that two commands for one study may set differently; so may `search`, but its objectives."""


def register() -> None:
    """Make `hydra/sweeper=optuna` known to Hydra."""
    plugins = Plugins.instance()
    plugins.register(OptunaSweeper)
    plugins.class_name_to_class[TARGET] = OptunaSweeper


def store_node() -> None:
    """Put the sweeper's configuration where Hydra finds it."""
    node = {"_target_": TARGET, "params": {}}
    ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=node, provider="rlhf")


class OptunaSweeper(Sweeper):
    """Asks, launches, tells, until the study has had its trials."""

    def __init__(self, params: Mapping[str, str]) -> None:
        """Take what a configuration itself searches: key -> values, as on the command line."""
        self.params = params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives; the launcher is made when the folder of the search is known."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        """Run the search that the words ask for; return the jobs of this process, batch by batch.

        Raises:
            ConfigError: the words search nothing, or cannot be searched.
            DataError: no trial has worked.
        """
        from rlhf.search.report import show, write_report
        from rlhf.search.study import Study

        fixed, axes = self._sorted(arguments)
        config, experiment = self._config([*fixed, *(axis.ends[0] for axis in axes)])
        searched = _searched(config, experiment, axes)
        name = config.search.study or f"{experiment.replace('/', '-')}-{json_digest(searched)[:8]}"
        folder = self._folder(name)
        storage = config.search.storage or f"sqlite:///{(folder / STUDY_FILE).absolute()}"
        study = Study.open(name, storage, config.search, axes, searched=searched, seed=config.seed)
        for settings in self._enqueued(config, fixed, axes):
            study.enqueue(settings)
        own = ("search.study=", "search.storage=")
        words = [word for word in fixed if not word.startswith(own)]
        words += [
            f"search.study={_quoted(name)}",
            f"search.storage={_quoted(storage)}",
            f"hydra.sweep.dir={_quoted(str(folder))}",
        ]
        with study.alive():
            returned = self._run(study, config, words)
        asked = [*self._options(), *fixed]
        report = write_report(folder, study.tried(), config.search, name=name, experiment=experiment, fixed=asked)
        show(report, folder)
        if not any(tried.state in ("complete", "pruned") for tried in report.tried):
            first = next((tried.error for tried in report.tried if tried.error), "no trial has ended")
            raise DataError(f"none of the {len(report.tried)} trials has worked; the first: {first}")
        return returned

    def _sorted(self, arguments: Sequence[str]) -> tuple[list[str], list[Axis]]:
        """Return the words that hold for every trial, and what is searched."""
        overrides = {o.get_key_element(): o for o in self._parse([*_words(self.params), *arguments])}
        found = [axis_of(override) for override in overrides.values() if override.is_sweep_override()]
        problems = [problem for problem in found if isinstance(problem, ConfigProblem)]
        if not found:
            remedy = "give at least one setting several values: ppo.kl_coef='interval(0.01,0.3)'"
            problems.append(ConfigProblem("hydra/sweeper", "optuna", "has nothing to search", remedy))
        raise_problems(problems)
        fixed = {key: o.get_value_element_as_str() for key, o in overrides.items() if not o.is_sweep_override()}
        return _words(fixed), [axis for axis in found if isinstance(axis, Axis)]

    def _parse(self, words: list[str]) -> list[Override]:
        assert self.hydra_context is not None
        return OverridesParser.create(config_loader=self.hydra_context.config_loader).parse_overrides(words)

    def _compose(self, words: list[str]) -> DictConfig:
        assert self.hydra_context is not None
        assert self.config is not None
        return self.hydra_context.config_loader.load_sweep_config(self.config, words)

    def _config(self, words: list[str]) -> tuple[ExperimentConfig, str]:
        composed = self._compose(words)
        experiment = str(composed.hydra.runtime.choices.get("experiment") or "default")
        with open_dict(composed):
            del composed["hydra"]
        tree = OmegaConf.to_container(composed, resolve=True)
        assert isinstance(tree, dict)
        return schema.build({str(key): value for key, value in tree.items()}), experiment

    def _options(self) -> list[str]:
        """Return Hydra's own options that a run of a trial's settings needs as well."""
        assert self.config is not None
        sources = self.config.hydra.runtime.config_sources
        folders = [str(source.path) for source in sources if source.provider == "command-line"]
        name = str(self.config.hydra.job.config_name)
        options = [] if name == "config" else ["--config-name", name]
        return options + [word for folder in folders for word in ("--config-dir", folder)]

    def _folder(self, name: str) -> Path:
        """Make the folder of the search: `search/NAME` unless the user gives another."""
        assert self.config is not None
        given = any(str(word).startswith("hydra.sweep.dir=") for word in self.config.hydra.overrides.hydra)
        folder = Path(str(self.config.hydra.sweep.dir)) if given else Path("search") / name
        with open_dict(self.config):
            self.config.hydra.sweep.dir = str(folder)
        make_folder(folder.absolute())
        write_text(folder / "multirun.yaml", OmegaConf.to_yaml(self.config))  # as Hydra's own sweeper
        return folder

    def _enqueued(self, config: ExperimentConfig, fixed: list[str], axes: Sequence[Axis]) -> list[dict[str, Value]]:
        """Return the settings to try first: those without the search, then those that the user names."""
        found, problems = [], []
        own = self._values(fixed, axes) if config.search.enqueue_defaults else None
        if own is not None:
            found.append(own)
        elif config.search.enqueue_defaults:
            _LOG.warning("the settings without the search are no point of it, so no trial tries them")
        for text in config.search.enqueue:
            try:
                given = {o.get_key_element(): o.value() for o in self._parse(shlex.split(text))}
            except (HydraException, ValueError) as error:
                problems.append(_not_enqueued(text, str(error).splitlines()[0]))
                continue
            by_key = {axis.key: axis for axis in axes}
            placed = {key: by_key[key].place(value) for key, value in given.items() if key in by_key}
            if len(placed) < len(given) or None in placed.values():
                problems.append(_not_enqueued(text, "is no point of the search"))
            found.append({key: value for key, value in placed.items() if value is not None})
        raise_problems(problems)
        return found

    def _values(self, fixed: list[str], axes: Sequence[Axis]) -> dict[str, Value] | None:
        composed = self._compose(fixed)
        choices = composed.hydra.runtime.choices
        keys = {axis.key.lstrip("+") for axis in axes}
        return defaults(axes, {key: choices.get(key) or OmegaConf.select(composed, key) for key in keys})

    def _run(self, study: "Study", config: ExperimentConfig, words: Sequence[str]) -> list[Sequence[JobReturn]]:
        assert self.hydra_context is not None
        assert self.config is not None
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.hydra_context, task_function=self.task_function, config=self.config
        )
        returned: list[Sequence[JobReturn]] = []
        while suggestions := study.ask(config.search.parallel):
            batch = [[*words, *_own_words(suggestion)] for suggestion in suggestions]
            try:
                jobs = launcher.launch(batch, initial_job_idx=suggestions[0].place)
            except BaseException:
                study.give_back(suggestions)
                raise
            for suggestion, job in zip(suggestions, jobs, strict=True):
                _tell(study, suggestion, job.return_value, config.search.objectives)
            returned.append([job for job in jobs if not isinstance(job.return_value, Failed)])
        return returned


def _own_words(suggestion: "Suggestion") -> list[str]:
    return [
        *suggestion.words,
        f"search.trial={suggestion.number}",
        f"hydra.sweep.subdir={folder_name(suggestion.place)}",
    ]


def _tell(study: "Study", suggestion: "Suggestion", result: object, objectives: Sequence[str]) -> None:
    if isinstance(result, Failed):
        study.fail(suggestion, str(result.error))
        return
    outcome = mapping(result)
    if outcome.get("state") == "pruned":
        study.tell(suggestion, None, outcome)
        return
    measured = mapping(outcome.get("objectives"))
    values = [number(mapping(measured.get(name)).get("value")) for name in objectives]
    missing = [name for name, value in zip(objectives, values, strict=True) if value is None]
    if missing:
        study.fail(suggestion, f"the run measured no {', '.join(missing)}; see its report")
    else:
        study.tell(suggestion, [value for value in values if value is not None], outcome)


def _quoted(text: str) -> str:
    return QuotedString(text, Quote.single).with_quotes()


def _words(settings: Mapping[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in settings.items()]


def _not_enqueued(text: str, rule: str) -> ConfigProblem:
    remedy = 'write settings of the search and values within it: search.enqueue=["ppo.kl_coef=0.1"]'
    return ConfigProblem("search.enqueue", text, rule, remedy)


def _searched(config: ExperimentConfig, experiment: str, axes: Sequence[Axis]) -> dict[str, object]:
    """Return what a study is about, by which the same command finds it again."""
    tree = schema.to_tree(config)
    kept = {name: section for name, section in tree.items() if name not in (*_MAY_DIFFER, "search")}
    return {
        "experiment": experiment,
        "settings": json_digest(kept),
        "objectives": list(config.search.objectives),
        "axes": [[axis.key, axis.scale.value, *axis[2:-1], *axis.choices] for axis in axes],
    }
