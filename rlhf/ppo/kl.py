"""KL(policy || reference): per-token estimators from samples of the policy, and the controller of its weight.

The estimates are never clamped: that would bias them. They enter the reward, never the loss: the gradient of k1 or k3
as a loss is not that of the KL (only k2's is). Letters: B batch, R response tokens.
"""

import math
from typing import NamedTuple

import torch

MAX_PROPORTIONAL_ERROR = 0.2
"""Bound of the controller's relative error, so that one odd batch moves the coefficient little; Ziegler et al. 2019."""


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


class KLController(NamedTuple):
    """The weight of the KL in the reward: fixed, or adapted so that the KL approaches a target."""

    coef: float
    """Reward per nat; the only part that changes."""
    target_nats_per_sequence: float | None
    """KL summed over the tokens of an answer, averaged over answers; None: `coef` is fixed."""
    horizon: int
    """Answers after which a steady error of 1 % has moved `coef` by about 1 %."""

    def updated(self, kl_nats_per_sequence: float, answers: int) -> "KLController":
        """Return the controller after an iteration: coef * (1 + e * answers / horizon), e = KL / target - 1 in +-0.2.

        Args:
            kl_nats_per_sequence: k1 summed over an answer, mean over the iteration's answers; may be negative. A mean
                per token, as verl's target of 0.1 takes, is smaller by the answer's length and would let the
                coefficient fall for ever.
            answers: of the iteration, over all ranks.

        Raises:
            ValueError: the KL is no finite number, or the horizon is so short that one step could make the
                coefficient 0 or negative, which would reward drifting away.

        Source: Ziegler et al. 2019, arXiv 1909.08593, section 2.2; n_steps / horizon as in the code of that paper.
        """
        if not math.isfinite(kl_nats_per_sequence):
            raise ValueError(
                f"the KL to the reference is {kl_nats_per_sequence} nats per sequence, which is no finite number; "
                "look for NaN in the log-probabilities of policy and reference"
            )
        if self.target_nats_per_sequence is None:
            return self
        step = answers / self.horizon
        if step * MAX_PROPORTIONAL_ERROR >= 1:
            raise ValueError(
                f"ppo.kl_horizon={self.horizon} is too short for {answers} answers per iteration: the coefficient "
                f"could become 0 or negative; use ppo.kl_horizon={answers} or more"
            )
        error = kl_nats_per_sequence / self.target_nats_per_sequence - 1
        error = min(max(error, -MAX_PROPORTIONAL_ERROR), MAX_PROPORTIONAL_ERROR)
        return self._replace(coef=self.coef * (1 + error * step))
