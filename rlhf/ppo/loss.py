"""The clipped losses of PPO. Letters: B batch, R response tokens.

A loss is a sum over counted tokens divided by `num_tokens`, the count of the whole minibatch: k micro-batches or k
ranks that pass the same global count add up to the loss, and the gradient, of one big batch.
"""

from typing import NamedTuple

import torch


class PolicyLoss(NamedTuple):
    """The loss, and what it tells about the step. All but `loss` are detached and share its denominator."""

    loss: torch.Tensor
    approx_kl: torch.Tensor
    """Mean of (log ratio)^2 / 2, in nats per token."""
    clip_fraction: torch.Tensor
    """Share of tokens whose clipped term decides."""
    ratio: torch.Tensor
    """Mean ratio of new to old probability."""
    max_ratio_deviation: torch.Tensor
    """Largest |ratio - 1|; 0 before the first update of a rollout."""


class ValueLoss(NamedTuple):
    """The loss, and the share of values that were clipped."""

    loss: torch.Tensor
    clip_fraction: torch.Tensor


def _zeros_outside(mask_BR: torch.Tensor, *tensors: torch.Tensor) -> list[torch.Tensor]:
    return [torch.where(mask_BR, x, torch.zeros((), dtype=x.dtype, device=x.device)) for x in tensors]


def _denominator(mask_BR: torch.Tensor, num_tokens: int | torch.Tensor | None) -> int | torch.Tensor:
    return mask_BR.sum().clamp(min=1) if num_tokens is None else num_tokens


def policy_loss(
    logprobs_BR: torch.Tensor,
    old_logprobs_BR: torch.Tensor,
    advantages_BR: torch.Tensor,
    response_mask_BR: torch.Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
    num_tokens: int | torch.Tensor | None = None,
) -> PolicyLoss:
    """Return the clipped surrogate max(-A * ratio, -A * clip(ratio, 1 - clip_low, 1 + clip_high)).

    Args:
        logprobs_BR: of the policy that is trained; carries the gradient.
        old_logprobs_BR: of the policy that sampled.
        advantages_BR: usually standardised.
        response_mask_BR: True where a token counts.
        clip_low: how far the ratio may fall below 1.
        clip_high: how far it may rise above 1.
        dual_clip: upper bound c > 1 of the loss of negative advantages, -A * c; None: unbounded.
        num_tokens: global token count; None: the tokens of this mask.

    Source: Schulman et al. 2017, arXiv 1707.06347, eq. 7; dual clip: Ye et al. 2020, arXiv 1912.09729, eq. 6.
    """
    logprobs_BR, old_logprobs_BR, advantages_BR = _zeros_outside(
        response_mask_BR, logprobs_BR, old_logprobs_BR, advantages_BR
    )
    count = _denominator(response_mask_BR, num_tokens)
    log_ratio_BR = logprobs_BR - old_logprobs_BR
    ratio_BR = torch.exp(log_ratio_BR)
    plain_BR = -advantages_BR * ratio_BR
    clipped_BR = -advantages_BR * ratio_BR.clamp(1 - clip_low, 1 + clip_high)
    loss_BR = torch.maximum(plain_BR, clipped_BR)
    if dual_clip is not None:
        bounded_BR = torch.minimum(loss_BR, -advantages_BR * dual_clip)
        loss_BR = torch.where(advantages_BR < 0, bounded_BR, loss_BR)
    with torch.no_grad():
        (ratio_counted_BR,) = _zeros_outside(response_mask_BR, ratio_BR)
        deviation_BR = torch.where(response_mask_BR, (ratio_BR - 1).abs(), torch.zeros_like(ratio_BR))
        return_values = (
            (log_ratio_BR.square() / 2).sum() / count,
            ((clipped_BR > plain_BR) & response_mask_BR).sum() / count,
            ratio_counted_BR.sum() / count,
            deviation_BR.max() if deviation_BR.numel() else deviation_BR.sum(),
        )
    return PolicyLoss(loss_BR.sum() / count, *return_values)


def value_loss(
    values_BR: torch.Tensor,
    old_values_BR: torch.Tensor,
    returns_BR: torch.Tensor,
    response_mask_BR: torch.Tensor,
    *,
    clip_range: float = 0.2,
    num_tokens: int | torch.Tensor | None = None,
) -> ValueLoss:
    """Return half the mean of the larger of (V - R)^2 and (V_old + clip(V - V_old, +-clip_range) - R)^2.

    Args:
        values_BR: of the critic that is trained; carries the gradient.
        old_values_BR: of the critic at the time of the rollout.
        returns_BR: targets.
        response_mask_BR: True where a token counts.
        clip_range: how far a value may move from its old one, in units of reward.
        num_tokens: global token count; None: the tokens of this mask.

    Source: OpenAI baselines' PPO2, as described in Huang et al. 2022, "The 37 implementation details of PPO", 9.
    """
    values_BR, old_values_BR, returns_BR = _zeros_outside(response_mask_BR, values_BR, old_values_BR, returns_BR)
    count = _denominator(response_mask_BR, num_tokens)
    moved_BR = old_values_BR + (values_BR - old_values_BR).clamp(-clip_range, clip_range)
    plain_BR = (values_BR - returns_BR).square()
    clipped_BR = (moved_BR - returns_BR).square()
    with torch.no_grad():
        far_BR = (values_BR - old_values_BR).abs() > clip_range  # rounding alone can part the two terms
        clip_fraction = ((clipped_BR > plain_BR) & far_BR & response_mask_BR).sum() / count
    return ValueLoss(0.5 * torch.maximum(plain_BR, clipped_BR).sum() / count, clip_fraction)
