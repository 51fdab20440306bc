import json
import math

import pytest
import torch

from rlhf.ppo import shape_rewards
from rlhf.ppo.doctor import (
    RolloutSigns,
    Severity,
    Symptom,
    UpdateSigns,
    examine_placement,
    examine_rollout,
    examine_tokens,
    examine_update,
    tell,
)
from sft.core.generation import Responses

EOS, PAD = 1, 0
HEALTHY_ROLLOUT = RolloutSigns(
    iteration=20,
    policy_learns=True,
    kl_mean=3.2,
    kl_standard_error=0.2,
    entropy=0.5,
    first_entropy=0.8,
    truncated_fraction=0.02,
    scores_finite=True,
    scores_std=1.5,
    explained_variance=0.8,
)
HEALTHY_UPDATE = UpdateSigns(
    first_ratio_deviation=2e-6,
    approx_kl=0.003,
    policy_loss=-0.01,
    value_loss=0.4,
    policy_grad_norm=0.7,
    critic_grad_norm=9.0,
    fp32=True,
)


def names(found: list[Symptom]) -> list[str]:
    return [symptom.name for symptom in found]


def only(found: list[Symptom]) -> Symptom:
    (symptom,) = found
    return symptom


# Rollouts


def test_a_healthy_run_has_no_symptom():
    """Numbers of the quickstart; its first iteration has a KL of 0 without spread and a critic below 0."""
    assert examine_rollout(HEALTHY_ROLLOUT) == []
    first = HEALTHY_ROLLOUT._replace(
        iteration=0, policy_learns=False, kl_mean=0.0, kl_standard_error=0.0, entropy=0.8, explained_variance=-0.3
    )
    assert examine_rollout(first) == []
    assert examine_update(HEALTHY_UPDATE) == []
    warming_up = HEALTHY_UPDATE._replace(first_ratio_deviation=None, policy_grad_norm=None)
    assert examine_update(warming_up) == []


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"kl_mean": -0.11, "kl_standard_error": 0.02}, "negative_kl"),
        ({"kl_mean": -0.81, "kl_standard_error": 0.2}, "negative_kl"),
        ({"explained_variance": -0.01, "iteration": 10}, "explained_variance"),
        ({"explained_variance": -1.01, "iteration": 2}, "explained_variance"),
        ({"entropy": 0.079}, "entropy_collapse"),
        ({"truncated_fraction": 0.51}, "truncated_answers"),
        ({"scores_std": 0.0}, "equal_scores"),
        ({"scores_std": 5e-7}, "equal_scores"),
    ],
)
def test_a_warning_of_a_rollout(changes: dict[str, float], name: str):
    symptom = only(examine_rollout(HEALTHY_ROLLOUT._replace(**changes)))
    assert (symptom.name, symptom.severity) == (name, Severity.WARNING)


@pytest.mark.parametrize(
    "changes",
    [
        {"kl_mean": -0.09, "kl_standard_error": 0.0},
        {"kl_mean": -0.79, "kl_standard_error": 0.2},
        {"explained_variance": -0.01, "iteration": 9},
        {"explained_variance": -5.0, "iteration": 9, "policy_learns": False},
        {"explained_variance": math.nan},
        {"entropy": 0.081},
        {"entropy": 0.0, "first_entropy": 0.0},
        {"truncated_fraction": 0.5},
        {"scores_std": 1e-5},
    ],
)
def test_this_side_of_a_threshold_nothing_is_said(changes: dict[str, float]):
    assert examine_rollout(HEALTHY_ROLLOUT._replace(**changes)) == []


@pytest.mark.parametrize(
    ("changes", "name", "cause"),
    [
        ({"scores_finite": False, "scores_std": math.nan}, "non_finite_scores", "scores are NaN or infinite"),
        ({"kl_mean": math.inf, "kl_standard_error": math.nan}, "non_finite_logprobs", "KL inf: a log-probability"),
        ({"kl_mean": math.nan, "entropy": math.nan}, "non_finite_logprobs", "KL nan and entropy nan: "),
    ],
)
def test_what_is_no_number_in_a_rollout_is_fatal(changes: dict[str, float], name: str, cause: str):
    symptom = only(examine_rollout(HEALTHY_ROLLOUT._replace(**changes)))
    assert (symptom.name, symptom.severity) == (name, Severity.FATAL)
    assert cause in symptom.cause


def test_every_symptom_of_a_rollout_is_found():
    ill = HEALTHY_ROLLOUT._replace(
        kl_mean=-2.0, explained_variance=-3.0, entropy=0.01, truncated_fraction=1.0, scores_std=0.0
    )
    expected = ["negative_kl", "explained_variance", "entropy_collapse", "truncated_answers", "equal_scores"]
    assert names(examine_rollout(ill)) == expected


# Updates


@pytest.mark.parametrize(
    ("deviation", "fp32", "severity"),
    [
        (0.9e-4, True, None),
        (1.1e-4, True, Severity.WARNING),
        (0.99e-2, True, Severity.WARNING),
        (1.01e-2, True, Severity.FATAL),
        (0.19, False, None),
        (0.21, False, Severity.WARNING),
        (30.0, False, Severity.WARNING),
    ],
)
def test_the_first_ratio(deviation: float, fp32: bool, severity: Severity | None):
    found = examine_update(HEALTHY_UPDATE._replace(first_ratio_deviation=deviation, fp32=fp32))
    assert [(s.name, s.severity) for s in found] == ([] if severity is None else [("first_ratio", severity)])


def test_a_large_update():
    assert examine_update(HEALTHY_UPDATE._replace(approx_kl=0.099)) == []
    assert only(examine_update(HEALTHY_UPDATE._replace(approx_kl=0.101))).name == "large_update"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("field", "named"),
    [
        ("policy_loss", "policy loss"),
        ("value_loss", "value loss"),
        ("policy_grad_norm", "policy gradient norm"),
        ("critic_grad_norm", "critic gradient norm"),
        ("approx_kl", "approximate KL"),
        ("first_ratio_deviation", "first ratio"),
    ],
)
def test_what_is_no_number_in_an_update_is_fatal_and_named(field: str, named: str, value: float):
    symptom = examine_update(HEALTHY_UPDATE._replace(**{field: value}))[0]
    assert (symptom.name, symptom.severity) == ("non_finite_update", Severity.FATAL)
    assert symptom.cause.startswith(f"{named} {value}: ")


# Tokens and places


def test_pad_and_eos():
    assert examine_tokens(pad_id=PAD, eos_id=EOS) == []
    symptom = only(examine_tokens(pad_id=EOS, eos_id=EOS))
    assert (symptom.name, symptom.severity) == ("pad_is_eos", Severity.FATAL)
    assert "model.pad_token" in symptom.remedy


RESPONSES = Responses(
    torch.tensor([[5, 6, EOS, PAD], [5, 6, 7, 8], [EOS, PAD, PAD, PAD]]),
    torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]]).bool(),
)
ENDED = torch.tensor([True, False, True])
SCORES = torch.tensor([2.0, -300.0, 0.0])


def kl_rewards() -> torch.Tensor:
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def shaped() -> torch.Tensor:
    return shape_rewards(SCORES, -kl_rewards(), torch.zeros(3, 4), RESPONSES.mask_BR, kl_coef=1.0)


def examine(
    rewards_BR: torch.Tensor, *, responses: Responses = RESPONSES, ended_B: torch.Tensor = ENDED
) -> list[Symptom]:
    return examine_placement(rewards_BR, kl_rewards(), SCORES, responses, ended_B, eos_id=EOS)


def test_what_shape_rewards_gives_is_well_placed():
    assert examine(shaped()) == []


@pytest.mark.parametrize("junk", [math.nan, math.inf, 1e30])
def test_padding_of_the_kl_part_is_not_looked_at(junk: float):
    kl_part = torch.where(RESPONSES.mask_BR, kl_rewards(), junk)
    assert examine_placement(shaped(), kl_part, SCORES, RESPONSES, ENDED, eos_id=EOS) == []


def test_rounding_is_no_symptom():
    """A score and a KL part of any size, and a KL part that was computed twice."""
    generator = torch.Generator().manual_seed(1)
    kl_part, scores = torch.randn(500, 4, generator=generator), 100 * torch.randn(500, generator=generator)
    responses = Responses(torch.full((500, 4), 5), torch.ones(500, 4, dtype=torch.bool))
    cut_off = torch.zeros(500, dtype=torch.bool)
    rewards = shape_rewards(scores, -kl_part, torch.zeros(500, 4), responses.mask_BR, kl_coef=1.0)
    assert not torch.equal(rewards[:, 3] - kl_part[:, 3], scores)
    assert examine_placement(rewards, kl_part, scores, responses, cut_off, eos_id=EOS) == []
    small = torch.full((500, 4), 1e-3)
    assert examine_placement(small, small + 5e-5, 0 * scores, responses, cut_off, eos_id=EOS) == []


@pytest.mark.parametrize(("row", "taken", "given"), [(0, 2, 3), (0, 2, 1), (1, 3, 0)])
def test_a_score_on_another_token(row: int, taken: int, given: int):
    """Behind the EOS as in TRL, before it, and on the first token."""
    rewards = shaped()
    rewards[row, taken] -= SCORES[row]
    rewards[row, given] += SCORES[row]
    symptom = only(examine(rewards))
    assert (symptom.name, symptom.severity) == ("score_placement", Severity.FATAL)
    assert "in 1 of 3 answers" in symptom.cause


def test_a_missing_a_double_and_a_broken_score():
    for factor in (0.0, 2.0, math.nan):
        rewards = shaped()
        rewards[0, 2] += (factor - 1) * 2.0
        assert names(examine(rewards)) == ["score_placement"]


def test_ends_that_are_none():
    """The prompt's EOS was counted; an EOS was overlooked; the answer goes on behind its EOS."""
    assert names(examine(shaped(), ended_B=torch.tensor([True, True, True]))) == ["answer_end"]
    assert names(examine(shaped(), ended_B=torch.tensor([False, False, True]))) == ["answer_end"]
    ids = RESPONSES.ids_BR.clone()
    ids[1, 1] = EOS
    symptom = only(examine(shaped(), responses=RESPONSES._replace(ids_BR=ids)))
    assert (symptom.name, symptom.severity) == ("answer_end", Severity.FATAL)
    assert symptom.cause.startswith("1 of 3 answers")


def test_an_empty_batch_is_well_placed():
    empty = torch.zeros(0, 4)
    responses = Responses(empty.long(), empty.bool())
    assert examine_placement(empty, empty, empty[:, 0], responses, empty[:, 0].bool(), eos_id=EOS) == []


# What is told


def test_a_symptom_is_one_line_with_cause_and_remedy():
    symptom = Symptom("large_update", Severity.WARNING, "0.2 nats", "lower ppo.learning_rate")
    assert str(symptom) == "warning (large_update): 0.2 nats; lower ppo.learning_rate"
    ill = HEALTHY_ROLLOUT._replace(kl_mean=-2.0, explained_variance=-3.0, entropy=0.01, scores_std=0.0)
    for found in (*examine_rollout(ill), *examine_update(HEALTHY_UPDATE._replace(approx_kl=math.nan))):
        assert "\n" not in str(found)
        assert len(str(found)) > 80


def test_a_warning_is_told_once_and_counted_and_what_is_fatal_always():
    warning = Symptom("w", Severity.WARNING, "c", "r")
    other = Symptom("v", Severity.WARNING, "c", "r")
    fatal = Symptom("f", Severity.FATAL, "c", "r")
    first = tell({}, [warning, fatal])
    assert first == ([warning, fatal], {"w": 1, "f": 1})
    second = tell(first.counts, [warning, other, fatal])
    assert second == ([other, fatal], {"w": 2, "v": 1, "f": 2})
    assert tell(second.counts, []) == ([], second.counts)
    assert tell({}, [warning, warning]) == ([warning], {"w": 2})
    assert first.counts == json.loads(json.dumps(first.counts)) == {"w": 1, "f": 1}
