"""Settings of the reward model. Imports no torch."""

from dataclasses import dataclass

from sft.config import TrainerConfig
from sft.core.config import at_least, between, positive
from sft.core.errors import ConfigProblem


@dataclass(kw_only=True)
class RewardConfig(TrainerConfig):
    """Bradley-Terry reward model; more than one epoch overfits on large data."""

    center_rewards_coefficient: float | None = None
    """TRL's auxiliary loss that pulls scores towards 0; the offset in calibration.json centres them in any case."""
    judge_fraction: float = 0.0
    """Share of the training prompts whose comparisons train a second model that PPO never sees: the judge of
    `evaluation`. 0 trains none."""

    lora_r: int | None = None
    """Rank of LoRA adapters, which train in place of the whole model; `ppo.models: shared` puts them on its base.
    Null: the whole model trains."""
    lora_alpha: float = 32.0
    """Scale of the adapters: their product is multiplied by `lora_alpha / lora_r`."""

    def problems(self) -> list[ConfigProblem]:
        """Return every broken rule of this section."""
        found = super().problems() + between(0, 0.5, judge_fraction=self.judge_fraction)
        found += at_least(1, lora_r=self.lora_r) + positive(lora_alpha=self.lora_alpha)
        return found + at_least(0, center_rewards_coefficient=self.center_rewards_coefficient)
