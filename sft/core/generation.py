"""Sampling answers whose randomness is a pure function of (seed, stream, iteration, row, position).

Each row has its own uniforms, drawn before sampling; a token is the inverse CDF of its uniform. So an answer does not
depend on the batch that it was sampled in, apart from rounding at the edge of a CDF step.

Letters: B batch, P prompt tokens (padded on the left), R response tokens (padded on the right), V vocabulary.
"""

import zlib
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft.core.kv_cache import RoomyCache
from sft.core.text import Conversation, decode_answer, encode_prompt

KEEP_FRACTION = 0.875
"""Rows that have ended leave the batch once no more than this share is left; each time costs a copy of the cache."""


Rows = torch.Tensor | slice | list[int]


class Prompts(NamedTuple):
    """Prompt ids padded on the left; the mask is True where a token counts."""

    ids_BP: torch.Tensor
    mask_BP: torch.Tensor

    def rows(self, some: Rows) -> "Prompts":
        """Return the given rows."""
        return Prompts(*(x[some] for x in self))


class Responses(NamedTuple):
    """Response ids up to and including the EOS, then pad; the mask is True where a token counts."""

    ids_BR: torch.Tensor
    mask_BR: torch.Tensor

    def rows(self, some: Rows) -> "Responses":
        """Return the given rows."""
        return Responses(*(x[some] for x in self))

    def ended(self, eos_id: int) -> torch.Tensor:
        """Return which responses hold the EOS, shape (B,)."""
        return ((self.ids_BR == eos_id) & self.mask_BR).any(dim=1)

    def holds(self, ids: Collection[int]) -> torch.Tensor:
        """Return which responses hold one of these ids, shape (B,)."""
        wanted = torch.tensor(sorted(ids), dtype=self.ids_BR.dtype, device=self.ids_BR.device)
        return (torch.isin(self.ids_BR, wanted) & self.mask_BR).any(dim=1)


def token_counts(prompts: Prompts, responses: Responses) -> torch.Tensor:
    """Return the tokens of each prompt with its response, shape (B,)."""
    return prompts.mask_BP.sum(dim=1) + responses.mask_BR.sum(dim=1)


class Answer(NamedTuple):
    """A sampled answer: its text, its token ids with the EOS where it has one, and whether it ended by itself."""

    text: str
    token_ids: tuple[int, ...]
    ended: bool


def draw_uniforms(*, seed: int, stream: str, iteration: int, rows: Sequence[int], length: int) -> torch.Tensor:
    """Return uniforms in [0, 1), shape (len(rows), length), that depend on nothing but the arguments.

    `stream` keeps uses apart, e.g. "rollout" and "evaluation".
    """
    key = zlib.crc32(stream.encode())
    drawn = [np.random.default_rng((seed, key, iteration, row)).random(length) for row in rows]
    return torch.from_numpy(np.stack(drawn)) if drawn else torch.empty(0, length, dtype=torch.float64)


def pad_left(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> Prompts:
    """Return prompts of different lengths as one batch, padded on the left."""
    width = max(len(row) for row in rows)
    ids = [[pad_id] * (width - len(row)) + list(row) for row in rows]
    mask = [[False] * (width - len(row)) + [True] * len(row) for row in rows]
    return Prompts(torch.tensor(ids, device=device), torch.tensor(mask, device=device))


def pad_right(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> Responses:
    """Return responses of different lengths as one batch, padded on the right."""
    width = max(len(row) for row in rows)
    ids = [list(row) + [pad_id] * (width - len(row)) for row in rows]
    mask = [[True] * len(row) + [False] * (width - len(row)) for row in rows]
    return Responses(torch.tensor(ids, device=device), torch.tensor(mask, device=device))


def with_eos(responses: Responses, eos_id: int, pad_id: int) -> Responses:
    """Return the responses with an EOS after those that were cut off, as a reward model saw every answer end."""
    ids_BR, mask_BR = responses
    ended_B = responses.ended(eos_id)
    length_B1 = mask_BR.sum(dim=1, keepdim=True)
    column = torch.arange(ids_BR.shape[1] + 1, device=ids_BR.device)
    added = (column == length_B1) & ~ended_B[:, None]
    ids = torch.nn.functional.pad(ids_BR, (0, 1), value=pad_id)
    mask = torch.nn.functional.pad(mask_BR, (0, 1), value=False)
    return Responses(torch.where(added, eos_id, ids), mask | added)


def position_ids(mask: torch.Tensor) -> torch.Tensor:
    """Return positions that start at 0 on the first token that counts, whatever the padding before it."""
    return (mask.long().cumsum(dim=1) - 1).clamp(min=0)


def choose_tokens(logits_BV: torch.Tensor, uniforms_B: torch.Tensor, *, temperature: float) -> torch.Tensor:
    """Return for each row the token at which the cumulative softmax first exceeds the row's uniform."""
    probs_BV = torch.softmax(logits_BV.float() / temperature, dim=-1)
    cdf_BV = probs_BV.double().cumsum(dim=-1)
    target_B1 = uniforms_B[:, None] * cdf_BV[:, -1:]
    tokens_B = torch.searchsorted(cdf_BV, target_B1, right=True).squeeze(1)
    return tokens_B.clamp(max=logits_BV.shape[1] - 1)


@torch.no_grad()
@torch.compiler.set_stance("force_eager")  # type: ignore[untyped-decorator]  # shapes change with every token
def sample(
    model: PreTrainedModel,
    prompts: Prompts,
    uniforms_BR: torch.Tensor,
    *,
    temperature: float,
    eos_id: int,
    pad_id: int,
) -> Responses:
    """Sample one response per prompt from the full softmax, each at most R tokens long.

    Rows that have ended leave the batch, so that short responses cost little.

    Args:
        model: causal language model in evaluation mode.
        prompts: B prompts, padded on the left.
        uniforms_BR: one number in [0, 1) per token, see `draw_uniforms`.
        temperature: divides the logits; > 0.
        eos_id: token that ends a response; it stays in the response.
        pad_id: fills the rest; never equal to `eos_id`.

    Returns:
        Responses whose R is that of the longest one.
    """
    ids_BP, mask_BP = prompts
    batch, width = ids_BP.shape
    room = uniforms_BR.shape[1]
    uniforms_RB = uniforms_BR.to(ids_BP.device).T.contiguous()
    cache = RoomyCache(model.config, width + room)
    ids_BR = torch.full((batch, room), pad_id, device=ids_BP.device)
    length_B = torch.full((batch,), room, device=ids_BP.device)
    rows = torch.arange(batch, device=ids_BP.device)
    alive = torch.ones_like(rows, dtype=torch.bool)
    seen = torch.nn.functional.pad(mask_BP, (0, room), value=True)[:, None, None]
    step_ids, positions, mask = ids_BP, position_ids(mask_BP), prompt_mask(mask_BP)
    for t in range(room):
        logits = model(
            input_ids=step_ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        tokens = choose_tokens(logits, uniforms_RB[t, rows], temperature=temperature)
        ids_BR[rows, t] = torch.where(alive, tokens, pad_id)
        ended = alive & (tokens == eos_id)
        length_B[rows[ended]] = t + 1
        alive &= ~ended
        left = int(alive.sum())
        if left == 0:
            break
        positions = positions[:, -1:] + 1
        if left <= KEEP_FRACTION * len(rows):
            kept = alive.nonzero().squeeze(1)
            cache.keep(kept)
            rows, seen, positions, tokens, alive = (x[kept] for x in (rows, seen, positions, tokens, alive))
        step_ids, mask = tokens[:, None], seen[..., : width + t + 1]
    longest = int(length_B.max())
    column_R = torch.arange(longest, device=ids_BP.device)
    return Responses(ids_BR[:, :longest], column_R < length_B[:, None])


def prompt_mask(mask_BP: torch.Tensor) -> torch.Tensor:
    """Return which prompt tokens see which, shape (B, 1, P, P): none after itself, no padding but itself.

    Padding sees itself, because a softmax over nothing is not a number, and no weight, not even 0, undoes that.
    """
    width = mask_BP.shape[1]
    causal_PP = torch.ones(width, width, dtype=torch.bool, device=mask_BP.device).tril()
    itself_PP = torch.eye(width, dtype=torch.bool, device=mask_BP.device)
    return ((mask_BP[:, None, :] & causal_PP) | itself_PP)[:, None]


class SamplingSettings(NamedTuple):
    """How a list of prompts is answered."""

    max_prompt_tokens: int
    max_tokens: int
    temperature: float
    batch_size: int
    seed: int
    stream: str


def sample_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Conversation],
    settings: SamplingSettings,
    *,
    iteration: int = 0,
) -> list[Answer]:
    """Sample one answer to each prompt; the i-th prompt uses the uniforms of row i."""
    answers = []
    for start in range(0, len(prompts), settings.batch_size):
        chunk = prompts[start : start + settings.batch_size]
        ids = [encode_prompt(tokenizer, prompt, max_tokens=settings.max_prompt_tokens) for prompt in chunk]
        responses = sample(
            model,
            pad_left(ids, tokenizer.pad_token_id, model.device),
            draw_uniforms(
                seed=settings.seed,
                stream=settings.stream,
                iteration=iteration,
                rows=range(start, start + len(chunk)),
                length=settings.max_tokens,
            ),
            temperature=settings.temperature,
            eos_id=tokenizer.eos_token_id,
            pad_id=tokenizer.pad_token_id,
        )
        answers += read_answers(tokenizer, responses)
    return answers


def read_answers(tokenizer: PreTrainedTokenizerBase, responses: Responses) -> list[Answer]:
    """Turn a batch of responses into texts."""
    answers = []
    for ids_R, mask_R in zip(responses.ids_BR.tolist(), responses.mask_BR.tolist(), strict=True):
        ids = ids_R[: sum(mask_R)]
        answers.append(Answer(decode_answer(tokenizer, ids), tuple(ids), ids[-1] == tokenizer.eos_token_id))
    return answers
