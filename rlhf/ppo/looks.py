"""Looks at the policy in training: its win rate against the start on validation prompts, by a model it never sees.

A look has its own random stream and the same noise every time, so that it disturbs nothing and differences are the
policy's. Letters: N answers.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reward.model import RewardModel
from rlhf.ppo.models import PPOModels
from rlhf.ppo.rollout import RolloutSettings, sample_responses
from rlhf.ppo.selection import Look
from sft.config import Dtype
from sft.core.generation import read_answers
from sft.core.measures import wins
from sft.core.statistics import clustered_mean
from sft.core.text import Conversation, encode_prompt, prompt_key

Floats = npt.NDArray[np.float64]


class Looks:
    """A held-out reward model and the prompts that it judges."""

    def __init__(
        self,
        judge: Path,
        models: PPOModels,
        prompts: Sequence[Conversation],
        settings: RolloutSettings,
        max_prompt: int,
    ) -> None:
        """Load the judge; `max_prompt` is the longest prompt in tokens."""
        dtype = Dtype.BFLOAT16 if models.mixed_precision else Dtype.FLOAT32
        self.judge = RewardModel.load(judge, device=models.device, dtype=dtype, max_prompt_tokens=max_prompt)
        self.judge.model.requires_grad_(False)
        self.models = models
        self.prompts = prompts
        self.prompt_ids = [encode_prompt(models.tokenizer, prompt, max_tokens=max_prompt) for prompt in prompts]
        self.settings = settings

    def scores(self) -> Floats:
        """Return the judge's scores of one answer of the present policy to each prompt."""
        _, responses = sample_responses(
            self.models, self.prompt_ids, self.settings, stream="look", iteration=0, rows=range(len(self.prompts))
        )
        texts = [answer.text for answer in read_answers(self.models.tokenizer, responses)]
        with self.models.computing():
            return self.judge.score_texts(list(zip(self.prompts, texts, strict=True)))

    def look(self, start_scores: Sequence[float], iteration: int) -> Look:
        """Return the win rate against the start's answers to the same prompts; clusters are prompts."""
        won = wins(self.scores(), np.array(start_scores))
        estimate = clustered_mean(won, [prompt_key(p) for p in self.prompts], seed=self.settings.seed)
        return Look(iteration, estimate.value, *estimate.ci, len(won))
