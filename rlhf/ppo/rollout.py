"""One rollout: sample answers, score them, and look at them through policy, reference and critic.

Letters: B batch, P prompt tokens (padded on the left), R response tokens (padded on the right).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from rlhf.ppo.models import PPOModels
from rlhf.ppo.phases import Stopwatch
from rlhf.ppo.rewards import Rewards, Sampled
from sft.core.generation import Prompts, Responses, draw_uniforms, pad_left, read_answers, sample, token_counts
from sft.core.packing import fill_batches
from sft.core.text import Conversation, inner_control_ids


class Rollout(NamedTuple):
    """Everything the updates need, computed once with the policy that sampled."""

    prompts: Prompts
    responses: Responses
    logprobs_BR: torch.Tensor
    ref_logprobs_BR: torch.Tensor
    values_BR: torch.Tensor
    entropy_BR: torch.Tensor
    scores_B: torch.Tensor
    """As the reward sources gave them, before normalisation, clipping and the missing-EOS penalty."""
    ended_B: torch.Tensor
    """True where the response ends with the EOS. Seen on the response alone: a prompt may hold an EOS of its own."""
    control_B: torch.Tensor
    """True where the response holds a control token other than the EOS."""

    def rows(self, indices: torch.Tensor) -> "Rollout":
        """Return the given rows."""
        return Rollout(
            self.prompts.rows(indices),
            self.responses.rows(indices),
            *(x[indices] for x in self[2:]),
        )

    def lengths(self) -> torch.Tensor:
        """Return the tokens of each prompt with its response, shape (B,)."""
        return token_counts(self.prompts, self.responses)


class RolloutSettings(NamedTuple):
    """How answers are sampled and looked at."""

    response_length: int
    temperature: float
    micro_batch_tokens: int
    generation_batch_size: int | None
    seed: int


def prompt_indices(iteration: int, *, batch_size: int, count: int, seed: int) -> list[int]:
    """Return which prompts iteration 0, 1, ... uses: consecutive parts of shuffled passes over all prompts."""
    first = iteration * batch_size
    passes = range(first // count, (first + batch_size - 1) // count + 1)
    order = np.concatenate([np.random.default_rng((seed, number)).permutation(count) for number in passes])
    start = first - passes[0] * count
    return [int(index) for index in order[start : start + batch_size]]


@torch.no_grad()
def sample_responses(
    models: PPOModels,
    prompt_ids: Sequence[Sequence[int]],
    settings: RolloutSettings,
    *,
    stream: str,
    iteration: int,
    rows: Sequence[int],
) -> tuple[Prompts, Responses]:
    """Sample one answer per prompt from the policy; the i-th uses the uniforms of row `rows[i]`."""
    pad_id, eos_id = models.tokenizer.pad_token_id, models.tokenizer.eos_token_id
    prompts = pad_left(prompt_ids, pad_id, models.device)
    uniforms_BR = draw_uniforms(
        seed=settings.seed, stream=stream, iteration=iteration, rows=rows, length=settings.response_length
    )
    size = settings.generation_batch_size or len(rows)
    parts = []
    with models.computing(), models.sampling() as policy:
        for start in range(0, len(rows), size):
            some = slice(start, start + size)
            parts.append(
                sample(
                    policy,
                    prompts.rows(some),
                    uniforms_BR[some],
                    temperature=settings.temperature,
                    eos_id=eos_id,
                    pad_id=pad_id,
                )
            )
    return prompts, stacked(parts, pad_id)


def stacked(parts: Sequence[Responses], pad_id: int) -> Responses:
    """Return batches of responses as one, as wide as the longest response."""
    width = max(part.ids_BR.shape[1] for part in parts)
    wide = [
        (
            torch.nn.functional.pad(ids, (0, width - ids.shape[1]), value=pad_id),
            torch.nn.functional.pad(mask, (0, width - ids.shape[1]), value=False),
        )
        for ids, mask in parts
    ]
    return Responses(*map(torch.cat, zip(*wide, strict=True)))


def roll_out(
    models: PPOModels,
    rewards: Rewards,
    conversations: Sequence[Conversation],
    prompt_ids: Sequence[Sequence[int]],
    settings: RolloutSettings,
    *,
    iteration: int,
    rows: Sequence[int],
    watch: Stopwatch,
) -> Rollout:
    """Sample one answer per prompt and evaluate it.

    Old log-probabilities come from the forward pass that training uses, not from the sampler: the first ratio of an
    iteration is then 1 up to rounding.

    Args:
        models: policy, reference and critic.
        rewards: where scores come from.
        conversations: B prompts.
        prompt_ids: the same as token ids.
        settings: see RolloutSettings.
        iteration: 0, 1, ...; with `rows` it decides the noise.
        rows: numbers of these prompts in the whole iteration's batch.
        watch: takes the times of "generate" and "score".
    """
    with watch("generate"):
        prompts, responses = sample_responses(
            models, prompt_ids, settings, stream="rollout", iteration=iteration, rows=rows
        )
    with watch("score"), torch.no_grad():
        logprobs_BR, ref_logprobs_BR, values_BR, entropy_BR = evaluate(models, prompts, responses, settings)
        texts = [answer.text for answer in read_answers(models.tokenizer, responses)]
        control_B = responses.holds(inner_control_ids(models.tokenizer))
        with models.computing():
            scores_B = rewards.score(Sampled(conversations, texts, prompts, responses, control_B)).scores_B
    ended_B = responses.ended(models.tokenizer.eos_token_id)
    return Rollout(
        prompts, responses, logprobs_BR, ref_logprobs_BR, values_BR, entropy_BR, scores_B, ended_B, control_B
    )


@torch.no_grad()
def evaluate(
    models: PPOModels, prompts: Prompts, responses: Responses, settings: RolloutSettings
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return log-probabilities under policy and reference, values and entropies, each of shape (B, R)."""
    found = [torch.zeros(responses.ids_BR.shape, device=models.device) for _ in range(4)]
    lengths = token_counts(prompts, responses).tolist()
    temperature = settings.temperature
    for some in fill_batches(lengths, settings.micro_batch_tokens):
        some_prompts, some_responses = prompts.rows(some), responses.rows(some)
        with models.computing():
            if models.one_pass:
                own, values_BR = models.policy_and_values(some_prompts, some_responses, temperature=temperature)
            else:
                own = models.policy_statistics(some_prompts, some_responses, temperature=temperature)
                values_BR = models.values(some_prompts, some_responses)
            reference = models.reference_statistics(some_prompts, some_responses, temperature=temperature)
        for whole, part in zip(found, (own.logprobs_BR, reference.logprobs_BR, values_BR, own.entropy_BR), strict=True):
            whole[some] = part.float()
    logprobs_BR, ref_logprobs_BR, values_BR, entropy_BR = found
    return logprobs_BR, ref_logprobs_BR, values_BR, entropy_BR
