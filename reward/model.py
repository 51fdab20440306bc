"""The reward model as the rest of the house uses it: calibrated scores of prompts with answers.

Letters: B batch, P prompt tokens (padded on the left), R response tokens (padded on the right).
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerFast

from reward.calibration import Calibration
from sft.config import Dtype
from sft.core.generation import Prompts, Responses, pad_left, pad_right
from sft.core.likelihood import spread
from sft.core.packing import pack, packed_inputs
from sft.core.quiet import quiet_libraries
from sft.core.text import Conversation, encode_answer, encode_prompt
from sft.model import load_tokenizer, placed, torch_dtype


class Scorer(Protocol):
    """A decoder with a linear head, as transformers builds it for sequence classification."""

    base_model: torch.nn.Module
    score: torch.nn.Linear


def load_scorer(folder: Path, *, device: torch.device, dtype: Dtype) -> PreTrainedModel:
    """Load a decoder with a one-number head, in evaluation mode; a missing head is not silently made up.

    Raises:
        ValueError: the folder holds no trained head `score.weight`, or more than that, such as `score.bias`.
    """
    quiet_libraries()
    model, report = AutoModelForSequenceClassification.from_pretrained(
        folder,
        num_labels=1,
        dtype=torch_dtype(dtype),
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    unused = sorted(key for key in report["unexpected_keys"] if key.startswith("score."))
    if unused:
        raise ValueError(
            f"{folder} holds {', '.join(unused)}, which a linear head without bias has no place for; put a bias into "
            "calibration.json as the offset, negated"
        )
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"]))
        raise ValueError(f"{folder} holds no reward model: {missing} would be random; train one or give another folder")
    return placed(model, device)


def new_scorer(sft: Path, *, seed: int, device: torch.device) -> PreTrainedModel:
    """Return the SFT model with a fresh one-number head in float32, weights from N(0, 1 / (width + 1)).

    Source: Huang et al. 2024, arXiv 2403.17031, detail 11.
    """
    model = AutoModelForSequenceClassification.from_pretrained(
        sft, num_labels=1, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    )
    generator = torch.Generator().manual_seed(seed)
    head = model.score.weight
    with torch.no_grad():
        head.copy_(torch.randn(head.shape, generator=generator) / math.sqrt(head.shape[1] + 1))
    return placed(model, device)


def token_scores(model: PreTrainedModel, prompts: Prompts, responses: Responses) -> torch.Tensor:
    """Return the head's raw output at the R + 1 positions from the last prompt token on, shape (B, R + 1).

    Position 0 is the state before the first response token, position t the one after t tokens; zero where a response
    is shorter.
    """
    packed = pack(prompts, responses)
    scorer = cast(Scorer, model)
    known_BR1 = torch.cat([prompts.mask_BP[:, -1:], responses.mask_BR], dim=1)
    states_S = packed.states_BR1[known_BR1]
    hidden_ND = scorer.base_model(**packed_inputs(model, packed, packed.filled(states_S))).last_hidden_state.squeeze(0)
    scores_S: torch.Tensor = scorer.score(hidden_ND[states_S])
    return spread(scores_S.squeeze(-1).float(), known_BR1)


class RewardModel:
    """A trained scorer with its tokenizer and calibration; `using` is the context of its forward passes."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        calibration: Calibration,
        max_prompt_tokens: int,
        using: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.model = model
        self.using = using
        self.tokenizer = tokenizer
        self.calibration = calibration
        self.max_prompt_tokens = max_prompt_tokens

    @classmethod
    def load(cls, folder: Path, *, device: torch.device, dtype: Dtype, max_prompt_tokens: int) -> "RewardModel":
        """Load a folder that `train_reward` wrote."""
        model = load_scorer(folder, device=device, dtype=dtype)
        return cls(model, load_tokenizer(folder), Calibration.load(folder), max_prompt_tokens)

    def calibrated(self, raw: torch.Tensor) -> torch.Tensor:
        """Return (raw - offset) / temperature."""
        return (raw - self.calibration.offset) / self.calibration.temperature

    @torch.no_grad()
    def score_tokens(self, prompts: Prompts, responses: Responses) -> torch.Tensor:
        """Return the calibrated score of each response, read at its last counted token, shape (B,)."""
        with self.using():
            raw = token_scores(self.model, prompts, responses)
        last_B1 = responses.mask_BR.sum(dim=1, keepdim=True)
        return self.calibrated(raw.gather(1, last_B1).squeeze(1))

    def score_texts(
        self, pairs: Sequence[tuple[Conversation, str]], *, batch_size: int = 64
    ) -> npt.NDArray[np.float64]:
        """Return the calibrated score of each prompt with answer (and EOS), in order."""
        rows = [(prompt, encode_answer(self.tokenizer, answer)) for prompt, answer in pairs]
        return self.score_ids(rows, batch_size=batch_size)

    def score_ids(
        self, rows: Sequence[tuple[Conversation, Sequence[int]]], *, batch_size: int = 64
    ) -> npt.NDArray[np.float64]:
        """Return the calibrated score of each prompt with the ids of its answer, read at the last id, in order."""
        scores: list[float] = []
        pad_id, device = self.tokenizer.pad_token_id, self.model.device
        for start in range(0, len(rows), batch_size):
            chunk = rows[start : start + batch_size]
            prompt_ids = [encode_prompt(self.tokenizer, p, max_tokens=self.max_prompt_tokens) for p, _ in chunk]
            responses = pad_right([ids for _, ids in chunk], pad_id, device)
            scores += self.score_tokens(pad_left(prompt_ids, pad_id, device), responses).tolist()
        return np.array(scores, dtype=np.float64)
