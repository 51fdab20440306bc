"""Courses of training: lines over iterations or steps, and rewards of several runs at equal KL."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import median_low
from typing import NamedTuple

import numpy as np

from rlhf.runs.folder import RunFolder
from rlhf.runs.groups import Group
from rlhf.runs.measures import mean_interval
from sft.core.ledger import LedgerEntry
from sft.core.values import Json, items, number

Line = list[tuple[float, float]]
"""Points (x, y) in the order of x."""

PPO_SERIES = (
    ("reward", "proxy reward (what PPO maximises)"),
    ("gold", "gold reward"),
    ("kl", "KL to the reference, nats per answer"),
    ("length", "answer length, tokens"),
    ("entropy", "entropy of the policy, nats"),
)
_LEDGER_NAMES = {
    "reward": "objective/scores",
    "gold": "objective/gold",
    "kl": "objective/kl",
    "length": "response/mean_tokens",
    "entropy": "objective/entropy",
}
_MOST_BLOCKS = 24


class Course(NamedTuple):
    """One quantity of a group: a line per run, and their mean where all runs have a value."""

    letter: str
    lines: tuple[Line, ...]
    mean: Line


class AtKL(NamedTuple):
    """A group's reward at one KL: the mean of the runs that got there, with Student's interval from two runs on."""

    kl: float
    mean: float
    low: float | None
    high: float | None
    n: int


class Frontier(NamedTuple):
    """One reward of a group against KL."""

    letter: str
    lines: tuple[Line, ...]
    """A run's reward over KL, smoothed."""
    points: tuple[AtKL, ...]
    """At the KL values asked for; those that no run reached are absent."""


def iterations(run: RunFolder) -> list[Json]:
    """Return a run's PPO iterations: as the finished stage reported them, else as far as the ledger goes."""
    reported = items(run.ppo.get("iterations"))
    return reported or _from_ledger(run.ledger)


def _from_ledger(entries: Sequence[LedgerEntry]) -> list[Json]:
    # A run that was carried on repeats the iterations after its last checkpoint: the later line counts.
    latest = {
        entry.step: entry.metrics for entry in entries if entry.stage == "ppo" and "objective/kl" in entry.metrics
    }
    return [
        {"iteration": step, **{name: metrics.get(known) for name, known in _LEDGER_NAMES.items()}}
        for step, metrics in sorted(latest.items())
    ]


def course(group: Group, series: str) -> Course:
    """Return one quantity over PPO iterations."""
    return _course(group.letter, [_line(iterations(run), "iteration", series) for run in group.runs])


def validation_course(group: Group, stage: str) -> Course:
    """Return the validation loss of `sft` or `reward` over optimiser steps."""
    return _course(
        group.letter, [_line(items(run.report(stage).get("loss")), "step", "validation") for run in group.runs]
    )


def _line(rows: Sequence[Json], x: str, y: str) -> Line:
    points = ((number(row.get(x)), number(row.get(y))) for row in rows)
    return [(at, value) for at, value in points if at is not None and value is not None]


def _course(letter: str, lines: Sequence[Line]) -> Course:
    known = tuple(line for line in lines if line)
    return Course(letter, known, mean_line(known))


def mean_line(lines: Sequence[Line]) -> Line:
    """Return the mean at every x that all lines have, so that a run that ends early cannot make it jump."""
    at: defaultdict[float, list[float]] = defaultdict(list)
    for line in lines:
        for x, y in line:
            at[x].append(y)
    return [(x, sum(ys) / len(ys)) for x, ys in sorted(at.items()) if len(ys) == len(lines)]


def over_kl(line: Line) -> Line:
    """Return a reward over KL as a function: points sorted by KL and averaged in blocks of equal size.

    Training goes back and forth in KL, and each iteration's mean is noisy; about sqrt(2 n) blocks of n points keep the
    shape and calm the noise. The ends are those of the outermost blocks' means.

    Args:
        line: (KL, reward) of each iteration, in any order.
    """
    if not line:
        return []
    ordered = np.array(sorted(line))
    count = min(_MOST_BLOCKS, len(line), max(2, round((2 * len(line)) ** 0.5)))
    means = (block.mean(axis=0) for block in np.array_split(ordered, count))
    return [(float(kl), float(reward)) for kl, reward in means]


def at_kl(line: Line, kl: float) -> float | None:
    """Return a line's value by linear interpolation; None outside of it, since nothing is guessed."""
    if not line or not line[0][0] <= kl <= line[-1][0]:
        return None
    xs, ys = zip(*line, strict=True)
    return float(np.interp(kl, xs, ys))


def kl_lines(group: Group, series: str) -> tuple[Line, ...]:
    """Return `reward` or `gold` over KL, smoothed, of every run of a group that has both."""
    lines = (over_kl(_line(iterations(run), "kl", series)) for run in group.runs)
    return tuple(line for line in lines if line)


def frontier(letter: str, lines: tuple[Line, ...], grid: Sequence[float]) -> Frontier:
    """Return a group's reward at the KL values of a grid.

    Args:
        letter: of the group.
        lines: of its runs, as `kl_lines` gives them.
        grid: nats per answer.
    """
    points = []
    for kl in grid:
        values = [value for line in lines if (value := at_kl(line, kl)) is not None]
        if values:
            points.append(AtKL(kl, sum(values) / len(values), *mean_interval(values), len(values)))
    return Frontier(letter, lines, tuple(points))


def reach(lines: Sequence[Line]) -> float:
    """Return the KL that at least half of a group's lines get to, in nats per answer; 0 without any."""
    return median_low(line[-1][0] for line in lines) if lines else 0.0


def kl_grid(reaches: Sequence[float], steps: int) -> list[float]:
    """Return KL values: `steps` evenly up to where the shortest group ends, and as many on to the end of the longest.

    Groups often differ tenfold in KL; an even grid would leave most of them out.
    """
    known = [end for end in reaches if end > 0]
    if not known:
        return []
    common, highest = min(known), max(known)
    within = [common * step / steps for step in range(1, steps + 1)]
    beyond = [common + (highest - common) * step / steps for step in range(1, steps + 1)]
    return within if highest == common else [*within, *beyond]


def even_grid(lines: Sequence[Line], steps: int) -> list[float]:
    """Return KL values evenly over all that lines cover, for a plot; empty without any."""
    if not lines:
        return []
    low, high = min(line[0][0] for line in lines), max(line[-1][0] for line in lines)
    return [low + (high - low) * step / steps for step in range(steps + 1)]
