"""One rollout: sample answers, score them, and look at them through policy, reference and critic.

Letters: B batch, P prompt tokens (padded on the left), R response tokens (padded on the right).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from rlhf.ppo.models import PPOModels, state_values
from sft.core.generation import Prompts, Responses, draw_uniforms, pad_left, sample, with_eos
from sft.core.likelihood import token_statistics


class Rollout(NamedTuple):
    """Everything the updates need, computed once with the policy that sampled."""

    prompts: Prompts
    responses: Responses
    logprobs_BR: torch.Tensor
    ref_logprobs_BR: torch.Tensor
    values_BR: torch.Tensor
    entropy_BR: torch.Tensor
    scores_B: torch.Tensor
    """Calibrated reward, before the missing-EOS penalty. A response that was cut off is scored with an EOS behind it:
    the reward model never read a score anywhere else, and a policy would find where such a score is high."""
    ended_B: torch.Tensor
    """True where the response ends with the EOS. Seen on the response alone: a prompt may hold an EOS of its own."""

    def rows(self, indices: torch.Tensor) -> "Rollout":
        """Return the given rows."""
        return Rollout(
            Prompts(*(x[indices] for x in self.prompts)),
            Responses(*(x[indices] for x in self.responses)),
            *(x[indices] for x in self[2:]),
        )


def prompt_indices(iteration: int, *, batch_size: int, count: int, seed: int) -> list[int]:
    """Return which prompts iteration 0, 1, ... uses: consecutive parts of shuffled passes over all prompts."""
    first = iteration * batch_size
    passes = range(first // count, (first + batch_size - 1) // count + 1)
    order = np.concatenate([np.random.default_rng((seed, number)).permutation(count) for number in passes])
    start = first - passes[0] * count
    return [int(index) for index in order[start : start + batch_size]]


class RolloutSettings(NamedTuple):
    """How answers are sampled and looked at."""

    response_length: int
    temperature: float
    micro_batch_size: int
    seed: int


@torch.no_grad()
def roll_out(
    models: PPOModels, prompt_ids: Sequence[Sequence[int]], settings: RolloutSettings, *, iteration: int
) -> Rollout:
    """Sample one answer per prompt and evaluate it.

    Old log-probabilities come from the forward pass that training uses, in the same micro-batches, not from the
    sampler: the first ratio of an iteration is then 1 up to rounding.
    """
    pad_id, eos_id = models.tokenizer.pad_token_id, models.tokenizer.eos_token_id
    prompts = pad_left(prompt_ids, pad_id, models.policy.device)
    uniforms_BR = draw_uniforms(
        seed=settings.seed,
        stream="rollout",
        iteration=iteration,
        rows=range(len(prompt_ids)),
        length=settings.response_length,
    )
    responses = sample(
        models.policy, prompts, uniforms_BR, temperature=settings.temperature, eos_id=eos_id, pad_id=pad_id
    )
    parts = []
    for start in range(0, len(prompt_ids), settings.micro_batch_size):
        rows = slice(start, start + settings.micro_batch_size)
        some_prompts = Prompts(*(x[rows] for x in prompts))
        some_responses = Responses(*(x[rows] for x in responses))
        own = token_statistics(models.policy, some_prompts, some_responses, temperature=settings.temperature)
        reference = token_statistics(models.reference, some_prompts, some_responses, temperature=settings.temperature)
        values_BR = state_values(models.critic, models.reward.calibration, some_prompts, some_responses)
        scores_B = models.reward.score_tokens(some_prompts, with_eos(some_responses, eos_id, pad_id))
        parts.append((own.logprobs_BR, reference.logprobs_BR, values_BR, own.entropy_BR, scores_B))
    logprobs_BR, ref_logprobs_BR, values_BR, entropy_BR, scores_B = map(torch.cat, zip(*parts, strict=True))
    ended_B = ((responses.ids_BR == eos_id) & responses.mask_BR).any(dim=1)
    return Rollout(prompts, responses, logprobs_BR, ref_logprobs_BR, values_BR, entropy_BR, scores_B, ended_B)
