"""Generalised advantage estimation. Letters: B batch, R response tokens."""

import torch


def estimate_advantages(
    rewards_BR: torch.Tensor,
    values_BR: torch.Tensor,
    response_mask_BR: torch.Tensor,
    *,
    gamma: float,
    lam: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return advantages and returns, both of shape (B, R) and zero outside the mask.

    delta_t = r_t + gamma * V_{t+1} - V_t and A_t = delta_t + gamma * lam * A_{t+1}, with V and A zero after the last
    response token; returns are A + V of the advantages before any standardisation, so that the critic's target keeps
    its scale. With lam = 1 the return is the discounted sum of rewards.

    Args:
        rewards_BR: per-token rewards.
        values_BR: V of the state before each token.
        response_mask_BR: True up to and including the last response token.
        gamma: discount, 0 to 1.
        lam: 0 trusts the critic, 1 the sampled rewards.

    Source: Schulman et al. 2015, arXiv 1506.02438, eq. 16.
    """
    zeros = torch.zeros_like(values_BR)
    rewards_BR = torch.where(response_mask_BR, rewards_BR, zeros)
    values_BR = torch.where(response_mask_BR, values_BR, zeros)
    advantages_BR = zeros.clone()
    next_value_B = next_advantage_B = zeros[:, 0] if zeros.shape[1] else zeros.sum(dim=1)
    for t in reversed(range(rewards_BR.shape[1])):
        delta_B = rewards_BR[:, t] + gamma * next_value_B - values_BR[:, t]
        advantage_B = delta_B + gamma * lam * next_advantage_B
        advantages_BR[:, t] = torch.where(response_mask_BR[:, t], advantage_B, zeros[:, t])
        next_value_B, next_advantage_B = values_BR[:, t], advantages_BR[:, t]
    return advantages_BR, advantages_BR + values_BR
