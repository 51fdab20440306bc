"""From scores and log-probabilities to per-token rewards, and masked standardisation.

Letters: B batch, R response tokens. Masks are True where a token counts; what stands elsewhere, NaN included, changes
no value and no gradient, because it is replaced before any arithmetic.
"""

from collections.abc import Callable

import torch

from rlhf.ppo.kl import kl_estimate


def last_token_mask(response_mask_BR: torch.Tensor) -> torch.Tensor:
    """Return a mask that is True on the last counted token of each row, and nowhere in an empty row."""
    later_BR = response_mask_BR.flip(1).cumsum(1).flip(1)
    return response_mask_BR & (later_BR == 1)


def shape_rewards(
    scores_B: torch.Tensor,
    logprobs_BR: torch.Tensor,
    ref_logprobs_BR: torch.Tensor,
    response_mask_BR: torch.Tensor,
    *,
    kl_coef: float,
    kl_estimator: str = "k1",
) -> torch.Tensor:
    """Return rewards of shape (B, R): -kl_coef * KL at each token, plus the score on the last response token.

    Args:
        scores_B: score of each whole response.
        logprobs_BR: of the policy that sampled, at the sampling temperature.
        ref_logprobs_BR: of the reference, at the same temperature.
        response_mask_BR: True up to and including the EOS.
        kl_coef: weight of the KL, reward per nat.
        kl_estimator: "k1", "k2" or "k3".

    Source: Ziegler et al. 2019, arXiv 1909.08593, eq. 2; the score stands on the EOS as in OpenRLHF and verl.
    """
    zero = torch.zeros((), dtype=logprobs_BR.dtype, device=logprobs_BR.device)
    kl_BR = kl_estimate(
        torch.where(response_mask_BR, logprobs_BR, zero),
        torch.where(response_mask_BR, ref_logprobs_BR, zero),
        kl_estimator,
    )
    return -kl_coef * kl_BR + torch.where(last_token_mask(response_mask_BR), scores_B[:, None], zero)


def standardise(
    x_BR: torch.Tensor,
    mask_BR: torch.Tensor,
    *,
    shift_mean: bool = True,
    reduce: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Return x scaled to unit standard deviation over the mask, zero outside it.

    Args:
        x_BR: values.
        mask_BR: True where a value counts.
        shift_mean: also subtract the mean; False leaves it where scaling puts it.
        reduce: sums a tensor over ranks, so that the statistics are those of the global batch; None: one rank.

    Returns:
        (x - mean) / sqrt(var + 1e-8), with the population variance over all counted values.
    """
    x_BR = torch.where(mask_BR, x_BR, torch.zeros((), dtype=x_BR.dtype, device=x_BR.device))
    total = torch.stack([mask_BR.sum().to(x_BR.dtype), x_BR.sum()])
    count, summed = (reduce(total) if reduce else total).unbind()
    count = count.clamp(min=1)
    mean = summed / count
    centred_BR = torch.where(mask_BR, x_BR - mean, torch.zeros_like(x_BR))
    squares = centred_BR.square().sum()
    variance = (reduce(squares) if reduce else squares) / count
    return (centred_BR if shift_mean else x_BR) / torch.sqrt(variance + 1e-8)
