"""The four models of PPO: policy, frozen reference, frozen reward model, and a critic that starts as the reward model.

Letters: B batch, R response tokens.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from reward.calibration import Calibration
from reward.model import RewardModel, load_scorer, token_scores
from sft.config import Dtype
from sft.core.generation import Prompts, Responses
from sft.model import load_causal_lm, load_tokenizer


class PPOModels(NamedTuple):
    """All in evaluation mode: dropout would make the first ratio differ from 1."""

    policy: PreTrainedModel
    reference: PreTrainedModel
    critic: PreTrainedModel
    reward: RewardModel
    tokenizer: PreTrainedTokenizerFast
    mixed_precision: bool

    def computing(self) -> torch.autocast:
        """Return the context of every forward pass: bfloat16 on float32 weights, or the weights' own format."""
        return torch.autocast(self.policy.device.type, dtype=torch.bfloat16, enabled=self.mixed_precision)


def load_models(sft: Path, reward: Path, *, device: torch.device, dtype: Dtype, max_prompt_tokens: int) -> PPOModels:
    """Load policy and reference from the SFT folder, reward model and critic from the reward model's folder.

    Policy and critic have float32 weights whatever the dtype: bfloat16 ones would swallow small updates.
    """
    policy = load_causal_lm(sft, device=device, dtype=Dtype.FLOAT32)
    reference = load_causal_lm(sft, device=device, dtype=dtype).requires_grad_(False)
    critic = load_scorer(reward, device=device, dtype=Dtype.FLOAT32)
    scorer = RewardModel.load(reward, device=device, dtype=dtype, max_prompt_tokens=max_prompt_tokens)
    scorer.model.requires_grad_(False)
    tokenizer = load_tokenizer(sft)
    assert tokenizer.get_vocab() == scorer.tokenizer.get_vocab(), "policy and reward model share their tokenizer"
    return PPOModels(policy, reference, critic, scorer, tokenizer, mixed_precision=dtype is Dtype.BFLOAT16)


def state_values(
    critic: PreTrainedModel, calibration: Calibration, prompts: Prompts, responses: Responses
) -> torch.Tensor:
    """Return V of the state before each response token, in units of the calibrated reward, shape (B, R)."""
    raw = token_scores(critic, prompts, responses)[:, :-1]
    return (raw - calibration.offset) / calibration.temperature
