"""Log-probabilities of given responses.

Letters: B batch, P prompt tokens (padded on the left), R response tokens (padded on the right), S response tokens of
all rows in one line, V vocabulary.
"""

from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel

from sft.core.generation import Prompts, Responses
from sft.core.packing import pack, packed_inputs

CHUNK_NUMBERS = 1 << 20
"""Logits that are looked at together: few enough to stay in a processor's cache."""


class TokenStatistics(NamedTuple):
    """Per response token, zero outside the response mask."""

    logprobs_BR: torch.Tensor
    entropy_BR: torch.Tensor
    """In nats, of the distribution that the token was drawn from."""


def token_statistics(
    model: PreTrainedModel, prompts: Prompts, responses: Responses, *, temperature: float = 1.0, multiple: int = 1
) -> TokenStatistics:
    """Return the log-probability of each response token and the entropy it was drawn from.

    The logits are divided by the temperature that the responses were sampled with, so that the scored distribution is
    the sampled one. Padding takes no part in the forward pass, and logits exist for response tokens alone. `multiple`
    fills the line of tokens up, see `pack`.
    """
    packed = pack(prompts, responses, multiple=multiple)
    mask_BR = responses.mask_BR
    states_S = packed.states_BR1[:, :-1][mask_BR]
    needed_S = states_S if multiple == 1 else None  # compiled code would meet a new shape each time
    logits_SV = model(**packed_inputs(model, packed, needed_S), logits_to_keep=states_S).logits[0]
    logprobs_S, entropy_S = chosen_statistics(logits_SV, responses.ids_BR[mask_BR], temperature)
    return TokenStatistics(spread(logprobs_S, mask_BR), spread(entropy_S, mask_BR))


def spread(values_S: torch.Tensor, mask_BR: torch.Tensor) -> torch.Tensor:
    """Return values in their places of a padded batch, zero elsewhere."""
    zeros_BR = torch.zeros(mask_BR.shape, dtype=values_S.dtype, device=values_S.device)
    return zeros_BR.masked_scatter(mask_BR, values_S)


def chosen_statistics(
    logits_SV: torch.Tensor, tokens_S: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log-probability of the chosen tokens and entropy of softmax(logits / temperature), in float32.

    The logits are used up: their gradient takes their place in memory, so that S x V numbers exist once.
    """
    logprobs_S, entropy_S = _ChosenStatistics.apply(logits_SV, tokens_S, temperature)  # type: ignore[no-untyped-call]
    return logprobs_S, entropy_S


class _ChosenStatistics(torch.autograd.Function):
    """log p = z_token - logsumexp z and H = -sum p log p, with z = logits / temperature.

    d log p / d z = onehot - p and d H / d z = -p (log p + H).
    """

    @staticmethod
    def forward(ctx: Any, logits_SV: torch.Tensor, tokens_S: torch.Tensor, temperature: float) -> Any:
        parts = []
        rows = max(1, CHUNK_NUMBERS // logits_SV.shape[1])
        for logits, tokens in zip(logits_SV.split(rows), tokens_S.split(rows), strict=True):
            log_p = torch.log_softmax(logits.float() / temperature, dim=-1)
            entropy = -(log_p.exp() * log_p).sum(dim=-1)
            parts.append((log_p.gather(1, tokens[:, None]).squeeze(1), entropy))
        logprobs_S, entropy_S = map(torch.cat, zip(*parts, strict=True))
        ctx.save_for_backward(logits_SV, tokens_S, entropy_S)
        ctx.temperature = temperature
        return logprobs_S, entropy_S

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        logits_SV, tokens_S, entropy_S = ctx.saved_tensors
        rows = max(1, CHUNK_NUMBERS // logits_SV.shape[1])
        parts = zip(*(x.split(rows) for x in (logits_SV, tokens_S, entropy_S, gradients[0], gradients[1])), strict=True)
        for logits, tokens, entropy, of_logprob, of_entropy in parts:
            log_p = torch.log_softmax(logits.float() / ctx.temperature, dim=-1)
            gradient = log_p.exp()
            if of_entropy.any():
                gradient *= -(of_logprob[:, None] + of_entropy[:, None] * (log_p + entropy[:, None]))
            else:
                gradient *= -of_logprob[:, None]
            gradient.scatter_add_(1, tokens[:, None], of_logprob[:, None])
            logits.copy_(gradient.div_(ctx.temperature))
        return logits_SV, None, None
