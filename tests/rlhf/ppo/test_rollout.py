from collections import Counter

import pytest
import torch

from rlhf.ppo.models import PPOModels, load_models, state_values
from rlhf.ppo.rollout import Rollout, RolloutSettings, prompt_indices, roll_out
from sft.config import Dtype
from sft.core.likelihood import token_statistics
from sft.core.text import encode_prompt

SETTINGS = RolloutSettings(response_length=10, temperature=0.8, micro_batch_size=4, seed=0)
OFFSET, TEMPERATURE = 0.3, 1.7


@pytest.fixture(scope="module")
def models(sft_folder, reward_folder) -> PPOModels:
    return load_models(sft_folder, reward_folder, device=torch.device("cpu"), dtype=Dtype.FLOAT32, max_prompt_tokens=32)


@pytest.fixture(scope="module")
def prompt_ids(tokenizer, requests) -> list[list[int]]:
    return [encode_prompt(tokenizer, prompt)[-20 + i :] for i, prompt in enumerate(requests[:10])]


@pytest.fixture(scope="module")
def rollout(models, prompt_ids) -> Rollout:
    return roll_out(models, prompt_ids, SETTINGS, iteration=0)


# Which prompts


@pytest.mark.parametrize(("batch_size", "count"), [(4, 12), (5, 12), (12, 12), (30, 12), (7, 1), (1, 5)])
def test_every_pass_visits_every_prompt_once(batch_size: int, count: int):
    passes = 5
    iterations = -(-passes * count // batch_size)
    parts = [prompt_indices(i, batch_size=batch_size, count=count, seed=0) for i in range(iterations)]
    assert all(len(part) == batch_size for part in parts)
    visited = [index for part in parts for index in part][: passes * count]
    for start in range(0, len(visited), count):
        assert sorted(visited[start : start + count]) == list(range(count))


def test_passes_and_seeds_have_their_own_order():
    first, second = (prompt_indices(i, batch_size=50, count=50, seed=0) for i in range(2))
    assert first != second != list(range(50))
    assert prompt_indices(0, batch_size=50, count=50, seed=1) != first
    assert prompt_indices(0, batch_size=50, count=50, seed=0) == first


# Models


def test_critic_starts_as_the_reward_model_and_the_rest_is_frozen(models):
    for name, weight in models.reward.model.state_dict().items():
        assert torch.equal(weight, models.critic.state_dict()[name])
    assert not any(weight.requires_grad for weight in models.reward.model.parameters())
    assert not any(weight.requires_grad for weight in models.reference.parameters())
    assert all(weight.requires_grad for weight in models.policy.parameters())
    assert all(weight.requires_grad for weight in models.critic.parameters())
    assert not any(m.training for m in (models.policy, models.reference, models.critic, models.reward.model))


def test_values_are_those_of_the_state_before_each_token(models, rollout, prompt_ids):
    """In units of the calibrated reward; the state before the first token is the prompt alone."""
    values = state_values(models.critic, models.reward.calibration, rollout.prompts, rollout.responses)
    with torch.no_grad():
        for i, prompt in enumerate(prompt_ids):
            response = rollout.responses.ids_BR[i, rollout.responses.mask_BR[i]].tolist()
            expected = [
                (float(models.critic(input_ids=torch.tensor([prompt + response[:t]])).logits) - OFFSET) / TEMPERATURE
                for t in range(len(response))
            ]
            assert values[i, : len(response)].tolist() == pytest.approx(expected, abs=1e-5)
    assert torch.allclose(values, rollout.values_BR, atol=1e-5)


# The rollout


def test_all_is_computed_from_the_responses_that_were_sampled(models, rollout):
    mask = rollout.responses.mask_BR
    own = token_statistics(models.policy, rollout.prompts, rollout.responses, temperature=0.8)
    assert torch.allclose(rollout.logprobs_BR[mask], own.logprobs_BR[mask], atol=1e-5)
    assert torch.allclose(rollout.entropy_BR[mask], own.entropy_BR[mask], atol=1e-5)
    assert torch.allclose(rollout.ref_logprobs_BR[mask], own.logprobs_BR[mask], atol=1e-5)
    assert not rollout.logprobs_BR.requires_grad


def test_a_cut_off_response_is_scored_as_if_it_had_ended(models, rollout, prompt_ids, tokenizer):
    """The reward model never read a text without its EOS, so its score of one would mean nothing."""
    rows = []
    for i, prompt in enumerate(prompt_ids):
        response = rollout.responses.ids_BR[i, rollout.responses.mask_BR[i]].tolist()
        rows.append(prompt + response + ([] if rollout.ended_B[i] else [tokenizer.eos_token_id]))
    assert 0 < int(rollout.ended_B.sum()) < len(rows)
    with torch.no_grad():
        raw = [float(models.reward.model(input_ids=torch.tensor([row])).logits) for row in rows]
    assert rollout.scores_B.tolist() == pytest.approx([(score - OFFSET) / TEMPERATURE for score in raw], abs=1e-4)


def test_rows_do_not_depend_on_the_micro_batch(models, rollout, prompt_ids):
    other = roll_out(models, prompt_ids, SETTINGS._replace(micro_batch_size=10), iteration=0)
    assert torch.equal(other.responses.ids_BR, rollout.responses.ids_BR)
    mask = rollout.responses.mask_BR
    assert torch.allclose(other.logprobs_BR[mask], rollout.logprobs_BR[mask], atol=1e-5)
    assert torch.allclose(other.scores_B, rollout.scores_B, atol=1e-5)


def test_iterations_and_seeds_have_their_own_noise(models, rollout, prompt_ids):
    ids = rollout.responses.ids_BR
    for settings, iteration in ((SETTINGS, 1), (SETTINGS._replace(seed=1), 0)):
        other = roll_out(models, prompt_ids, settings, iteration=iteration).responses.ids_BR
        assert other.shape != ids.shape or not torch.equal(other, ids)
    assert torch.equal(roll_out(models, prompt_ids, SETTINGS, iteration=0).responses.ids_BR, ids)


def test_ended_is_seen_on_the_response_alone(models, prompt_ids, tokenizer):
    """A prompt may hold an EOS of its own."""
    eos = tokenizer.eos_token_id
    rollout = roll_out(models, [[eos, *ids[:3], eos, *ids[3:]] for ids in prompt_ids], SETTINGS, iteration=0)
    expected = [eos in ids[mask] for ids, mask in zip(*rollout.responses, strict=True)]
    assert rollout.ended_B.tolist() == expected
    assert Counter(expected)[False] >= 2 <= Counter(expected)[True]


def test_rows_by_index(rollout):
    some = rollout.rows(torch.tensor([3, 1]))
    assert torch.equal(some.prompts.ids_BP, rollout.prompts.ids_BP[[3, 1]])
    assert torch.equal(some.responses.mask_BR, rollout.responses.mask_BR[[3, 1]])
    assert torch.equal(some.scores_B, rollout.scores_B[[3, 1]])
    assert torch.equal(some.ended_B, rollout.ended_B[[3, 1]])
    assert torch.equal(some.values_BR, rollout.values_BR[[3, 1]])
