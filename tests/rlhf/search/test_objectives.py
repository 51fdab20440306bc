"""A trial's numbers, from what its stages reported."""

import pytest

from rlhf.search.config import Objective
from rlhf.search.objectives import MAXIMIZED, gold, measured
from sft.core.values import Quantity

CHECKS = [
    {"effect": 0.05, "ci": [0.02, 0.08], "n": 100, "limit": 0.1},
    {"effect": -0.3, "ci": [-0.5, -0.1], "n": 40, "limit": 0.4},
    {"effect": 0.01, "ci": [-0.02, 0.04], "n": 9, "limit": 0.5},
]
REPORTS = {
    "sft": {"metrics": {"eval_loss": 1.25}},
    "reward": {"metrics": {"accuracy": {"value": 0.8, "ci": [0.7, 0.9], "n": 50, "ceiling": 0.9}}},
    "evaluation": {
        "metrics": {
            "win_rate": {"value": 0.6, "ci": [0.5, 0.7], "n": 20},
            "kl": {"value": 2.0, "ci": [1.0, 3.0], "n": 20},
            "policy_gold": {"value": 0.3, "ci": [0.2, 0.4], "n": 20},
        },
        "scores": {"policy": [1.0, 2.0, 4.0], "sft": [0.5, 1.0, 1.0], "prompts": ["a", "a", "b"]},
    },
    "bias": {"checks": CHECKS},
}


@pytest.mark.parametrize(
    ("objective", "number"),
    [
        (Objective.SFT_LOSS, Quantity(1.25)),
        (Objective.REWARD_ACCURACY, Quantity(0.8, 0.7, 0.9, 50)),
        (Objective.WIN_RATE, Quantity(0.6, 0.5, 0.7, 20)),
        (Objective.KL, Quantity(2.0, 1.0, 3.0, 20)),
        (Objective.WORST_BIAS, Quantity(0.75, 0.25, 1.25, 40)),
    ],
)
def test_numbers_of_objectives(objective: Objective, number: Quantity):
    found = measured(objective, REPORTS, seed=0)
    assert found is not None
    assert found == pytest.approx(number)


def test_held_out_reward_is_the_gain_over_sft():
    found = measured(Objective.HELD_OUT_REWARD, REPORTS, seed=0)
    assert found is not None
    assert found.value == pytest.approx((0.5 + 1.0 + 3.0) / 3)
    assert found.n == 3
    assert found.low is not None
    assert found.low < found.value < found.high


def test_an_effect_whose_interval_holds_zero_may_be_none():
    reports = {"bias": {"checks": [{"effect": -0.1, "ci": [-0.4, 0.2], "n": 9, "limit": 0.2}]}}
    assert measured(Objective.WORST_BIAS, reports, seed=0) == pytest.approx(Quantity(0.5, 0.0, 2.0, 9))


@pytest.mark.parametrize("objective", list(Objective))
def test_what_no_stage_reported_is_not_made_up(objective: Objective):
    assert measured(objective, {}, seed=0) is None


def test_gold_is_read_and_is_no_objective():
    assert gold(REPORTS) == Quantity(0.3, 0.2, 0.4, 20)
    assert gold({}) is None
    assert "gold" not in {objective.value for objective in Objective}


def test_the_direction_of_every_objective():
    assert {objective.value: objective in MAXIMIZED for objective in Objective} == {
        "sft_loss": False,
        "reward_accuracy": True,
        "win_rate": True,
        "held_out_reward": True,
        "kl": False,
        "worst_bias": False,
    }
