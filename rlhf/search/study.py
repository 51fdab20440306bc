"""A study of Optuna: the settings to try next, what came of those tried, and what a killed process left.

Every settings tried has a place, the number of its first trial. Where its process is killed, the next one tries the
same settings again at the same place, in the same folder of the run, so that its stages carry on. The sampler's seed
depends on the number of places alone: a study that was killed and carried on suggests what it would have anyway.
"""

import os
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from rlhf.search.config import Objective, Sampler, SearchConfig
from rlhf.search.objectives import MAXIMIZED
from rlhf.search.space import Axis, Scale, Value
from sft.core.errors import StorageError, UsageError
from sft.core.process import boot_id, stat
from sft.core.urls import without_password
from sft.core.values import Json, mapping

HEARTBEAT_S = 10
"""Seconds between two signs of life of a process that holds trials."""
GRACE_S = 60
"""Seconds without a sign of life after which another process takes a trial over."""
_DATABASE_ERRORS = (SQLAlchemyError, optuna.exceptions.StorageInternalError)
_SEARCHED, _PLACE, _PROCESS, _ERROR, _OUTCOME = "searched", "place", "process", "error", "outcome"


class Suggestion(NamedTuple):
    """Settings to try now."""

    number: int
    """Of the trial in Optuna."""
    place: int
    """Number of the first trial of these settings; it names their folder."""
    words: tuple[str, ...]
    """The settings as overrides."""


class Tried(NamedTuple):
    """Settings that were tried, and how that ended."""

    place: int
    settings: Mapping[str, Value]
    state: str
    """`complete`, `pruned`, `failed`, `running`, or `waiting` where it will be tried again."""
    values: tuple[float, ...]
    """One an objective; empty unless complete."""
    outcome: Json
    """What the run said of itself; empty where it said nothing."""
    error: str | None


class Study:
    """One study in its storage; several processes may hold it at once."""

    def __init__(
        self, study: optuna.Study, storage: RDBStorage, config: SearchConfig, axes: Sequence[Axis], seed: int
    ) -> None:
        """Use `Study.open`."""
        self.study, self.storage, self.config, self.axes, self.seed = study, storage, config, axes, seed
        self._held: set[int] = set()

    @classmethod
    def open(
        cls, name: str, storage: str, config: SearchConfig, axes: Sequence[Axis], *, searched: Json, seed: int
    ) -> "Study":
        """Begin a study, or carry one on; trials of processes that are gone will be tried again.

        Args:
            name: of the study.
            storage: URL of SQLite or PostgreSQL.
            config: of the search.
            axes: what it varies.
            searched: what the study is about; one of the same name about something else is refused.
            seed: of the sampler.

        Raises:
            UsageError: the study is about other settings, objectives or experiments.
            StorageError: the database refuses.
        """
        with _storage_errors(storage):
            directions = [
                StudyDirection.MAXIMIZE if Objective(name) in MAXIMIZED else StudyDirection.MINIMIZE
                for name in config.objectives
            ]
            kept = _storage(storage)
            made = optuna.create_study(storage=kept, study_name=name, directions=directions, load_if_exists=True)
            before = made.user_attrs.get(_SEARCHED)
            if before is None:
                made.set_user_attr(_SEARCHED, searched)
            elif before != searched:
                changed = ", ".join(sorted(key for key in searched if before.get(key) != searched[key]))
                raise UsageError(
                    f"the study {name} searches something else ({changed} differ); give another search.study=NAME, or "
                    "leave it out and the name follows from the settings"
                )
            study = cls(made, kept, config, axes, seed)
            study._take_back()
            return study

    def enqueue(self, settings: Mapping[str, Value]) -> None:
        """Try these settings before the sampler's own, unless the study knows them."""
        self.study.enqueue_trial(dict(settings), skip_if_exists=True)

    def ask(self, count: int) -> list[Suggestion]:
        """Return up to `count` settings to try, fewer where the study has had all its trials."""
        with _storage_errors("the study"):
            fail_stale_trials(self.study)
            left = self.config.trials - len(self._places())
            return [self._ask() for _ in range(max(0, min(count, left)))]

    def _ask(self) -> Suggestion:
        self.study.sampler = _sampler(self.config, self.seed + len(self._places()))
        trial = self.study.ask({axis.key: _distribution(axis) for axis in self.axes})
        place = trial.user_attrs.get(_PLACE, trial.number)
        trial.set_user_attr(_PLACE, place)
        trial.set_user_attr(_PROCESS, _this_process())
        self._held.add(trial._trial_id)
        words = tuple(axis.word(trial.params[axis.key]) for axis in self.axes)
        return Suggestion(trial.number, place, words)

    def tell(self, suggestion: Suggestion, values: Sequence[float] | None, outcome: Json) -> None:
        """Record how a trial ended: with values, or pruned without them."""
        trial = self._trial(suggestion)
        self._set(trial, _OUTCOME, dict(outcome))
        state = TrialState.PRUNED if values is None else TrialState.COMPLETE
        self.study.tell(suggestion.number, None if values is None else list(values), state)
        self._held.discard(trial._trial_id)

    def fail(self, suggestion: Suggestion, error: str) -> None:
        """Record that settings do not work; they are not tried again."""
        trial = self._trial(suggestion)
        self._set(trial, _ERROR, error)
        self.study.tell(suggestion.number, state=TrialState.FAIL)
        self._held.discard(trial._trial_id)

    def give_back(self, suggestions: Sequence[Suggestion]) -> None:
        """Have trials that did not end tried again, by this command or another process of the study."""
        with _storage_errors("the study"):
            for suggestion in suggestions:
                trial = self._trial(suggestion)
                if trial.state is TrialState.RUNNING:
                    self._again(trial)

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Show signs of life for the trials that are asked for inside the block."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(HEARTBEAT_S):
                for held in tuple(self._held):
                    with suppress(*_DATABASE_ERRORS):  # the next beat may come through
                        self.storage.record_heartbeat(held)

        thread = threading.Thread(target=beat, name="study", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def tried(self) -> list[Tried]:
        """Return everything that was tried, in order of place, each with its last trial."""
        last: dict[int, FrozenTrial] = {}
        for trial in self.study.get_trials(deepcopy=False):
            place = trial.user_attrs.get(_PLACE)
            if place is not None:
                last[place] = trial
        return [_tried(place, trial) for place, trial in sorted(last.items())]

    def _places(self) -> set[int]:
        """Return the places that are settled or being tried."""
        return {tried.place for tried in self.tried() if tried.state != "waiting"}

    def _trial(self, suggestion: Suggestion) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[suggestion.number]

    def _set(self, trial: FrozenTrial, name: str, value: object) -> None:
        optuna.trial.Trial(self.study, trial._trial_id).set_user_attr(name, value)

    def _take_back(self) -> None:
        """Have trials tried again whose process ran on this machine and is gone."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            process = trial.user_attrs.get(_PROCESS)
            if isinstance(process, list) and _is_gone(process):
                self._again(trial)

    def _again(self, trial: FrozenTrial) -> None:
        self.study.tell(trial.number, state=TrialState.FAIL)
        _retry(self.study, trial)
        self._held.discard(trial._trial_id)


def tell_on_the_way(config: SearchConfig, value: float, step: int) -> str | None:
    """Report how a trial does, from whichever process runs it; return why it should end, None where it goes on.

    Raises:
        StorageError: the database refuses.
    """
    assert config.study is not None
    assert config.storage is not None
    assert config.trial is not None
    with _storage_errors(config.storage):
        pruner = optuna.pruners.MedianPruner(n_startup_trials=config.startup_trials)
        study = optuna.load_study(study_name=config.study, storage=_storage(config.storage), pruner=pruner)
        frozen = study.get_trials(deepcopy=False)[config.trial]
        trial = optuna.trial.Trial(study, frozen._trial_id)
        if step not in frozen.intermediate_values:
            trial.report(value, step)
        if not trial.should_prune():
            return None
    return f"its {config.watched} of {value:.4g} at step {step} is worse than the median of other trials"


def _storage(url: str) -> RDBStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed to be used with Study.optimize")
    return RDBStorage(
        url.replace("postgresql://", "postgresql+psycopg://", 1),
        heartbeat_interval=HEARTBEAT_S,
        grace_period=GRACE_S,
        heartbeat_stale_trial_callback=_retry,
    )


def _retry(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue settings again, at their place; the process of before is forgotten."""
    study.add_trial(
        create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={_PLACE: trial.user_attrs.get(_PLACE, trial.number)},
            system_attrs=trial.system_attrs,
            intermediate_values=trial.intermediate_values,
        )
    )


@contextmanager
def _storage_errors(shown: str) -> Iterator[None]:
    try:
        yield
    except _DATABASE_ERRORS as error:
        found = " ".join(str(error.__cause__ or error).split())[:300]
        remedy = "check search.storage and the disk, then run the same command again"
        raise StorageError(f"{without_password(shown)}: {found}; {remedy}") from error


def _sampler(config: SearchConfig, seed: int) -> optuna.samplers.BaseSampler:
    if config.sampler is Sampler.NSGAII:
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=max(2, config.startup_trials))
    if config.sampler is Sampler.TPE:
        together = config.parallel > 1
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=config.startup_trials, multivariate=True, constant_liar=together
        )
    return optuna.samplers.RandomSampler(seed=seed)


def _distribution(axis: Axis) -> BaseDistribution:
    if axis.scale is Scale.CHOICE:
        return CategoricalDistribution(axis.choices)
    if axis.scale is Scale.STEPS and isinstance(axis.low, int) and isinstance(axis.step, int):
        return IntDistribution(axis.low, int(axis.high), log=axis.log, step=axis.step)
    return FloatDistribution(axis.low, axis.high, log=axis.log, step=axis.step)


def _tried(place: int, trial: FrozenTrial) -> Tried:
    error = trial.user_attrs.get(_ERROR)
    states = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.RUNNING: "running"}
    state = "failed" if error is not None else states.get(trial.state, "waiting")
    values = tuple(trial.values) if state == "complete" and trial.values is not None else ()
    return Tried(place, trial.params, state, values, mapping(trial.user_attrs.get(_OUTCOME)), error)


def _this_process() -> list[object]:
    own = stat(os.getpid())
    return [boot_id(), os.getpid(), own.started if own else 0]


def _is_gone(process: Sequence[object]) -> bool:
    """Tell whether a process of this start of this machine has ended; of others nothing is known."""
    boot, pid, started = process
    if not boot or boot != boot_id() or not isinstance(pid, int):
        return False
    now = stat(pid)
    return now is None or now.started != started or now.state in "ZX"
