"""Pairs of answers that people are to compare: sampled from two models, scored by how much reward models disagree.

Imports no torch. Letters: M reward models, N pairs.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rlhf.labels.collection.tasks import Pair
from sft.config import RuntimeConfig
from sft.core.text import Conversation, TokenLimits, encode_answer

BATCH_SIZE = 64
"""Prompts answered at once; their number in it is part of what decides the answer."""

Floats = npt.NDArray[np.float64]


class Source(NamedTuple):
    """A model that answers: its folder, and the name that its answers carry."""

    folder: Path
    name: str


class Sampled(NamedTuple):
    """Two answers to each prompt, in the order of the prompts."""

    pairs: list[Pair]
    cut_off: int
    """Answers that did not end within the longest answer."""
    too_long: int
    """Pairs left out: an answer, tokenised anew, is longer than the reward model takes."""


def sample_pairs(
    first: Source,
    second: Source,
    prompts: Sequence[Conversation],
    *,
    limits: TokenLimits,
    temperature: float,
    runtime: RuntimeConfig,
    seed: int,
    longest: int | None = None,
    advance: Callable[[int], None] = lambda done: None,
) -> Sampled:
    """Let each model answer each prompt once; they may be the same model, whose two answers differ by chance.

    Args:
        first: model of the pairs' first answers.
        second: model of the others.
        prompts: may repeat; each gets answers of its own.
        limits: longest prompt (of a longer one the last tokens count) and answer, in tokens.
        temperature: of sampling.
        runtime: device, dtype, threads.
        seed: of sampling; the answers depend on it and on the order of the prompts.
        longest: pairs with an answer of more tokens, in the first model's, are left out: people would label in vain.
        advance: is told how many answers are there.
    """
    import torch

    from sft.core.generation import Answer, SamplingSettings, sample_answers
    from sft.model import load_causal_lm, load_tokenizer, torch_device

    torch.set_num_threads(runtime.threads)

    def answers(source: Source, stream: str, before: int) -> list[Answer]:
        model = load_causal_lm(source.folder, device=torch_device(runtime), dtype=runtime.dtype)
        tokenizer = load_tokenizer(source.folder)
        settings = SamplingSettings(limits.prompt, limits.answer, temperature, BATCH_SIZE, seed, stream)
        found: list[Answer] = []
        for number, start in enumerate(range(0, len(prompts), BATCH_SIZE)):
            chunk = prompts[start : start + BATCH_SIZE]
            found += sample_answers(model, tokenizer, chunk, settings, iteration=number)
            advance(before + len(found))
        return found

    lefts = answers(first, "labels-first", 0)
    rights = answers(second, "labels-second", len(prompts))
    tokenizer = load_tokenizer(first.folder)

    def fits(answer: Answer) -> bool:
        return longest is None or len(encode_answer(tokenizer, answer.text)) - 1 <= longest

    pairs = [
        Pair(prompt, left.text, right.text, first.name, second.name)
        for prompt, left, right in zip(prompts, lefts, rights, strict=True)
        if fits(left) and fits(right)
    ]
    cut_off = sum(not answer.ended for answer in (*lefts, *rights))
    return Sampled(pairs, cut_off, len(prompts) - len(pairs))


def score_margins(
    reward_models: Sequence[Path],
    pairs: Sequence[Pair],
    *,
    max_prompt_tokens: int,
    runtime: RuntimeConfig,
    advance: Callable[[int], None] = lambda done: None,
) -> Floats:
    """Return how much better each reward model finds the first answer of each pair, shape (M, N)."""
    from reward.model import RewardModel
    from sft.model import torch_device

    rows = []
    for number, folder in enumerate(reward_models):
        model = RewardModel.load(
            folder, device=torch_device(runtime), dtype=runtime.dtype, max_prompt_tokens=max_prompt_tokens
        )
        first = model.score_texts([(pair.prompt, pair.response_a) for pair in pairs])
        rows.append(first - model.score_texts([(pair.prompt, pair.response_b) for pair in pairs]))
        advance(number + 1)
    return np.stack(rows)


def uncertainty(margins_MN: Floats) -> Floats:
    """Return how much a label of each pair would teach, shape (N,); higher is more.

    Of two or more reward models: the standard deviation of their margins, each model's divided by its root mean
    square, so that no model counts more for its larger scale. Of one: minus the absolute margin. Which answer of a
    pair comes first does not matter. A model whose margins are all 0 counts as 0.

    Source: Christiano et al. 2017, arXiv 1706.03741, section 2.2.4 (queries where an ensemble disagrees).
    """
    if len(margins_MN) == 1:
        size_N: Floats = np.abs(margins_MN[0])
        return -size_N
    scale_M1 = np.sqrt(np.mean(margins_MN**2, axis=1, keepdims=True))
    standardised_MN = np.divide(margins_MN, scale_M1, out=np.zeros_like(margins_MN), where=scale_M1 > 0)
    spread_N: Floats = standardised_MN.std(axis=0)
    return spread_N
