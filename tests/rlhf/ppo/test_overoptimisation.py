import math

import numpy as np
import pytest

from rlhf.ppo.doctor import Severity
from rlhf.ppo.overoptimisation import ERRORS, WINDOW, examine_course, examine_look
from rlhf.ppo.selection import Look
from rlhf.ppo.state import HistoryRow

NOISE = (0.1, -0.1) * WINDOW
"""Variance of a window: 0.01 * 8 / 7; standard error of a difference of means: 0.1 * sqrt(2 / 7) = 0.0535."""


def course(proxy: float, gold: float | None) -> list[HistoryRow]:
    """Two windows with noise, the second one moved."""
    moved = [0.0] * WINDOW + [1.0] * WINDOW
    return [
        {"reward": proxy * step + noise, "gold": None if gold is None else gold * step + noise}
        for step, noise in zip(moved, NOISE, strict=True)
    ]


def test_the_proxy_rises_while_gold_falls():
    (found,) = examine_course(course(0.2, -0.3))
    assert (found.name, found.severity) == ("proxy_up_gold_down", Severity.ALERT)
    assert f"rose by {0.2 / (0.1 * math.sqrt(2 / 7)):.1f} standard errors" in found.cause  # 3.7
    assert "fell by 5.6" in found.cause


@pytest.mark.parametrize(("proxy", "gold"), [(0.2, 0.3), (-0.2, -0.3), (0.2, -0.1), (0.1, -0.3), (0.2, None)])
def test_anything_else_is_no_alarm(proxy: float, gold: float | None):
    assert examine_course(course(proxy, gold)) == []


def test_fewer_than_two_windows_say_nothing_and_older_iterations_do_not_count():
    assert examine_course(course(5.0, -5.0)[1:]) == []
    assert len(examine_course([{"reward": 99.0, "gold": -99.0}] * 50 + course(0.2, -0.3))) == 1
    assert examine_course([{"reward": math.nan, "gold": -1.0}] * 16) == []


def test_chance_hardly_ever_alarms():
    random = np.random.default_rng(0)
    alarms = 0
    for _ in range(1000):
        noise = random.normal(size=(2 * WINDOW, 2))
        alarms += len(examine_course([{"reward": p, "gold": g} for p, g in noise.tolist()]))
    assert alarms <= 2
    assert ERRORS >= 2.5


def test_the_judge_falls_while_the_proxy_rises():
    look = Look(20, 0.55, 0.48, 0.62, 100)
    (found,) = examine_look(course(0.05, None), look, 0.7)
    assert (found.name, found.severity) == ("proxy_up_judge_down", Severity.ALERT)
    assert "from 0.70 to 0.55 (at most 0.62)" in found.cause
    assert examine_look(course(0.05, None), look, 0.6) == []  # within the interval
    assert examine_look(course(-0.05, None), look, 0.7) == []
    assert examine_look(course(0.05, None), look, None) == []
