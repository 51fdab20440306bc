"""What runs took: wall time of every stage, and of the phases of PPO."""

from collections.abc import Sequence
from typing import NamedTuple

from rlhf.runs.folder import RunFolder
from rlhf.runs.groups import Group

PHASES = (("time/generate_s", "sampling"), ("time/score_s", "scoring"), ("time/train_s", "training"))
"""Metrics of a PPO iteration, in seconds."""


class StageCost(NamedTuple):
    """One stage, or one phase of PPO, of a group."""

    name: str
    computed: int
    """Runs that did the work."""
    reused: int
    """Runs that found the product in the registry."""
    seconds: float | None
    """Mean wall time of those that did the work; None without any."""
    process_hours: float
    """Wall time of all of them, times the processes of each."""
    train_steps: int
    """Optimiser steps of all of them."""


class Cost(NamedTuple):
    """What a group took."""

    letter: str
    stages: tuple[StageCost, ...]
    process_hours: float
    """Of all its stages."""


def cost(group: Group) -> Cost:
    """Return what a group's runs took; work that a run found done is not counted again."""
    names = dict.fromkeys(stage.name for run in group.runs for stage in run.record.stages)
    stages = tuple(_stage_cost(group.runs, name) for name in names)
    return Cost(group.letter, stages, sum(stage.process_hours for stage in stages))


def _stage_cost(runs: Sequence[RunFolder], name: str) -> StageCost:
    done = [(run, stage) for run in runs for stage in run.record.stages if stage.name == name]
    worked = [(run, stage) for run, stage in done if not stage.cached]
    return StageCost(
        name,
        len(worked),
        len(done) - len(worked),
        sum(stage.seconds for _, stage in worked) / len(worked) if worked else None,
        sum(stage.seconds * run.record.processes for run, stage in worked) / 3600,
        sum(stage.train_steps for _, stage in worked),
    )


def phases(group: Group) -> list[tuple[str, float, int]]:
    """Return (phase, mean seconds, runs) of PPO's phases, from the ledgers of the runs that trained."""
    found = []
    for metric, title in PHASES:
        totals = [_total(run, metric) for run in group.runs]
        known = [total for total in totals if total is not None]
        if known:
            found.append((title, sum(known) / len(known), len(known)))
    return found


def _total(run: RunFolder, metric: str) -> float | None:
    # A repeated iteration of a run that was carried on took its time twice.
    spent = [entry.metrics[metric] for entry in run.ledger if entry.stage == "ppo" and metric in entry.metrics]
    return sum(spent) if spent else None
