"""What the updates of one iteration aim at. Letters: B batch, R response tokens."""

from typing import NamedTuple

import torch

from rlhf.config import PPOConfig
from rlhf.ppo.advantages import estimate_advantages
from rlhf.ppo.rollout import Rollout
from rlhf.ppo.scores import RunningMoments, adjust
from rlhf.ppo.shaping import shape_rewards, standardise


class Targets(NamedTuple):
    """Advantages and returns, and the rewards that they come from."""

    scores_B: torch.Tensor
    """As they enter the reward: normalised, clipped, less the missing-EOS penalty."""
    rewards_BR: torch.Tensor
    """Before any whitening."""
    advantages_BR: torch.Tensor
    returns_BR: torch.Tensor


def make_targets(rollout: Rollout, config: PPOConfig, *, kl_coef: float, moments: RunningMoments) -> Targets:
    """Shape rewards and estimate advantages, standardised over the whole rollout after the returns are taken.

    Args:
        rollout: all answers of the iteration, over all processes.
        config: see PPOConfig.
        kl_coef: weight of the KL in this iteration.
        moments: of all scores so far, these included.
    """
    mask_BR = rollout.responses.mask_BR
    scores_B = adjust(rollout.scores_B, moments, normalize=config.normalize_scores, clip=config.score_clip)
    scores_B = scores_B - config.missing_eos_penalty * (~rollout.ended_B)
    shaped_BR = shape_rewards(
        scores_B,
        rollout.logprobs_BR,
        rollout.ref_logprobs_BR,
        mask_BR,
        kl_coef=kl_coef,
        kl_estimator=config.kl_estimator,
    )
    rewards_BR = standardise(shaped_BR, mask_BR, shift_mean=False) if config.whiten_rewards else shaped_BR
    advantages_BR, returns_BR = estimate_advantages(
        rewards_BR, rollout.values_BR, mask_BR, gamma=config.gamma, lam=config.lam
    )
    return Targets(scores_B, shaped_BR, standardise(advantages_BR, mask_BR), returns_BR)
