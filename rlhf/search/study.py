"""A study of Optuna: the settings to try next, what came of those tried, and what a killed process left.

Every settings tried has a place, the number of its first trial. Where its process is killed, the next one tries the
same settings again at the same place, in the same folder of the run, so that its stages carry on. The sampler's seed
depends on how many places came before alone: a study that was killed and carried on suggests what it would have
anyway, and two processes never draw with the same seed.
"""

import logging
import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import NamedTuple

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from rlhf.search.config import Objective, Sampler, SearchConfig
from rlhf.search.database import (
    DATABASE_ERRORS,
    GRACE_S,
    HEARTBEAT_S,
    opened,
    opened_for_a_look,
    storage_errors,
)
from rlhf.search.objectives import MAXIMIZED
from rlhf.search.space import Axis, Scale, Value
from sft.core.errors import UsageError
from sft.core.process import boot_id, stat
from sft.core.values import Json, mapping

_DIGITS = 12
_LOG = logging.getLogger(__name__)
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
        """Begin a study, or carry one on.

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
        with storage_errors(storage):
            directions = [
                StudyDirection.MAXIMIZE if Objective(name) in MAXIMIZED else StudyDirection.MINIMIZE
                for name in config.objectives
            ]
            kept = opened(storage, _retry)
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
            return cls(made, kept, config, axes, seed)

    def enqueue(self, settings: Mapping[str, Value]) -> None:
        """Try these settings before the sampler's own, unless the study knows them."""
        with storage_errors("the study"):
            self.study.enqueue_trial(dict(settings), skip_if_exists=True)

    def ask(self, count: int) -> list[Suggestion]:
        """Return up to `count` settings to try, fewer where the study has had all its trials.

        Those of processes that are gone come first.
        """
        with storage_errors("the study"):
            self._take_back()
            fail_stale_trials(self.study)
            left = self.config.trials - len(self._places())
            return [self._ask() for _ in range(max(0, min(count, left)))]

    def _ask(self) -> Suggestion:
        taken = self.study.ask()
        place = taken.user_attrs.get(_PLACE, taken.number)
        taken.set_user_attr(_PLACE, place)
        taken.set_user_attr(_PROCESS, _this_process())
        self.storage.record_heartbeat(taken._trial_id)
        self._held.add(taken._trial_id)
        earlier = {found for trial in self.study.get_trials(deepcopy=False) if (found := _place(trial)) < place}
        self.study.sampler = _sampler(self.config, self.seed + len(earlier))
        trial = optuna.trial.Trial(self.study, taken._trial_id)
        for axis in self.axes:
            trial._suggest(axis.key, _distribution(axis))
        settings = _settings(trial)
        return Suggestion(trial.number, place, tuple(axis.word(settings[axis.key]) for axis in self.axes))

    def tell(self, suggestion: Suggestion, values: Sequence[float] | None, outcome: Json) -> None:
        """Record how a trial ended: with values, or pruned without them."""
        state = TrialState.PRUNED if values is None else TrialState.COMPLETE
        self._end(suggestion, state, values, _OUTCOME, dict(outcome))

    def fail(self, suggestion: Suggestion, error: str) -> None:
        """Record that settings do not work; they are not tried again."""
        self._end(suggestion, TrialState.FAIL, None, _ERROR, error)

    def _end(
        self, suggestion: Suggestion, state: TrialState, values: Sequence[float] | None, name: str, said: object
    ) -> None:
        with storage_errors("the study"):
            trial = self._trial(suggestion)
            self._held.discard(trial._trial_id)
            try:
                self._set(trial, name, said)
            except optuna.exceptions.UpdateFinishedTrialError:
                _LOG.warning(
                    "trial %d gave no sign of life for %d s, so that another process tries its settings again; "
                    "what it found is not counted",
                    suggestion.place,
                    GRACE_S,
                )
                return
            self.study.tell(suggestion.number, None if values is None else list(values), state, skip_if_finished=True)

    def give_back(self, suggestions: Sequence[Suggestion]) -> None:
        """Have trials that did not end tried again, by this command or another process of the study."""
        with storage_errors("the study"):
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
                    with suppress(*DATABASE_ERRORS):  # the next beat may come through
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
        with storage_errors("the study"):
            for trial in self.study.get_trials(deepcopy=False):
                if _PLACE in trial.user_attrs:
                    last[_place(trial)] = trial
        return [_tried(place, trial) for place, trial in sorted(last.items())]

    def _places(self) -> set[int]:
        """Return the places that are settled or being tried."""
        return {tried.place for tried in self.tried() if tried.state != "waiting"}

    def _trial(self, suggestion: Suggestion) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[suggestion.number]

    def _set(self, trial: FrozenTrial, name: str, value: object) -> None:
        optuna.trial.Trial(self.study, trial._trial_id).set_user_attr(name, value)

    def _take_back(self) -> None:
        """Have trials tried again whose process ran on this machine and is gone, or did not come to say its name."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            process = trial.user_attrs.get(_PROCESS)
            if _is_gone(process) if isinstance(process, list) else _is_old(trial):
                self._again(trial)

    def _again(self, trial: FrozenTrial) -> None:
        self._held.discard(trial._trial_id)
        with suppress(optuna.exceptions.UpdateFinishedTrialError):  # another process has taken it over
            self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
            _retry(self.study, trial)


def tell_on_the_way(config: SearchConfig, value: float, step: int) -> str | None:
    """Report how a trial does, from whichever process runs it; return why it should end, None where it goes on.

    Raises:
        StorageError: the database refuses.
    """
    assert config.study is not None
    assert config.storage is not None
    assert config.trial is not None
    with storage_errors(config.storage), opened_for_a_look(config.storage, _retry) as storage:
        pruner = optuna.pruners.MedianPruner(n_startup_trials=config.startup_trials)
        study = optuna.load_study(study_name=config.study, storage=storage, pruner=pruner)
        frozen = study.get_trials(deepcopy=False)[config.trial]
        if frozen.state is not TrialState.RUNNING:  # another process has taken it over
            return None
        trial = optuna.trial.Trial(study, frozen._trial_id)
        if step not in frozen.intermediate_values:
            trial.report(value, step)
        if not trial.should_prune():
            return None
    return f"its {config.watched} of {value:.4g} at step {step} is worse than the median of other trials"


def _retry(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue settings again, at their place; the process of before is forgotten."""
    study.add_trial(
        create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={_PLACE: _place(trial)},
            system_attrs=trial.system_attrs,
            intermediate_values=trial.intermediate_values,
        )
    )


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
    return Tried(place, _settings(trial), state, values, mapping(trial.user_attrs.get(_OUTCOME)), error)


def _place(trial: FrozenTrial) -> int:
    return int(trial.user_attrs.get(_PLACE, trial.number))


def _settings(trial: FrozenTrial | optuna.trial.Trial) -> dict[str, Value]:
    """Return what a trial tries; a step that Optuna gives as 0.8500000000000001 is 0.85."""
    steps = {key for key, kind in trial.distributions.items() if isinstance(kind, FloatDistribution) and kind.step}
    return {key: round(value, _DIGITS) if key in steps else value for key, value in trial.params.items()}


def _this_process() -> list[object]:
    own = stat(os.getpid())
    return [socket.gethostname(), boot_id(), os.getpid(), own.started if own else 0]


def _is_gone(process: Sequence[object]) -> bool:
    """Tell whether a process of this start of this machine has ended; of others nothing is known."""
    *machine, pid, started = process
    if not boot_id() or machine != [socket.gethostname(), boot_id()] or not isinstance(pid, int):
        return False
    now = stat(pid)
    return now is None or now.started != started or now.state in "ZX"


def _is_old(trial: FrozenTrial) -> bool:
    return trial.datetime_start is not None and datetime.now() - trial.datetime_start > timedelta(seconds=GRACE_S)
