"""Samples what the bias checks look at: answers of SFT model and policy to held-out and counterfactual prompts."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rlhf.bias import CounterfactualPrompt, GroupAnswers, SampledAnswers
from sft.config import RuntimeConfig
from sft.core.generation import SamplingSettings, sample_answers
from sft.core.text import Conversation, TokenLimits
from sft.model import load_causal_lm, load_tokenizer, torch_device

ANSWERS_PER_PROMPT = 4
BATCH_SIZE = 64


class BiasAnswers(NamedTuple):
    """What `run_checks` takes besides the probes."""

    sampled: list[SampledAnswers]
    by_group: list[GroupAnswers]


def sample_for_bias(
    *,
    policy: Path,
    sft: Path,
    prompts: Sequence[Conversation],
    requests: Sequence[CounterfactualPrompt],
    limits: TokenLimits,
    temperature: float,
    runtime: RuntimeConfig,
    seed: int,
) -> BiasAnswers:
    """Sample several SFT answers to each prompt, and of both models to each counterfactual request."""

    def answers(folder: Path, asked: Sequence[Conversation], stream: str) -> list[tuple[str, ...]]:
        model = load_causal_lm(folder, device=torch_device(runtime), dtype=runtime.dtype)
        repeated = [prompt for prompt in asked for _ in range(ANSWERS_PER_PROMPT)]
        settings = SamplingSettings(limits.prompt, limits.answer, temperature, BATCH_SIZE, seed, f"bias-{stream}")
        texts = [answer.text for answer in sample_answers(model, load_tokenizer(folder), repeated, settings)]
        return [tuple(texts[i : i + ANSWERS_PER_PROMPT]) for i in range(0, len(texts), ANSWERS_PER_PROMPT)]

    versions = [request.prompt for request in requests]
    sampled = [SampledAnswers(*row) for row in zip(prompts, answers(sft, prompts, "length"), strict=True)]
    rows = zip(requests, answers(policy, versions, "policy"), answers(sft, versions, "sft"), strict=True)
    return BiasAnswers(sampled, [GroupAnswers(*row) for row in rows])
