"""PPO for language models: pure functions, and the loop that uses them."""

from rlhf.ppo.advantages import estimate_advantages
from rlhf.ppo.kl import KLController, kl_estimate
from rlhf.ppo.loss import PolicyLoss, ValueLoss, policy_loss, value_loss
from rlhf.ppo.shaping import shape_rewards, standardise

__all__ = [
    "KLController",
    "PolicyLoss",
    "ValueLoss",
    "estimate_advantages",
    "kl_estimate",
    "policy_loss",
    "shape_rewards",
    "standardise",
    "value_loss",
]
