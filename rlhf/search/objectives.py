"""How a trial did: each objective, with n and an interval where there is one, from what the stages reported."""

from collections.abc import Mapping

import numpy as np

from rlhf.search.config import Objective
from sft.core.statistics import clustered_mean
from sft.core.values import Json, Quantity, interval, items, mapping, number, quantity

MAXIMIZED = frozenset({Objective.REWARD_ACCURACY, Objective.WIN_RATE, Objective.HELD_OUT_REWARD})
"""The other objectives are to be small."""
UNITS: Mapping[Objective, str] = {
    Objective.SFT_LOSS: "nats per token",
    Objective.REWARD_ACCURACY: "share of comparisons",
    Objective.WIN_RATE: "share of prompts",
    Objective.HELD_OUT_REWARD: "judge's score over SFT",
    Objective.KL: "nats per answer",
    Objective.WORST_BIAS: "share of the limit",
}


def measured(objective: Objective, reports: Mapping[str, Json], *, seed: int) -> Quantity | None:
    """Return the number of an objective; None where its stage reported none.

    Args:
        objective: which one.
        reports: stage -> its stage.json.
        seed: of the bootstrap.
    """
    metrics = {name: mapping(report.get("metrics")) for name, report in reports.items()}
    evaluation = metrics.get("evaluation", {})
    match objective:
        case Objective.SFT_LOSS:
            return quantity(metrics.get("sft", {}).get("eval_loss"))
        case Objective.REWARD_ACCURACY:
            return quantity(metrics.get("reward", {}).get("accuracy"))
        case Objective.WIN_RATE:
            return quantity(evaluation.get("win_rate"))
        case Objective.KL:
            return quantity(evaluation.get("kl"))
        case Objective.HELD_OUT_REWARD:
            return _gain(mapping(reports.get("evaluation", {}).get("scores")), seed)
        case Objective.WORST_BIAS:
            return _worst(items(reports.get("bias", {}).get("checks")))


def gold(reports: Mapping[str, Json]) -> Quantity | None:
    """Return the mean true utility of the policy's answers, where it is known; it is shown and chooses nothing."""
    return quantity(mapping(reports.get("evaluation", {}).get("metrics")).get("policy_gold"))


def _gain(scores: Json, seed: int) -> Quantity | None:
    own, other, prompts = scores.get("policy"), scores.get("sft"), scores.get("prompts")
    if not (isinstance(own, list) and isinstance(other, list) and isinstance(prompts, list)):
        return None
    found = clustered_mean(np.array(own) - np.array(other), prompts, seed=seed)
    return Quantity(found.value, *found.ci, found.n)


def _worst(checks: list[Json]) -> Quantity | None:
    """Return the check that comes nearest to its limit, or goes farthest beyond it, in units of that limit."""
    shares = [share for check in checks if (share := _share(check)) is not None]
    return max(shares, key=lambda share: share.value, default=None)


def _share(check: Json) -> Quantity | None:
    effect, limit, n = number(check.get("effect")), number(check.get("limit")), number(check.get("n"))
    if effect is None or not limit:
        return None
    low, high = interval(check.get("ci"))
    if low is None or high is None:
        return Quantity(abs(effect) / limit, None, None, None if n is None else int(n))
    ends = sorted((abs(low), abs(high)))
    nearest = 0.0 if low <= 0 <= high else ends[0]
    return Quantity(abs(effect) / limit, nearest / limit, ends[1] / limit, None if n is None else int(n))
