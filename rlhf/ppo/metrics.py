"""The numbers of PPO under the names that TRL gave them. Letters: B batch, R response tokens."""

import math

import numpy as np
import numpy.typing as npt
import torch

from rlhf.config import PPOConfig
from rlhf.ppo.doctor import RolloutSigns
from rlhf.ppo.rollout import Rollout
from rlhf.ppo.state import HistoryRow
from rlhf.ppo.targets import Targets
from rlhf.ppo.update import UpdateStatistics


def rollout_metrics(rollout: Rollout, targets: Targets, *, kl_coef: float) -> dict[str, float]:
    """Return the numbers of a rollout; KL in nats per sequence, entropy in nats per token."""
    mask_BR = rollout.responses.mask_BR
    kl_B = kl_of_answers(rollout)
    counted = targets.returns_BR[mask_BR]
    unexplained = (counted - rollout.values_BR[mask_BR]).var()
    return {
        "objective/kl": float(kl_B.mean()),
        "objective/kl_coef": kl_coef,
        "objective/entropy": float(rollout.entropy_BR[mask_BR].mean()),
        "objective/non_score_reward": float(-kl_coef * kl_B.mean()),
        "objective/scores": float(rollout.scores_B.mean()),
        "objective/scores_std": float(rollout.scores_B.std()),
        "objective/rlhf_reward": float(targets.scores_B.mean() - kl_coef * kl_B.mean()),
        "val/explained_variance": float(1 - unexplained / counted.var().clamp(min=1e-8)),
        "val/num_eos_tokens": float(rollout.ended_B.sum()),
        "response/mean_tokens": float(mask_BR.sum(dim=1).float().mean()),
        "response/ended_fraction": float(rollout.ended_B.float().mean()),
        "response/control_fraction": float(rollout.control_B.float().mean()),
    }


def histograms(rollout: Rollout, targets: Targets) -> dict[str, npt.NDArray[np.floating]]:
    """Return the values behind the means: scores, advantages per token, and answer lengths in tokens."""
    mask_BR = rollout.responses.mask_BR
    values = {
        "objective/scores_histogram": rollout.scores_B,
        "policy/advantages_histogram": targets.advantages_BR[mask_BR],
        "response/tokens_histogram": mask_BR.sum(dim=1).float(),
    }
    return {name: found.detach().float().cpu().numpy() for name, found in values.items()}


def kl_of_answers(rollout: Rollout) -> torch.Tensor:
    """Return the k1 estimate summed over each answer, in nats, shape (B,)."""
    kl_BR = rollout.logprobs_BR - rollout.ref_logprobs_BR
    return torch.where(rollout.responses.mask_BR, kl_BR, 0.0).sum(dim=1)


def rollout_signs(
    rollout: Rollout, metrics: dict[str, float], *, iteration: int, policy_learns: bool, first_entropy: float
) -> RolloutSigns:
    """Return what the doctor looks at."""
    kl_B = kl_of_answers(rollout)
    return RolloutSigns(
        iteration=iteration,
        policy_learns=policy_learns,
        kl_mean=metrics["objective/kl"],
        kl_standard_error=float(kl_B.std()) / len(kl_B) ** 0.5,
        entropy=metrics["objective/entropy"],
        first_entropy=first_entropy,
        truncated_fraction=1 - metrics["response/ended_fraction"],
        scores_finite=bool(rollout.scores_B.isfinite().all()),
        scores_std=metrics["objective/scores_std"],
        explained_variance=metrics["val/explained_variance"],
    )


def update_metrics(updated: UpdateStatistics, config: PPOConfig, *, iteration: int, factor: float) -> dict[str, float]:
    """Return the numbers of an iteration's updates; `factor` is that of the learning rates."""
    return {
        "policy/approxkl_avg": updated.approx_kl,
        "policy/clipfrac_avg": updated.clip_fraction,
        "policy/entropy_avg": updated.entropy,
        "policy/grad_norm": updated.policy_grad_norm,
        "loss/policy_avg": updated.policy_loss,
        "loss/value_avg": updated.value_loss,
        "val/clipfrac_avg": updated.value_clip_fraction,
        "val/grad_norm": updated.critic_grad_norm,
        "val/ratio": updated.ratio,
        "val/first_ratio_deviation": updated.first_ratio_deviation,
        "lr": config.learning_rate * factor,
        "episode": float((iteration + 1) * config.batch_size),
    }


def history_row(iteration: int, metrics: dict[str, float]) -> HistoryRow:
    """Return what the report plots of an iteration."""
    return {
        "iteration": iteration + 1,
        "kl": metrics["objective/kl"],
        "reward": metrics["objective/scores"],
        "gold": metrics.get("objective/gold"),
        "length": metrics["response/mean_tokens"],
        "entropy": metrics["objective/entropy"],
    }


def finite(metrics: dict[str, float]) -> dict[str, float]:
    """Return the numbers that JSON can hold."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}
