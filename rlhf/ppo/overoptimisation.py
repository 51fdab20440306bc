"""Tells while PPO runs when the proxy reward rises and what it stands for falls. Pure: numbers in, symptoms out."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from rlhf.ppo.doctor import Severity, Symptom
from rlhf.ppo.selection import Look

WINDOW = 8
"""Iterations that are compared with as many before them."""
ERRORS = 2.5
"""Standard errors by which both means must have moved. With 14 degrees of freedom chance does that to one of them in
13 of 1,000 comparisons, to both in opposite directions far more rarely, since both score the same answers."""
_REMEDY = (
    "stop here or raise ppo.kl_coef; ppo.select keeps an earlier policy, and a better reward model moves the point"
)


def examine_course(history: Sequence[Mapping[str, float | None]]) -> list[Symptom]:
    """Return whether the proxy reward rose while the gold utility fell, over the last two windows of iterations.

    Args:
        history: rows with `reward`, and `gold` where it is known, one an iteration.
    """
    proxy, gold = _moved(_column(history, "reward")), _moved(_column(history, "gold"))
    if not (proxy > ERRORS and gold < -ERRORS):
        return []
    cause = (
        f"over the last {2 * WINDOW} iterations the proxy reward rose by {proxy:.1f} standard errors while the gold "
        f"utility fell by {-gold:.1f}: the policy exploits the reward model"
    )
    return [Symptom("proxy_up_gold_down", Severity.ALERT, cause, _REMEDY)]


def examine_look(
    history: Sequence[Mapping[str, float | None]], look: Look, best_win_rate: float | None
) -> list[Symptom]:
    """Return whether the proxy reward rises while the held-out judge's whole interval is below its best look.

    Args:
        history: as for `examine_course`.
        look: the newest.
        best_win_rate: highest of the looks before; None without any.
    """
    if best_win_rate is None or not look.high < best_win_rate or not _moved(_column(history, "reward")) > 0:
        return []
    cause = (
        f"the held-out judge's win rate fell from {best_win_rate:.2f} to {look.win_rate:.2f} (at most {look.high:.2f}) "
        "while the proxy reward rises: the policy exploits the reward model"
    )
    return [Symptom("proxy_up_judge_down", Severity.ALERT, cause, _REMEDY)]


def _column(history: Sequence[Mapping[str, float | None]], name: str) -> list[float]:
    values = (row.get(name) for row in history[-2 * WINDOW :])
    return [value for value in values if value is not None and math.isfinite(value)]


def _moved(values: Sequence[float]) -> float:
    """Return the difference of the last window's mean from that of the window before, in standard errors (Welch)."""
    if len(values) < 2 * WINDOW:
        return 0.0
    before, after = np.array(values[:WINDOW]), np.array(values[WINDOW:])
    error = math.sqrt((before.var(ddof=1) + after.var(ddof=1)) / WINDOW)
    difference = float(after.mean() - before.mean())
    return difference / error if error > 0 else math.copysign(math.inf, difference) if difference else 0.0
