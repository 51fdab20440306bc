"""Where the score of an answer comes from: reward models, alone or in an ensemble, and plain functions by name.

score = reward_model_weight * ensemble + sum of weight * function

Letters: B batch, P prompt tokens (padded on the left), R response tokens (padded on the right), M reward models.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerFast

from reward.model import RewardModel
from rlhf.config import Ensemble, PPOConfig
from sft.config import Dtype
from sft.core.generation import Prompts, Responses, pad_right, with_eos
from sft.core.measures import repetition
from sft.core.text import Conversation, encode_answer


class Sampled(NamedTuple):
    """What the sources of a reward look at: answers as tokens of the policy, and as text."""

    conversations: Sequence[Conversation]
    """B prompts."""
    texts: Sequence[str]
    """B answers, decoded without special tokens."""
    prompts: Prompts
    """Of the policy's tokenizer."""
    responses: Responses
    """As sampled: with the EOS where the answer ended by itself."""
    control_B: torch.Tensor
    """True where a control token other than the EOS was sampled: the text may leave it out."""


class Scored(NamedTuple):
    """Scores, and what they are made of."""

    scores_B: torch.Tensor
    """Weighted sum of the sources, float32."""
    parts: dict[str, torch.Tensor]
    """Unweighted, float32, each of shape (B,): "reward_model", each function by its name, and of several reward models
    "reward_model/0", "reward_model/1", ... and their population standard deviation "reward_model/std"."""


RewardFunction = Callable[[Sampled], torch.Tensor]
"""A plain function of answers; returns one number per answer, shape (B,), higher is better."""


def length_penalty(sampled: Sampled) -> torch.Tensor:
    """Return minus the hundreds of tokens of each answer, its EOS included where it has one, shape (B,)."""
    return -sampled.responses.mask_BR.sum(dim=1) / 100


def repetition_penalty(sampled: Sampled) -> torch.Tensor:
    """Return minus the share of each answer's 3-grams of words that stood in it before, in [-1, 0], shape (B,).

    Words are what stands between spaces, case folded. An answer of fewer than 4 words gets 0.
    """
    shares = [repetition(text) for text in sampled.texts]
    return -torch.tensor(shares, device=sampled.responses.ids_BR.device)


FUNCTIONS: dict[str, RewardFunction] = {
    "length_penalty": length_penalty,
    "repetition_penalty": repetition_penalty,
}
"""What `ppo.reward_functions` gives weights to. To add one, write a RewardFunction here, enter it under its name, and
add the name to REWARD_FUNCTIONS in rlhf/config.py, which checks names before torch is loaded."""


def combine(scores_MB: torch.Tensor, how: Ensemble, uncertainty_coef: float) -> torch.Tensor:
    """Return one score per answer from the calibrated scores of M >= 1 reward models, shape (B,).

    Mean; worst case (WCO): the minimum; uncertainty-weighted (UWO): mean - uncertainty_coef * variance, where the
    variance divides by M, so that one model alone is never marked down.

    Source: Coste et al. 2023, arXiv 2310.02743, section 3.
    """
    if how is Ensemble.WORST:
        return scores_MB.amin(dim=0)
    mean_B = scores_MB.mean(dim=0)
    if how is Ensemble.UNCERTAINTY:
        return mean_B - uncertainty_coef * scores_MB.var(dim=0, correction=0)
    return mean_B


def same_tokens(first: PreTrainedTokenizerFast, second: PreTrainedTokenizerFast) -> bool:
    """Return whether two tokenizers turn a conversation into the same ids: vocabulary, template, BOS and EOS.

    The template decides as well as the vocabulary: a reward model never read turns that are marked otherwise.
    """
    return (
        first.get_vocab() == second.get_vocab()
        and first.chat_template == second.chat_template
        and first.bos_token_id == second.bos_token_id
        and first.eos_token_id == second.eos_token_id
    )


class Member(NamedTuple):
    """A frozen reward model, and whether the policy's ids mean the same to it."""

    model: RewardModel
    reads_ids: bool


@dataclass(frozen=True)
class Rewards:
    """All sources of the reward.

    Attributes:
        members: reward models, the stage's own first.
        eos_id: of the policy's tokenizer.
        pad_id: of the policy's tokenizer.
        ensemble: how the members become one score.
        uncertainty_coef: weight of the members' variance with `Ensemble.UNCERTAINTY`.
        reward_model_weight: of the ensemble's score.
        function_weights: weight of each function by its name in FUNCTIONS.
    """

    members: tuple[Member, ...]
    eos_id: int
    pad_id: int
    ensemble: Ensemble
    uncertainty_coef: float
    reward_model_weight: float
    function_weights: dict[str, float]

    @classmethod
    def load(
        cls,
        config: PPOConfig,
        folders: Sequence[Path],
        *,
        main: RewardModel | None = None,
        tokenizer: PreTrainedTokenizerFast,
        device: torch.device,
        dtype: Dtype,
        max_prompt_tokens: int,
    ) -> "Rewards":
        """Load and freeze the reward models.

        Args:
            config: weights, functions and the kind of ensemble.
            folders: the stage's own reward model, then those of `ppo.reward_models`.
            main: the first of these where it is in memory already; None: load it.
            tokenizer: the policy's.
            device: where all models stand, as the policy does.
            dtype: of the reward models' weights; scores are float32 in any case.
            max_prompt_tokens: longest prompt, counted by each reward model in its own tokens.
        """
        assert folders, "the stage's own reward model is always there"
        models = [] if main is None else [main]
        for folder in folders[len(models) :]:
            model = RewardModel.load(folder, device=device, dtype=dtype, max_prompt_tokens=max_prompt_tokens)
            model.model.requires_grad_(False)
            models.append(model)
        members = []
        for model in models:
            members.append(Member(model, reads_ids=same_tokens(tokenizer, model.tokenizer)))
        return cls(
            members=tuple(members),
            eos_id=tokenizer.eos_token_id,
            pad_id=tokenizer.pad_token_id,
            ensemble=config.ensemble,
            uncertainty_coef=config.uncertainty_coef,
            reward_model_weight=config.reward_model_weight,
            function_weights=dict(config.reward_functions),
        )

    @property
    def main(self) -> RewardModel:
        """The stage's own reward model: the critic starts as it and estimates in its units."""
        return self.members[0].model

    @torch.no_grad()
    def score(self, sampled: Sampled, *, micro_batch_rows: int = 64) -> Scored:
        """Return the scores of B answers, in order.

        An answer that was cut off is scored with an EOS behind it: no reward model ever read a score anywhere else.

        Args:
            sampled: the answers.
            micro_batch_rows: most answers that one reward model reads at once; changes memory, not the result.
        """
        scores_MB = torch.stack([self._model_scores(member, sampled, micro_batch_rows) for member in self.members])
        combined_B = combine(scores_MB, self.ensemble, self.uncertainty_coef)
        parts = {"reward_model": combined_B}
        if len(self.members) > 1:
            parts |= {f"reward_model/{i}": scores_B for i, scores_B in enumerate(scores_MB)}
            parts["reward_model/std"] = scores_MB.std(dim=0, correction=0)
        total_B = self.reward_model_weight * combined_B
        for name, weight in self.function_weights.items():
            part_B = FUNCTIONS[name](sampled).float()
            assert part_B.shape == total_B.shape, f"{name} gave {tuple(part_B.shape)}, not one number per answer"
            parts[name] = part_B
            total_B = total_B + weight * part_B
        return Scored(total_B, parts)

    def _model_scores(self, member: Member, sampled: Sampled, micro_batch_rows: int) -> torch.Tensor:
        """Read rows of like length together, each batch cut to its own longest; undo the order."""
        prompts, responses = sampled.prompts, sampled.responses
        if member.reads_ids:
            responses = self._as_read(member.model.tokenizer, sampled)
        length_B = prompts.mask_BP.sum(dim=1) + responses.mask_BR.sum(dim=1)
        scores_B = torch.empty(len(length_B), dtype=torch.float32, device=length_B.device)
        for rows in length_B.argsort(stable=True).split(micro_batch_rows):
            if member.reads_ids:
                scores_B[rows] = member.model.score_tokens(*_cut_to_longest(prompts, responses, rows))
            else:
                pairs = [(sampled.conversations[i], sampled.texts[i]) for i in rows.tolist()]
                scores = member.model.score_texts(pairs, batch_size=micro_batch_rows)
                scores_B[rows] = torch.from_numpy(scores).to(scores_B)
        return scores_B

    def _as_read(self, tokenizer: PreTrainedTokenizerFast, sampled: Sampled) -> Responses:
        """Return the answers' ids, each with an EOS; of one with control tokens inside the ids of its text.

        Such an answer is judged by what a person would read: to a model that reads ids the tokens may open a turn.
        """
        responses = with_eos(sampled.responses, self.eos_id, self.pad_id)
        if not sampled.control_B.any():
            return responses
        rows = zip(responses.ids_BR, responses.mask_BR, sampled.control_B.tolist(), sampled.texts, strict=True)
        ids = [encode_answer(tokenizer, text) if control else ids[mask].tolist() for ids, mask, control, text in rows]
        return pad_right(ids, self.pad_id, responses.ids_BR.device)


def _cut_to_longest(prompts: Prompts, responses: Responses, rows: torch.Tensor) -> tuple[Prompts, Responses]:
    """Return the given rows without the columns in which none of them has a token."""
    prompt_mask, response_mask = prompts.mask_BP[rows], responses.mask_BR[rows]
    start = prompt_mask.shape[1] - int(prompt_mask.sum(dim=1).max())
    end = int(response_mask.sum(dim=1).max())
    return (
        Prompts(prompts.ids_BP[rows, start:], prompt_mask[:, start:]),
        Responses(responses.ids_BR[rows, :end], response_mask[:, :end]),
    )
