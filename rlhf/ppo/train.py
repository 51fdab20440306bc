"""The PPO loop: roll out, score, shape, estimate, update.

Left out on purpose, for one process and small models: adaptive KL, reward ensembles, checkpoints inside the stage.

Letters: B batch, R response tokens.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from rlhf.config import PPOConfig
from rlhf.ppo.advantages import estimate_advantages
from rlhf.ppo.loss import policy_loss, value_loss
from rlhf.ppo.models import PPOModels, load_models, state_values
from rlhf.ppo.rollout import Rollout, RolloutSettings, prompt_indices, roll_out
from rlhf.ppo.shaping import shape_rewards, standardise
from sft.config import RuntimeConfig
from sft.core.errors import DataError
from sft.core.generation import read_answers
from sft.core.likelihood import token_statistics
from sft.core.text import Conversation, TokenLimits, encode_prompt
from sft.core.tracking import Tracker
from sft.model import torch_device
from sft.trainer import quiet_libraries

Gold = Callable[[Sequence[Conversation], Sequence[str]], list[float]]
"""The true utility of answers, where it is known. It is logged and never selects anything."""


@dataclass(frozen=True)
class PPOResult:
    """What PPO leaves behind: policy and critic folders, numbers, and one row of numbers per iteration."""

    checkpoint: Path
    critic: Path
    metrics: dict[str, float]
    steps: int
    iterations: list[dict[str, float | None]]


class Targets(NamedTuple):
    """What the updates of one iteration aim at."""

    advantages_BR: torch.Tensor
    returns_BR: torch.Tensor


class UpdateStatistics(NamedTuple):
    """Means over the minibatches of one iteration; the first ratio is that before any update."""

    policy_loss: float
    value_loss: float
    approx_kl: float
    clip_fraction: float
    value_clip_fraction: float
    ratio: float
    first_ratio_deviation: float


def make_targets(rollout: Rollout, config: PPOConfig) -> Targets:
    """Shape rewards and estimate advantages, standardised over the whole rollout after the returns are taken."""
    mask_BR = rollout.responses.mask_BR
    scores_B = rollout.scores_B - config.missing_eos_penalty * (~rollout.ended_B)
    rewards_BR = shape_rewards(
        scores_B,
        rollout.logprobs_BR,
        rollout.ref_logprobs_BR,
        mask_BR,
        kl_coef=config.kl_coef,
        kl_estimator=config.kl_estimator,
    )
    if config.whiten_rewards:
        rewards_BR = standardise(rewards_BR, mask_BR, shift_mean=False)
    advantages_BR, returns_BR = estimate_advantages(
        rewards_BR, rollout.values_BR, mask_BR, gamma=config.gamma, lam=config.lam
    )
    return Targets(standardise(advantages_BR, mask_BR), returns_BR)


class Optimisers(NamedTuple):
    """One for the policy, one for the critic."""

    policy: torch.optim.Optimizer
    critic: torch.optim.Optimizer


def make_optimisers(models: PPOModels, config: PPOConfig) -> Optimisers:
    """Return Adam for both models, with the epsilon that early PPO steps are sensitive to."""
    return Optimisers(
        torch.optim.AdamW(
            models.policy.parameters(), lr=config.learning_rate, eps=config.adam_epsilon, weight_decay=0.0
        ),
        torch.optim.AdamW(
            models.critic.parameters(), lr=config.critic_learning_rate, eps=config.adam_epsilon, weight_decay=0.0
        ),
    )


def _set_learning_rate(optimiser: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = learning_rate


def minibatches(config: PPOConfig, *, seed: int, iteration: int) -> list[torch.Tensor]:
    """Return the row indices of every minibatch of an iteration, each epoch in its own order."""
    found = []
    for epoch in range(config.num_ppo_epochs):
        order = np.random.default_rng((seed, iteration, epoch)).permutation(config.batch_size)
        found += [torch.from_numpy(part) for part in np.split(order, config.num_mini_batches)]
    return found


def update(
    models: PPOModels,
    optimisers: Optimisers,
    rollout: Rollout,
    targets: Targets,
    config: PPOConfig,
    *,
    seed: int,
    iteration: int,
) -> UpdateStatistics:
    """Make all updates of one iteration; micro-batches change memory, not the gradient."""
    train_policy = iteration >= config.critic_warmup_iterations
    seen = []
    for rows in minibatches(config, seed=seed, iteration=iteration):
        seen.append(_update_on(models, optimisers, rollout, targets, rows, config, train_policy=train_policy))
    policy, value, approx_kl, clipped, value_clipped, ratio, _ = np.array(seen).mean(axis=0).tolist()
    return UpdateStatistics(policy, value, approx_kl, clipped, value_clipped, ratio, seen[0][-1])


def _update_on(
    models: PPOModels,
    optimisers: Optimisers,
    rollout: Rollout,
    targets: Targets,
    rows: torch.Tensor,
    config: PPOConfig,
    *,
    train_policy: bool,
) -> list[float]:
    num_tokens = int(rollout.responses.mask_BR[rows].sum())
    totals = np.zeros(6)
    deviation = 0.0
    for some in rows.split(config.per_device_train_batch_size):
        part = rollout.rows(some)
        mask_BR = part.responses.mask_BR
        with models.computing():
            with torch.set_grad_enabled(train_policy):
                new = token_statistics(models.policy, part.prompts, part.responses, temperature=config.temperature)
            values_BR = state_values(models.critic, models.reward.calibration, part.prompts, part.responses)
        policy = policy_loss(
            new.logprobs_BR,
            part.logprobs_BR,
            targets.advantages_BR[some],
            mask_BR,
            clip_low=config.cliprange,
            clip_high=config.cliprange if config.cliprange_high is None else config.cliprange_high,
            num_tokens=num_tokens,
        )
        value = value_loss(
            values_BR,
            part.values_BR,
            targets.returns_BR[some],
            mask_BR,
            clip_range=config.cliprange_value,
            num_tokens=num_tokens,
        )
        if train_policy:
            policy.loss.backward()
        value.loss.backward()
        seen = (policy.loss, value.loss, policy.approx_kl, policy.clip_fraction, value.clip_fraction, policy.ratio)
        totals += [x.item() for x in seen]
        deviation = max(deviation, float(policy.max_ratio_deviation))
    if not np.isfinite(totals[:2]).all():
        raise DataError(
            f"PPO's losses became {totals[0]} (policy) and {totals[1]} (critic); lower ppo.learning_rate or "
            "ppo.critic_learning_rate, then run the same command again"
        )
    for model, optimiser, active in (
        (models.policy, optimisers.policy, train_policy),
        (models.critic, optimisers.critic, True),
    ):
        if active:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
            optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return [*totals.tolist(), deviation]


def rollout_metrics(rollout: Rollout, targets: Targets, config: PPOConfig) -> dict[str, float]:
    """Return the numbers of a rollout under TRL's names; KL in nats per sequence."""
    mask_BR = rollout.responses.mask_BR
    kl_BR = torch.where(mask_BR, rollout.logprobs_BR - rollout.ref_logprobs_BR, 0.0)
    kl_B = kl_BR.sum(dim=1)
    scores_B = rollout.scores_B - config.missing_eos_penalty * (~rollout.ended_B)
    counted = targets.returns_BR[mask_BR]
    unexplained = (counted - rollout.values_BR[mask_BR]).var()
    return {
        "objective/kl": float(kl_B.mean()),
        "objective/entropy": float(rollout.entropy_BR[mask_BR].mean()),
        "objective/non_score_reward": float(-config.kl_coef * kl_B.mean()),
        "objective/scores": float(rollout.scores_B.mean()),
        "objective/scores_std": float(rollout.scores_B.std()),
        "objective/rlhf_reward": float(scores_B.mean() - config.kl_coef * kl_B.mean()),
        "val/explained_variance": float(1 - unexplained / counted.var().clamp(min=1e-8)),
        "val/num_eos_tokens": float(rollout.ended_B.sum()),
        "response/mean_tokens": float(mask_BR.sum(dim=1).float().mean()),
        "response/ended_fraction": float(rollout.ended_B.float().mean()),
    }


def train_ppo(
    config: PPOConfig,
    *,
    sft: Path,
    reward: Path,
    prompts: Sequence[Conversation],
    limits: TokenLimits,
    runtime: RuntimeConfig,
    seed: int,
    out_dir: Path,
    tracker: Tracker,
    gold: Gold | None = None,
) -> PPOResult:
    """Train a policy against a reward model with a KL penalty to where it started.

    Args:
        config: see PPOConfig.
        sft: folder of the model that the policy starts as and the reference stays.
        reward: folder of the reward model; the critic starts as it.
        prompts: training prompts.
        limits: longest prompt in tokens.
        runtime: device, dtype, threads.
        seed: of sampling, prompt order and minibatches.
        out_dir: empty folder; afterwards holds `policy/` and `critic/`.
        tracker: where the numbers go.
        gold: true utility, logged beside the proxy; selects nothing.

    Raises:
        DataError: no prompts, or losses that are no numbers.
    """
    if not prompts:
        raise DataError("there are no training prompts for PPO; give data.prompts_path or more data")
    quiet_libraries()
    torch.set_num_threads(runtime.threads)
    torch.manual_seed(seed)
    device = torch_device(runtime)
    models = load_models(sft, reward, device=device, dtype=runtime.dtype, max_prompt_tokens=limits.prompt)
    optimisers = make_optimisers(models, config)
    prompt_ids = [encode_prompt(models.tokenizer, prompt, max_tokens=limits.prompt) for prompt in prompts]
    settings = RolloutSettings(config.response_length, config.temperature, config.per_device_train_batch_size, seed)
    history: list[dict[str, float | None]] = []
    first_ratio_deviation = 0.0
    steps = 0
    tracker.start(config.iterations, "iteration")
    for iteration in range(config.iterations):
        chosen = prompt_indices(iteration, batch_size=config.batch_size, count=len(prompts), seed=seed)
        with models.computing():
            rollout = roll_out(models, [prompt_ids[i] for i in chosen], settings, iteration=iteration)
        targets = make_targets(rollout, config)
        metrics = rollout_metrics(rollout, targets, config)
        if gold is not None:
            answers = [answer.text for answer in read_answers(models.tokenizer, rollout.responses)]
            metrics["objective/gold"] = float(np.mean(gold([prompts[i] for i in chosen], answers)))
        history.append(_history_row(iteration, metrics))
        if config.max_kl is not None and metrics["objective/kl"] > config.max_kl:
            tracker.log(iteration + 1, metrics)
            tracker.note(f"stopped at KL {metrics['objective/kl']:.1f} nats > ppo.max_kl={config.max_kl}")
            break
        remaining = 1 - iteration / config.iterations
        _set_learning_rate(optimisers.policy, config.learning_rate * remaining)
        _set_learning_rate(optimisers.critic, config.critic_learning_rate * remaining)
        updated = update(models, optimisers, rollout, targets, config, seed=seed, iteration=iteration)
        first_ratio_deviation = max(first_ratio_deviation, updated.first_ratio_deviation)
        steps += config.num_ppo_epochs * config.num_mini_batches
        tracker.log(iteration + 1, metrics | _update_metrics(updated, config, iteration))
    save_models(models, out_dir)
    final = {key: value for key, value in metrics.items() if math.isfinite(value)}
    final["first_ratio_deviation"] = first_ratio_deviation
    final["iterations"] = len(history)
    return PPOResult(out_dir / "policy", out_dir / "critic", final, steps, history)


def save_models(models: PPOModels, out_dir: Path) -> None:
    """Write policy and critic, each with the tokenizer, the critic with its calibration."""
    for name, model in (("policy", models.policy), ("critic", models.critic)):
        model.save_pretrained(out_dir / name)
        models.tokenizer.save_pretrained(out_dir / name)
    models.reward.calibration.save(out_dir / "critic")


def _history_row(iteration: int, metrics: dict[str, float]) -> dict[str, float | None]:
    return {
        "iteration": iteration + 1,
        "kl": metrics["objective/kl"],
        "reward": metrics["objective/scores"],
        "gold": metrics.get("objective/gold"),
        "length": metrics["response/mean_tokens"],
        "entropy": metrics["objective/entropy"],
    }


def _update_metrics(updated: UpdateStatistics, config: PPOConfig, iteration: int) -> dict[str, float]:
    return {
        "policy/approxkl_avg": updated.approx_kl,
        "policy/clipfrac_avg": updated.clip_fraction,
        "loss/policy_avg": updated.policy_loss,
        "loss/value_avg": updated.value_loss,
        "val/clipfrac_avg": updated.value_clip_fraction,
        "val/ratio": updated.ratio,
        "val/first_ratio_deviation": updated.first_ratio_deviation,
        "lr": config.learning_rate * (1 - iteration / config.iterations),
        "episode": float((iteration + 1) * config.batch_size),
    }
