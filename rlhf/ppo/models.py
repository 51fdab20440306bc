"""The models of PPO behind one seam: what samples, what is scored against what, and what is trained.

Letters: B batch, R response tokens.
"""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from reward.calibration import Calibration
from reward.model import RewardModel, Scorer, load_scorer, new_scorer, token_scores
from sft.config import Dtype
from sft.core.compilation import compile_layers
from sft.core.generation import Prompts, Responses
from sft.core.likelihood import TokenStatistics, token_statistics
from sft.core.recomputation import WRAPPER
from sft.model import load_causal_lm, load_tokenizer

Parameters = dict[str, torch.nn.Parameter]


class PPOModels(Protocol):
    """Policy, reference and critic. All in evaluation mode: dropout would make the first ratio differ from 1."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Return the tokenizer of all three."""
        ...

    @property
    def device(self) -> torch.device:
        """Return where the tensors live."""
        ...

    @property
    def mixed_precision(self) -> bool:
        """Return True where forward passes compute in bfloat16."""
        ...

    @property
    def one_pass(self) -> bool:
        """Return True where policy and critic share their trunk, so that one pass through it serves both."""
        ...

    def computing(self) -> AbstractContextManager[object]:
        """Return the context of every forward pass, which decides its number format."""
        ...

    def sampling(self) -> AbstractContextManager[PreTrainedModel]:
        """Return the policy as a language model to sample from."""
        ...

    def policy_statistics(self, prompts: Prompts, responses: Responses, *, temperature: float) -> TokenStatistics:
        """Return log-probabilities and entropies under the policy."""
        ...

    def reference_statistics(self, prompts: Prompts, responses: Responses, *, temperature: float) -> TokenStatistics:
        """Return the same under the frozen reference."""
        ...

    def values(self, prompts: Prompts, responses: Responses) -> torch.Tensor:
        """Return V of the state before each response token, in units of the calibrated reward, shape (B, R)."""
        ...

    def policy_and_values(
        self, prompts: Prompts, responses: Responses, *, temperature: float
    ) -> tuple[TokenStatistics, torch.Tensor]:
        """Return both from one pass; only where `one_pass`."""
        ...

    def reward_model(self, folder: Path, max_prompt_tokens: int) -> RewardModel | None:
        """Return the reward model of a folder where it stands on weights that are here already, else None."""
        ...

    def policy_parameters(self) -> Parameters:
        """Return what the policy's optimiser trains, by name."""
        ...

    def critic_parameters(self) -> Parameters:
        """Return what the critic's optimiser trains, by name."""
        ...

    def save_policy(self, folder: Path) -> None:
        """Write the policy as a Hugging Face folder with its tokenizer."""
        ...

    def save_critic(self, folder: Path) -> None:
        """Write the critic as a Hugging Face folder with its tokenizer and calibration."""
        ...


class SeparateModels(NamedTuple):
    """Four models with weights of their own (the reward model is not among these); policy and critic train whole."""

    policy: PreTrainedModel
    reference: PreTrainedModel
    critic: PreTrainedModel
    calibration: Calibration
    tokenizer: PreTrainedTokenizerFast
    mixed_precision: bool
    one_pass: bool = False

    @classmethod
    def load(
        cls, sft: Path, reward: Path | None, *, device: torch.device, dtype: Dtype, start: Path | None = None
    ) -> "SeparateModels":
        """Load the reference from the SFT folder, the policy from `start` (None: too), the critic from the reward's.

        Without a reward model that reads the policy's tokens (None), the critic is the SFT model with a head of zeros.
        Policy and critic have float32 weights whatever the dtype: bfloat16 ones would swallow small updates.
        """
        return cls(
            policy=load_causal_lm(start or sft, device=device, dtype=Dtype.FLOAT32),
            reference=load_causal_lm(sft, device=device, dtype=dtype).requires_grad_(False),
            critic=_blank_scorer(sft, device)
            if reward is None
            else load_scorer(reward, device=device, dtype=Dtype.FLOAT32),
            calibration=Calibration(0.0, 1.0) if reward is None else Calibration.load(reward),
            tokenizer=load_tokenizer(sft),
            mixed_precision=dtype is Dtype.BFLOAT16,
        )

    def compiled(self) -> "SeparateModels":
        """Compile the layers of all three in place, and return the models."""
        for model in (self.policy, self.reference, self.critic):
            compile_layers(model)
        return self

    @property
    def device(self) -> torch.device:
        """Return where the tensors live."""
        return self.policy.device

    def computing(self) -> AbstractContextManager[object]:
        """Return bfloat16 on float32 weights, or the weights' own format."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.mixed_precision)

    def sampling(self) -> AbstractContextManager[PreTrainedModel]:
        """Return the policy itself."""
        return nullcontext(self.policy)

    def policy_statistics(self, prompts: Prompts, responses: Responses, *, temperature: float) -> TokenStatistics:
        """See `PPOModels`."""
        return token_statistics(self.policy, prompts, responses, temperature=temperature)

    def reference_statistics(self, prompts: Prompts, responses: Responses, *, temperature: float) -> TokenStatistics:
        """See `PPOModels`."""
        return token_statistics(self.reference, prompts, responses, temperature=temperature)

    def values(self, prompts: Prompts, responses: Responses) -> torch.Tensor:
        """See `PPOModels`."""
        raw_BR = token_scores(self.critic, prompts, responses)[:, :-1]
        return (raw_BR - self.calibration.offset) / self.calibration.temperature

    def policy_and_values(
        self, prompts: Prompts, responses: Responses, *, temperature: float
    ) -> tuple[TokenStatistics, torch.Tensor]:
        """Raise AssertionError: two models take two passes."""
        raise AssertionError("separate models have no common pass")

    def reward_model(self, folder: Path, max_prompt_tokens: int) -> None:
        """Return None: it has weights of its own."""

    def policy_parameters(self) -> Parameters:
        """Return all weights of the policy."""
        return _named(self.policy)

    def critic_parameters(self) -> Parameters:
        """Return all weights of the critic."""
        return _named(self.critic)

    def save_policy(self, folder: Path) -> None:
        """Write the whole model."""
        self.policy.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def save_critic(self, folder: Path) -> None:
        """Write the whole model with the calibration that its values are read in."""
        self.critic.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.calibration.save(folder)


def _named(model: PreTrainedModel) -> Parameters:
    """Return parameters under the names of the state dict, whether or not activations are recomputed."""
    return {name.replace(WRAPPER, ""): parameter for name, parameter in model.named_parameters()}


def _blank_scorer(sft: Path, device: torch.device) -> PreTrainedModel:
    scorer = new_scorer(sft, seed=0, device=device)
    torch.nn.init.zeros_(cast(Scorer, scorer).score.weight)
    return scorer
