"""Comparisons, and how they become token ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from sft.core.text import Conversation, TokenLimits, encode_answer, encode_prompt


@dataclass(frozen=True)
class Comparison:
    """A prompt and two answers, of which people prefer the first."""

    prompt: Conversation
    chosen: str
    rejected: str


class EncodedComparisons(NamedTuple):
    """Token ids of prompt + answer + EOS for both answers, and what did not fit."""

    rows: list[dict[str, list[int]]]
    kept: list[Comparison]
    prompts_shortened: int
    left_out: int


def encode_comparisons(
    tokenizer: PreTrainedTokenizerBase, comparisons: Sequence[Comparison], limits: TokenLimits
) -> EncodedComparisons:
    """Return the ids that `RewardTrainer` takes.

    Prompts longer than the limit keep their last tokens; comparisons with a longer answer are left out, since a cut
    answer has no EOS to read the score at. Both are counted.
    """
    rows, kept, shortened, left_out = [], [], 0, 0
    for comparison in comparisons:
        prompt_ids = encode_prompt(tokenizer, comparison.prompt)
        chosen_ids = encode_answer(tokenizer, comparison.chosen)
        rejected_ids = encode_answer(tokenizer, comparison.rejected)
        if max(len(chosen_ids), len(rejected_ids)) - 1 > limits.answer:
            left_out += 1
            continue
        shortened += len(prompt_ids) > limits.prompt
        prompt_ids = prompt_ids[-limits.prompt :]
        rows.append({"chosen_ids": prompt_ids + chosen_ids, "rejected_ids": prompt_ids + rejected_ids})
        kept.append(comparison)
    return EncodedComparisons(rows, kept, shortened, left_out)
