"""Policy against SFT model on held-out prompts, and what the policy forgot.

Letters: N answers (several per prompt), B batch, R response tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from reward.model import RewardModel
from rlhf.config import EvaluationConfig
from sft.config import RuntimeConfig
from sft.core.durable import text_digest
from sft.core.generation import Answer, SamplingSettings, pad_left, pad_right, sample_answers
from sft.core.likelihood import token_statistics
from sft.core.measures import repetition, wins
from sft.core.statistics import Estimate, bootstrap, clustered_mean
from sft.core.text import Conversation, TokenLimits, encode_answer, encode_prompt, inner_control_ids, prompt_key
from sft.core.tracking import Tracker
from sft.data import Example
from sft.model import load_causal_lm, load_tokenizer, torch_device

Floats = npt.NDArray[np.float64]
Judge = Callable[[Sequence[tuple[Conversation, str]]], Floats]
"""Scores prompts with answers; higher is better."""
BATCH_SIZE = 64
PROMPT_DIGEST_LENGTH = 16
"""Hex digits; two of a million prompts share them with a probability of 3e-8."""


@dataclass(frozen=True)
class EvaluationResult:
    """Named estimates, rows for the table of samples, and the scores of every answer."""

    estimates: dict[str, Estimate]
    samples: list[dict[str, object]]
    prompts: list[str]
    """Length N: a digest of each answer's prompt; the same prompt has the same digest in every run."""
    rewards: dict[str, list[float]]
    """`sft` and `policy`, length N each: proxy rewards."""
    judged: dict[str, list[float]]
    """`sft` and `policy`, length N each: the judge's scores, by which policies of different runs can be compared."""


class _Side(NamedTuple):
    """One model's answers to the same prompts."""

    answers: list[Answer]
    pairs: list[tuple[Conversation, str]]
    rows: list[tuple[Conversation, tuple[int, ...]]]
    proxy_N: Floats
    judged_N: Floats


class SequenceLikelihoods(NamedTuple):
    """Summed log-probability and number of tokens of each answer, EOS included where the answer ended."""

    logprob_N: Floats
    tokens_N: Floats


@torch.no_grad()
def sequence_likelihoods(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    rows: Sequence[tuple[Conversation, Sequence[int]]],
    limits: TokenLimits,
    *,
    temperature: float = 1.0,
) -> SequenceLikelihoods:
    """Return log p(answer | prompt) under a model.

    Args:
        model: causal language model in evaluation mode.
        tokenizer: the model's own.
        rows: prompts with the ids of their answers, exactly as sampled or encoded; one id or more each.
        limits: longest prompt in tokens; of a longer one the last tokens count.
        temperature: divides the logits; that of sampling where the sampled distribution is meant.
    """
    logprobs: list[float] = []
    tokens: list[int] = []
    for start in range(0, len(rows), BATCH_SIZE):
        chunk = rows[start : start + BATCH_SIZE]
        prompt_ids = [encode_prompt(tokenizer, prompt, max_tokens=limits.prompt) for prompt, _ in chunk]
        responses = pad_right([ids for _, ids in chunk], tokenizer.pad_token_id, model.device)
        prompts = pad_left(prompt_ids, tokenizer.pad_token_id, model.device)
        logprobs_BR = token_statistics(model, prompts, responses, temperature=temperature).logprobs_BR
        logprobs += torch.where(responses.mask_BR, logprobs_BR, 0.0).sum(dim=1).tolist()
        tokens += responses.mask_BR.sum(dim=1).tolist()
    return SequenceLikelihoods(np.array(logprobs), np.array(tokens, dtype=np.float64))


def perplexity(likelihoods: SequenceLikelihoods, clusters: Sequence[str], *, seed: int) -> Estimate:
    """Return exp of the mean negative log-likelihood per token, resampled by cluster."""
    return bootstrap(
        lambda rows: float(np.exp(-likelihoods.logprob_N[rows].sum() / likelihoods.tokens_N[rows].sum())),
        clusters,
        seed=seed,
    )


def evaluate_policy(
    config: EvaluationConfig,
    *,
    policy: Path,
    sft: Path,
    reward: Path,
    judge: Judge,
    prompts: Sequence[Conversation],
    held_out: Sequence[Example],
    limits: TokenLimits,
    temperature: float,
    runtime: RuntimeConfig,
    seed: int,
    tracker: Tracker,
    gold: Judge | None = None,
) -> EvaluationResult:
    """Let both models answer held-out prompts and compare.

    Args:
        config: numbers of prompts, answers and table rows.
        policy: folder of the trained policy.
        sft: folder of the model it started from, its opponent and reference.
        reward: folder of the reward model that PPO used; its scores are the proxy reward.
        judge: decides who wins: the gold utility, or a reward model that PPO never saw.
        prompts: held-out prompts; the first `config.prompts` are used.
        held_out: held-out demonstrations, whose perplexity shows forgetting.
        limits: longest prompt and answer in tokens.
        temperature: of sampling, as in PPO.
        runtime: device, dtype, threads.
        seed: of sampling and resampling.
        tracker: where the numbers go.
        gold: true utility for the table of samples, where known.
    """
    torch.set_num_threads(runtime.threads)
    device = torch_device(runtime)
    tokenizer = load_tokenizer(policy)
    scorer = RewardModel.load(reward, device=device, dtype=runtime.dtype, max_prompt_tokens=limits.prompt)
    asked = [prompt for prompt in prompts[: config.prompts] for _ in range(config.answers_per_prompt)]
    clusters = [prompt_key(prompt) for prompt in asked]
    held_out_rows = [(example.prompt, encode_answer(tokenizer, example.answer)) for example in held_out]
    held_out_clusters = [prompt_key(example.prompt) for example in held_out]
    tracker.start(4, "measurement")

    models = {
        "sft": load_causal_lm(sft, device=device, dtype=runtime.dtype),
        "policy": load_causal_lm(policy, device=device, dtype=runtime.dtype),
    }
    sides, estimates = {}, {}
    for number, (name, model) in enumerate(models.items()):
        settings = SamplingSettings(limits.prompt, limits.answer, temperature, BATCH_SIZE, seed, f"evaluation-{name}")
        answers = sample_answers(model, tokenizer, asked, settings)
        pairs = [(prompt, answer.text) for prompt, answer in zip(asked, answers, strict=True)]
        rows = [(prompt, answer.token_ids) for prompt, answer in zip(asked, answers, strict=True)]
        scored = [(prompt, _scored_ids(tokenizer, answer)) for prompt, answer in zip(asked, answers, strict=True)]
        sides[name] = _Side(answers, pairs, rows, scorer.score_ids(scored), judge(pairs))
        likelihoods = sequence_likelihoods(model, tokenizer, held_out_rows, limits)
        estimates[f"{name}_perplexity"] = perplexity(likelihoods, held_out_clusters, seed=seed)
        tracker.log(number + 1, {})
    own, other = sides["policy"], sides["sft"]

    def mean(values: Floats | Sequence[float]) -> Estimate:
        return clustered_mean(values, clusters, seed=seed)

    estimates["win_rate"] = mean(wins(own.judged_N, other.judged_N))
    estimates["proxy_win_rate"] = mean(wins(own.proxy_N, other.proxy_N))
    estimates["proxy_reward_gain"] = mean(own.proxy_N - other.proxy_N)
    under = {
        name: sequence_likelihoods(model, tokenizer, own.rows, limits, temperature=temperature).logprob_N
        for name, model in models.items()
    }
    estimates["kl"] = mean(under["policy"] - under["sft"])
    tracker.log(3, {})
    for name, side in sides.items():
        estimates[f"{name}_length"] = mean([float(len(answer.token_ids)) for answer in side.answers])
        estimates[f"{name}_repetition"] = mean([repetition(answer.text) for answer in side.answers])
        estimates[f"{name}_ended"] = mean([float(answer.ended) for answer in side.answers])
        if gold is not None:
            estimates[f"{name}_gold"] = mean(gold(side.pairs))
    tracker.log(4, {f"eval/{name}": estimate.value for name, estimate in estimates.items()})
    samples = _samples(own, other, config.sample_table, config.answers_per_prompt, gold)
    return EvaluationResult(
        estimates,
        samples,
        [text_digest(cluster)[:PROMPT_DIGEST_LENGTH] for cluster in clusters],
        {"sft": other.proxy_N.tolist(), "policy": own.proxy_N.tolist()},
        {"sft": other.judged_N.tolist(), "policy": own.judged_N.tolist()},
    )


def _scored_ids(tokenizer: PreTrainedTokenizerFast, answer: Answer) -> Sequence[int]:
    """Return what the reward model reads: the sampled ids and an EOS, or those of the text, as in PPO."""
    if not inner_control_ids(tokenizer).isdisjoint(answer.token_ids):
        return encode_answer(tokenizer, answer.text)
    return answer.token_ids if answer.ended else (*answer.token_ids, tokenizer.eos_token_id)


def _samples(
    own: _Side, other: _Side, count: int, answers_per_prompt: int, gold: Judge | None
) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for i in range(0, min(len(own.pairs), count * answers_per_prompt), answers_per_prompt):
        prompt, answer = own.pairs[i]
        won = wins(own.judged_N[i : i + 1], other.judged_N[i : i + 1])[0]
        rows.append(
            {
                "prompt": "\n".join(f"{message.role}: {message.content}" for message in prompt),
                "sft": other.pairs[i][1],
                "policy": answer,
                "sft_reward": float(other.proxy_N[i]),
                "policy_reward": float(own.proxy_N[i]),
                "sft_gold": float(gold([other.pairs[i]])[0]) if gold else None,
                "policy_gold": float(gold([own.pairs[i]])[0]) if gold else None,
                "winner": {1.0: "policy", 0.5: "tie", 0.0: "sft"}[float(won)],
            }
        )
    return rows
