"""Per-token estimators of KL(policy || reference) from samples of the policy. Never clamped: that would bias them."""

import torch


def kl_estimate(logprobs_BR: torch.Tensor, ref_logprobs_BR: torch.Tensor, estimator: str) -> torch.Tensor:
    """Return the estimate of each token, in nats.

    k1 = log pi - log ref (unbiased), k2 = k1^2 / 2 (low variance), k3 = exp(-k1) - 1 + k1 (unbiased, not negative).

    Raises:
        ValueError: the estimator is none of "k1", "k2", "k3".

    Source: Schulman 2020, "Approximating KL divergence".
    """
    k1_BR = logprobs_BR - ref_logprobs_BR
    if estimator == "k1":
        return k1_BR
    if estimator == "k2":
        return k1_BR.square() / 2
    if estimator == "k3":
        return torch.exp(-k1_BR) - 1 + k1_BR
    raise ValueError(f"kl_estimator={estimator!r} is unknown; use k1, k2 or k3")
