"""The updates of one iteration: minibatches, micro-batches, optimiser steps. Letters: B batch, R response tokens."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_

from rlhf.config import PPOConfig
from rlhf.ppo.doctor import UpdateSigns
from rlhf.ppo.loss import PolicyLoss, ValueLoss, policy_loss, value_loss
from rlhf.ppo.models import PPOModels
from rlhf.ppo.rollout import Rollout
from rlhf.ppo.sharding import Division
from rlhf.ppo.targets import Targets
from sft.core.distributed import gather_json, whole
from sft.core.likelihood import TokenStatistics


class Optimisers(NamedTuple):
    """One for the policy, one for the critic."""

    policy: torch.optim.AdamW
    critic: torch.optim.AdamW

    def set_learning_rates(self, config: PPOConfig, factor: float) -> None:
        """Set both learning rates to their configured value times a factor."""
        for optimiser, rate in ((self.policy, config.learning_rate), (self.critic, config.critic_learning_rate)):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor


def make_optimisers(models: PPOModels, config: PPOConfig) -> Optimisers:
    """Return Adam for policy and critic, with the epsilon that early PPO steps are sensitive to."""

    def adam(parameters: dict[str, torch.nn.Parameter], learning_rate: float) -> torch.optim.AdamW:
        return torch.optim.AdamW(
            list(parameters.values()), lr=learning_rate, eps=config.adam_epsilon, weight_decay=0.0, fused=True
        )

    return Optimisers(
        adam(models.policy_parameters(), config.learning_rate),
        adam(models.critic_parameters(), config.critic_learning_rate),
    )


@torch.no_grad()
def all_finite(models: PPOModels) -> bool:
    """Tell whether every trained weight is a number."""
    trained = (models.policy_parameters(), models.critic_parameters())
    return all(bool(weight.isfinite().all()) for parameters in trained for weight in parameters.values())


class UpdateStatistics(NamedTuple):
    """Means over the minibatches of one iteration; the first ratio is that before any update."""

    policy_loss: float
    value_loss: float
    approx_kl: float
    clip_fraction: float
    value_clip_fraction: float
    ratio: float
    entropy: float
    policy_grad_norm: float
    critic_grad_norm: float
    first_ratio_deviation: float


def minibatches(config: PPOConfig, *, seed: int, iteration: int) -> list[torch.Tensor]:
    """Return the row indices of every minibatch of an iteration, each epoch in its own order."""
    found = []
    for epoch in range(config.num_ppo_epochs):
        order = np.random.default_rng((seed, iteration, epoch)).permutation(config.batch_size)
        found += [torch.from_numpy(part) for part in np.split(order, config.num_mini_batches)]
    return found


class _Sums(NamedTuple):
    """What the micro-batches of a minibatch add up to; all but the deviation, which is their largest."""

    numbers: np.ndarray
    """In the order of UpdateStatistics up to `entropy`."""
    deviation: float


def update(
    models: PPOModels,
    optimisers: Optimisers,
    rollout: Rollout,
    targets: Targets,
    config: PPOConfig,
    *,
    seed: int,
    iteration: int,
    examine: Callable[[UpdateSigns, torch.Tensor], None],
    division: Division,
) -> UpdateStatistics:
    """Make all updates of one iteration; micro-batches change memory, not the gradient.

    Args:
        models: what is trained.
        optimisers: of policy and critic, learning rates set.
        rollout: all answers of the iteration.
        targets: of the same.
        config: see PPOConfig.
        seed: of the minibatches.
        iteration: 0, 1, ...; in the first `critic_warmup_iterations` the policy stays as it is.
        examine: sees every minibatch (signs and row numbers) before its step, and raises to stop.
        division: this process's part of every minibatch; all processes get the same gradient and return the same.
    """
    train_policy = iteration >= config.critic_warmup_iterations
    seen = []
    first_deviation = 0.0
    for number, rows in enumerate(minibatches(config, seed=seed, iteration=iteration)):
        on_device = rows.to(models.device)
        sums = _accumulate(models, rollout, targets, on_device, config, division, train_policy=train_policy)
        for optimiser, active in ((optimisers.policy, train_policy), (optimisers.critic, True)):
            if active:
                division.sum_gradients(optimiser.param_groups[0]["params"])
        norms = _gradient_norms(optimisers, config, train_policy=train_policy)
        if number == 0:
            first_deviation = sums.deviation
        examine(_signs(models, sums, norms, first=number == 0, train_policy=train_policy), rows)
        for optimiser, active in ((optimisers.policy, train_policy), (optimisers.critic, True)):
            if active:
                optimiser.step()
            optimiser.zero_grad(set_to_none=False)  # new ones between activations would leave gaps in the heap
        seen.append([*sums.numbers, *norms])
    for optimiser in (optimisers.policy, optimisers.critic):
        optimiser.zero_grad(set_to_none=True)
    means = dict(zip(UpdateStatistics._fields, np.array(seen).mean(axis=0).tolist(), strict=False))
    return UpdateStatistics(**means, first_ratio_deviation=first_deviation)


def _accumulate(
    models: PPOModels,
    rollout: Rollout,
    targets: Targets,
    rows: torch.Tensor,
    config: PPOConfig,
    division: Division,
    *,
    train_policy: bool,
) -> _Sums:
    """Add the gradient of this process's part of a minibatch; return the sums of the whole one."""
    totals, deviation = np.zeros(7), 0.0
    for some, num_tokens in division.micro_batches(rollout, rows, config.micro_batch_tokens):
        part = rollout.rows(some)
        aims = Targets(*(x[some] for x in targets))
        policy, value, entropy = _backward(models, part, aims, config, num_tokens, train_policy=train_policy)
        totals += [
            x.item()
            for x in (
                policy.loss,
                value.loss,
                policy.approx_kl,
                policy.clip_fraction,
                value.clip_fraction,
                policy.ratio,
                entropy,
            )
        ]
        deviation = max(deviation, float(policy.max_ratio_deviation))
    division.let_go()
    every = gather_json(division.world, [totals.tolist(), deviation])
    return _Sums(np.sum([numbers for numbers, _ in every], axis=0), max(largest for _, largest in every))


def _backward(
    models: PPOModels,
    part: Rollout,
    aims: Targets,
    config: PPOConfig,
    num_tokens: int | torch.Tensor,
    *,
    train_policy: bool,
) -> tuple[PolicyLoss, ValueLoss, torch.Tensor]:
    """Add the gradient of one micro-batch: policy and critic one after the other, or in one pass where they share."""
    answers = part.prompts, part.responses
    if models.one_pass:
        with models.computing():
            new, values_BR = models.policy_and_values(*answers, temperature=config.temperature)
        policy, entropy = _policy_loss(new, part, aims, config, num_tokens)
        value = _value_loss(values_BR, part, aims, config, num_tokens)
        (policy.loss - config.entropy_coef * entropy + config.vf_coef * value.loss).backward()
        return policy, value, entropy
    with models.computing(), torch.set_grad_enabled(train_policy):
        new = models.policy_statistics(*answers, temperature=config.temperature)
    policy, entropy = _policy_loss(new, part, aims, config, num_tokens)
    if train_policy:
        (policy.loss - config.entropy_coef * entropy).backward()
    with models.computing():
        values_BR = models.values(*answers)
    value = _value_loss(values_BR, part, aims, config, num_tokens)
    value.loss.backward()
    return policy, value, entropy


def _policy_loss(
    new: TokenStatistics, part: Rollout, aims: Targets, config: PPOConfig, num_tokens: int | torch.Tensor
) -> tuple[PolicyLoss, torch.Tensor]:
    mask_BR = part.responses.mask_BR
    loss = policy_loss(
        new.logprobs_BR,
        part.logprobs_BR,
        aims.advantages_BR,
        mask_BR,
        clip_low=config.cliprange,
        clip_high=config.cliprange if config.cliprange_high is None else config.cliprange_high,
        dual_clip=config.dual_clip,
        num_tokens=num_tokens,
    )
    return loss, torch.where(mask_BR, new.entropy_BR, 0.0).sum() / num_tokens


def _value_loss(
    values_BR: torch.Tensor, part: Rollout, aims: Targets, config: PPOConfig, num_tokens: int | torch.Tensor
) -> ValueLoss:
    return value_loss(
        values_BR,
        part.values_BR,
        aims.returns_BR,
        part.responses.mask_BR,
        clip_range=config.cliprange_value,
        num_tokens=num_tokens,
    )


def _gradient_norms(optimisers: Optimisers, config: PPOConfig, *, train_policy: bool) -> tuple[float, float]:
    """Clip both gradients and return their norms before it; 0 for a policy that waits."""
    norms = []
    for optimiser, active in ((optimisers.policy, train_policy), (optimisers.critic, True)):
        parameters = optimiser.param_groups[0]["params"]
        norms.append(float(whole(clip_grad_norm_(parameters, config.max_grad_norm))) if active else 0.0)
    return norms[0], norms[1]


def _signs(
    models: PPOModels, sums: _Sums, norms: tuple[float, float], *, first: bool, train_policy: bool
) -> UpdateSigns:
    return UpdateSigns(
        first_ratio_deviation=sums.deviation if first else None,
        approx_kl=float(sums.numbers[2]),
        policy_loss=float(sums.numbers[0]),
        value_loss=float(sums.numbers[1]),
        policy_grad_norm=norms[0] if train_policy else None,
        critic_grad_norm=norms[1],
        fp32=not models.mixed_precision,
    )
