from collections import Counter

import pytest
import torch

from rlhf.config import PPOConfig
from rlhf.ppo.models import SeparateModels
from rlhf.ppo.phases import Stopwatch
from rlhf.ppo.rewards import Rewards
from rlhf.ppo.rollout import Rollout, RolloutSettings, prompt_indices, roll_out
from sft.config import Dtype
from sft.core.likelihood import token_statistics
from sft.core.text import decode_answer, encode_answer, encode_prompt

SETTINGS = RolloutSettings(
    response_length=10, temperature=0.8, micro_batch_tokens=100, generation_batch_size=None, seed=0
)
CPU = torch.device("cpu")
OFFSET, TEMPERATURE = 0.3, 1.7


@pytest.fixture(scope="module")
def models(sft_folder, reward_folder) -> SeparateModels:
    return SeparateModels.load(sft_folder, reward_folder, device=CPU, dtype=Dtype.FLOAT32)


@pytest.fixture(scope="module")
def rewards(reward_folder, tokenizer) -> Rewards:
    return Rewards.load(
        PPOConfig(), [reward_folder], tokenizer=tokenizer, device=CPU, dtype=Dtype.FLOAT32, max_prompt_tokens=32
    )


@pytest.fixture(scope="module")
def prompt_ids(tokenizer, requests) -> list[list[int]]:
    return [encode_prompt(tokenizer, prompt)[-20 + i :] for i, prompt in enumerate(requests[:10])]


@pytest.fixture(scope="module")
def roll(models, rewards, requests, prompt_ids):
    def rolled(settings: RolloutSettings = SETTINGS, *, iteration: int = 0, rows=range(10)) -> Rollout:
        return roll_out(
            models,
            rewards,
            [requests[i] for i in rows],
            [prompt_ids[i] for i in rows],
            settings,
            iteration=iteration,
            rows=rows,
            watch=Stopwatch(CPU),
        )

    return rolled


@pytest.fixture(scope="module")
def rollout(roll) -> Rollout:
    return roll()


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


def test_critic_starts_as_the_reward_model_and_the_rest_is_frozen(models, rewards):
    for name, weight in rewards.main.model.state_dict().items():
        assert torch.equal(weight, models.critic.state_dict()[name])
    assert not any(weight.requires_grad for weight in rewards.main.model.parameters())
    assert not any(weight.requires_grad for weight in models.reference.parameters())
    assert all(weight.requires_grad for weight in models.policy.parameters())
    assert all(weight.requires_grad for weight in models.critic.parameters())
    assert not any(m.training for m in (models.policy, models.reference, models.critic, rewards.main.model))


def test_values_are_those_of_the_state_before_each_token(models, rollout, prompt_ids):
    """In units of the calibrated reward; the state before the first token is the prompt alone."""
    values = models.values(rollout.prompts, rollout.responses)
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


def test_a_cut_off_response_is_scored_as_if_it_had_ended(rewards, rollout, prompt_ids, tokenizer):
    """The reward model never read a text without its EOS, so its score of one would mean nothing.

    What was sampled is read but where it holds marks of turns, such as "<|user|>"; there its text is.
    """
    rows = []
    for i, prompt in enumerate(prompt_ids):
        response = rollout.responses.ids_BR[i, rollout.responses.mask_BR[i]].tolist()
        if rollout.control_B[i]:
            rows.append(prompt + encode_answer(tokenizer, decode_answer(tokenizer, response)))
        else:
            rows.append(prompt + response + ([] if rollout.ended_B[i] else [tokenizer.eos_token_id]))
    marks = {*tokenizer.get_added_vocab().values()} - {tokenizer.eos_token_id}
    counted = zip(*rollout.responses, strict=True)
    assert rollout.control_B.tolist() == [not marks.isdisjoint(ids[mask].tolist()) for ids, mask in counted]
    assert 0 < int(rollout.control_B.sum()) < len(rows)
    assert 0 < int(rollout.ended_B.sum()) < len(rows)
    with torch.no_grad():
        raw = [float(rewards.main.model(input_ids=torch.tensor([row])).logits) for row in rows]
    assert rollout.scores_B.tolist() == pytest.approx([(score - OFFSET) / TEMPERATURE for score in raw], abs=1e-4)


@pytest.mark.parametrize(
    "changes", [{"micro_batch_tokens": 9999}, {"micro_batch_tokens": 1}, {"generation_batch_size": 3}]
)
def test_rows_do_not_depend_on_batches(roll, rollout, changes):
    other = roll(SETTINGS._replace(**changes))
    assert torch.equal(other.responses.ids_BR, rollout.responses.ids_BR)
    mask = rollout.responses.mask_BR
    assert torch.allclose(other.logprobs_BR[mask], rollout.logprobs_BR[mask], atol=1e-5)
    assert torch.allclose(other.scores_B, rollout.scores_B, atol=1e-5)


def test_rows_of_the_whole_batch_come_out_alike_in_any_part_of_it(roll, rollout):
    """As when several processes share the rows."""
    part = roll(rows=range(1, 10, 3))
    width = part.responses.ids_BR.shape[1]
    assert torch.equal(part.responses.mask_BR, rollout.responses.mask_BR[1:10:3, :width])
    mask = part.responses.mask_BR
    assert torch.equal(part.responses.ids_BR[mask], rollout.responses.ids_BR[1:10:3, :width][mask])
    assert torch.allclose(part.scores_B, rollout.scores_B[1:10:3], atol=1e-5)


def test_nothing_is_kept_per_token_of_the_vocabulary(rollout):
    tensors = [x for part in rollout for x in (part if isinstance(part, tuple) else (part,))]
    assert max(tensor.dim() for tensor in tensors) == 2


def test_iterations_and_seeds_have_their_own_noise(roll, rollout):
    ids = rollout.responses.ids_BR
    for settings, iteration in ((SETTINGS, 1), (SETTINGS._replace(seed=1), 0)):
        other = roll(settings, iteration=iteration).responses.ids_BR
        assert other.shape != ids.shape or not torch.equal(other, ids)
    assert torch.equal(roll().responses.ids_BR, ids)


def test_ended_is_seen_on_the_response_alone(models, rewards, requests, prompt_ids, tokenizer):
    """A prompt may hold an EOS of its own."""
    eos = tokenizer.eos_token_id
    rollout = roll_out(
        models,
        rewards,
        requests[:10],
        [[eos, *ids[:3], eos, *ids[3:]] for ids in prompt_ids],
        SETTINGS,
        iteration=0,
        rows=range(10),
        watch=Stopwatch(CPU),
    )
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
