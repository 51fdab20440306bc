"""The numbers of runs, and of groups of seeds: means with Student's t interval, differences paired by seed."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from rlhf.runs.folder import RunFolder
from rlhf.runs.groups import Group
from sft.core.statistics import student_interval
from sft.core.values import Json, Quantity, mapping, quantity


class Measure(NamedTuple):
    """A number of results.json that stands in headlines."""

    name: str
    title: str
    rate: bool = False
    """Whether it is a share, shown in percent; its interval is cut to 0 and 1."""


HEADLINES = (
    Measure("win_rate", "win rate against SFT", rate=True),
    Measure("policy_gold", "gold reward"),
    Measure("proxy_reward_gain", "gain in proxy reward"),
    Measure("kl", "KL to SFT, nats per answer"),
    Measure("reward_model_accuracy", "reward model accuracy", rate=True),
    Measure("policy_length", "answer length, tokens"),
    Measure("policy_perplexity", "perplexity of held-out answers"),
    Measure("validation_sft_loss", "validation data: SFT loss, nats per token"),
    Measure("validation_reward_accuracy", "validation data: reward model accuracy", rate=True),
    Measure("validation_win_rate", "validation data: win rate against SFT", rate=True),
    Measure("validation_held_out_reward", "validation data: gain by the judge's scores"),
    Measure("validation_kl", "validation data: KL to SFT, nats per answer"),
    Measure("validation_worst_bias", "validation data: worst bias, share of its limit"),
    Measure("validation_gold", "validation data: gold reward"),
)
VALIDATION = "validation_"
"""Begins the name of what a trial of a search measured: its objectives, and the gold reward, which chooses nothing."""


_RATES = {measure.name for measure in HEADLINES if measure.rate}


class Basis(StrEnum):
    """Over what an interval is."""

    SEEDS = "seeds"
    """Training again with another seed: Student's t."""
    PROMPTS = "prompts"
    """Asking this one run's models other prompts: as the run measured it."""
    NONE = "none"
    """No interval is known."""


class Across(NamedTuple):
    """A number of a group."""

    mean: float
    low: float | None
    high: float | None
    n: int
    """Runs, each of another seed."""
    basis: Basis
    values: tuple[tuple[int, float], ...]
    """(seed, value) of each run."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval, where one is known."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON."""
        ci = None if self.interval is None else list(self.interval)
        values = [{"seed": seed, "value": value} for seed, value in self.values]
        return {"mean": self.mean, "ci": ci, "n": self.n, "interval_over": self.basis.value, "values": values}


def evaluation(run: RunFolder) -> Json:
    """Return the named estimates of a finished run, a trial's under names of their own; empty for any other."""
    if run.record.trial is None:
        return mapping(run.results.get("evaluation"))
    found = {**mapping(run.results.get("objectives")), "gold": run.results.get("gold")}
    return {f"{VALIDATION}{name}": value for name, value in found.items()}


def measured(run: RunFolder, name: str) -> Quantity | None:
    """Return one number of a run."""
    return quantity(evaluation(run).get(name))


def measure_names(runs: Sequence[RunFolder]) -> list[str]:
    """Return the names of all numbers that any run has, headlines first."""
    headlines = [measure.name for measure in HEADLINES]
    found = {name: None for run in runs for name, value in evaluation(run).items() if quantity(value) is not None}
    return [name for name in headlines if name in found] + sorted(name for name in found if name not in headlines)


def across_seeds(group: Group, name: str) -> Across | None:
    """Return a number of a group; None where no run has it.

    With one run the interval is the run's own, over prompts: it says nothing about training again.
    """
    known = [(run.record.seed, found) for run in group.runs if (found := measured(run, name)) is not None]
    if not known:
        return None
    if len(known) == 1:
        seed, only = known[0]
        basis = Basis.NONE if only.interval is None else Basis.PROMPTS
        return Across(only.value, only.low, only.high, 1, basis, ((seed, only.value),))
    across = _across([(seed, found.value) for seed, found in known])
    return across if name not in _RATES else across._replace(low=as_rate(across.low), high=as_rate(across.high))


def difference(group: Group, baseline: Group, name: str) -> Across | None:
    """Return how much higher a group's number is than another's, run against run of the same seed; None without any.

    One pair of runs has no interval.
    """
    own, other = (_by_seed(side, name) for side in (group, baseline))
    pairs = [(seed, own[seed] - other[seed]) for seed in sorted(own.keys() & other.keys())]
    return _across(pairs) if pairs else None


def mean_interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return Student's interval of a mean, or a pair of None for fewer than two values."""
    return student_interval(values) if len(values) > 1 else (None, None)


def as_rate(end: float | None) -> float | None:
    """Return an interval's end within 0 and 1: Student's t knows nothing of shares."""
    return None if end is None else min(1.0, max(0.0, end))


def _across(values: Sequence[tuple[int, float]]) -> Across:
    plain = [value for _, value in values]
    low, high = mean_interval(plain)
    basis = Basis.NONE if low is None else Basis.SEEDS
    return Across(sum(plain) / len(plain), low, high, len(plain), basis, tuple(values))


def _by_seed(group: Group, name: str) -> Mapping[int, float]:
    found = ((run.record.seed, measured(run, name)) for run in group.runs)
    return {seed: known.value for seed, known in found if known is not None}
