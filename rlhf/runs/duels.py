"""How often one policy beats another on the same prompts, from the scores that each run's evaluation kept.

Only scores of one judge compare: the gold utility, or a held-out reward model of the same bits. Every answer of one
policy meets every answer of the other to the same prompt; ties count half.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rlhf.runs.folder import RunFolder
from rlhf.runs.groups import Group
from rlhf.runs.measures import as_rate, mean_interval
from sft.core.measures import wins
from sft.core.statistics import clustered_share
from sft.core.values import mapping, numbers, text

Floats = npt.NDArray[np.float64]
OWN_SFT = "SFT"
"""Stands in a matrix for the model that each policy started from."""
GOLD = "gold"


class Scores(NamedTuple):
    """What a run's evaluation kept: who judged, and every answer's score by prompt."""

    judge: str
    judge_sha256: str
    """Of the judge's weights; empty for the gold utility."""
    policy: Mapping[str, Floats]
    """Digest of the prompt -> scores of the policy's answers."""
    sft: Mapping[str, Floats]

    def same_judge(self, other: "Scores") -> bool:
        """Return whether scores of both compare."""
        return (self.judge, self.judge_sha256) == (other.judge, other.judge_sha256)


class Duel(NamedTuple):
    """How often the first side wins."""

    share: float
    low: float
    high: float
    prompts: int
    """Different prompts, the clusters of the interval `low` to `high`: other prompts, the same models."""
    pairs: int
    """Pairs of runs, each of one seed."""
    seeds_low: float | None
    """Student's interval over the pairs, from two on: models trained again."""
    seeds_high: float | None

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON."""
        over_seeds = None if self.seeds_low is None else [self.seeds_low, self.seeds_high]
        prompts = {"ci": [self.low, self.high], "n": self.prompts}
        return {"share": self.share, "over_prompts": prompts, "over_seeds": {"ci": over_seeds, "n": self.pairs}}


class Refusal(NamedTuple):
    """Why two sides were not compared."""

    reason: str

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON."""
        return {"refused": self.reason}


class Cell(NamedTuple):
    """One meeting of a matrix."""

    row: str
    column: str
    found: Duel | Refusal


class Matrix(NamedTuple):
    """Who beats whom."""

    letters: tuple[str, ...]
    """Groups that meet, in order; the last column is each one's own SFT model."""
    cells: tuple[Cell, ...]
    judges: tuple[str, ...]
    """Names of the judges behind it."""
    left_out: tuple[str, ...]
    """Groups that the matrix has no room for."""


def read_scores(run: RunFolder) -> Scores | None:
    """Return the scores that a run kept; None where its evaluation has not ended or kept none."""
    kept = mapping(run.evaluation.get("scores"))
    prompts = kept.get("prompts")
    if not isinstance(prompts, list):
        return None
    policy, sft = numbers(kept.get("policy")), numbers(kept.get("sft"))
    if not len(policy) == len(sft) == len(prompts):
        return None
    names = [str(prompt) for prompt in prompts]
    sides = (_by_prompt(names, policy), _by_prompt(names, sft))
    return Scores(text(kept.get("judge")), text(kept.get("judge_sha256")), *sides)


def _by_prompt(prompts: Sequence[str], scores: Sequence[float]) -> dict[str, Floats]:
    found: dict[str, list[float]] = {}
    for prompt, score in zip(prompts, scores, strict=True):
        found.setdefault(prompt, []).append(score)
    return {prompt: np.array(values) for prompt, values in found.items()}


def matrix(groups: Sequence[Group], most: int) -> Matrix:
    """Return the win rates of all policies against each other and against their own SFT models.

    Args:
        groups: in the order of the rows.
        most: groups that are compared; those behind are named as left out.
    """
    shown = groups[:most]
    known = {group.letter: {run.record.seed: read_scores(run) for run in group.runs} for group in shown}
    cells = []
    for row in shown:
        of_row = known[row.letter]
        own_sft = [(scores.policy, scores.sft) for scores in of_row.values() if scores is not None]
        cells.append(Cell(row.letter, OWN_SFT, _duel(own_sft) or Refusal(_NO_SCORES)))
        cells += [Cell(row.letter, other.letter, _meet(of_row, known[other.letter])) for other in shown if other != row]
    judges = {scores.judge for of_row in known.values() for scores in of_row.values() if scores is not None}
    left_out = tuple(group.letter for group in groups[most:])
    return Matrix(tuple(group.letter for group in shown), tuple(cells), tuple(sorted(judges)), left_out)


_NO_SCORES = "no scores kept"


def _meet(own: Mapping[int, Scores | None], other: Mapping[int, Scores | None]) -> Duel | Refusal:
    """Let runs of the same seed meet; where no seed is common, every run meets every other."""
    seeds = sorted(own.keys() & other.keys())
    pairs = [(own[seed], other[seed]) for seed in seeds] or [(a, b) for a in own.values() for b in other.values()]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not known:
        return Refusal(_NO_SCORES)
    judged = [(a, b) for a, b in known if a.same_judge(b)]
    if not judged:
        return Refusal("different judges")
    return _duel([(a.policy, b.policy) for a, b in judged]) or Refusal("no common prompts")


def _duel(pairs: Sequence[tuple[Mapping[str, Floats], Mapping[str, Floats]]]) -> Duel | None:
    """Return the result of pairs of runs; None where no pair has a prompt in common."""
    hits: list[float] = []
    clusters: list[str] = []
    shares: list[float] = []
    for own, other in pairs:
        common = [prompt for prompt in own if prompt in other]
        won = _shares_won(own, other, common)
        if won:
            hits += won
            clusters += common
            shares.append(sum(won) / len(won))
    if not hits:
        return None
    over_prompts = clustered_share(hits, clusters)
    low, high = mean_interval(shares)
    return Duel(over_prompts.value, *over_prompts.ci, over_prompts.n, len(shares), as_rate(low), as_rate(high))


def _shares_won(own: Mapping[str, Floats], other: Mapping[str, Floats], prompts: Sequence[str]) -> list[float]:
    """Return the share of meetings that is won at each prompt; prompts with as many answers are counted at once."""
    by_answers: dict[tuple[int, int], list[str]] = {}
    for prompt in prompts:
        by_answers.setdefault((len(own[prompt]), len(other[prompt])), []).append(prompt)
    found: dict[str, float] = {}
    for alike in by_answers.values():
        own_PK, other_PL = (np.stack([side[prompt] for prompt in alike]) for side in (own, other))
        shares_P = wins(own_PK[:, :, None], other_PL[:, None, :]).mean(axis=(1, 2))
        found.update(zip(alike, shares_P.tolist(), strict=True))
    return [found[prompt] for prompt in prompts]
