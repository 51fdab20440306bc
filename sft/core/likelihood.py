"""Log-probabilities of given responses.

Letters: B batch, P prompt tokens (padded on the left), R response tokens (padded on the right), S response tokens of
all rows in one line, F the same with what fills them up, V vocabulary.
"""

from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel

from sft.core.generation import Prompts, Responses
from sft.core.packing import Packed, pack, packed_inputs

CHUNK_NUMBERS = 1 << 18
"""Logits that are looked at together: few enough to stay in a processor's cache."""


class TokenStatistics(NamedTuple):
    """Per response token, zero outside the response mask."""

    logprobs_BR: torch.Tensor
    entropy_BR: torch.Tensor
    """In nats, of the distribution that the token was drawn from."""


def token_statistics(
    model: PreTrainedModel, prompts: Prompts, responses: Responses, *, temperature: float = 1.0
) -> TokenStatistics:
    """Return the log-probability of each response token and the entropy it was drawn from.

    The logits are divided by the temperature that the responses were sampled with, so that the scored distribution is
    the sampled one. Padding takes no part in the forward pass, and logits exist for response tokens alone.
    """
    packed = pack(prompts, responses)
    states_F, tokens_F = choices(packed, responses)
    logits_FV = model(**packed_inputs(model, packed, states_F), logits_to_keep=states_F).logits.squeeze(0)
    logprobs_F, entropy_F = chosen_statistics(logits_FV, tokens_F, temperature)
    return TokenStatistics(spread(logprobs_F, responses.mask_BR), spread(entropy_F, responses.mask_BR))


def choices(packed: Packed, responses: Responses) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where the state before each response token stands, and the token, both of shape (F,)."""
    states_F = packed.filled(packed.states_BR1[:, :-1][responses.mask_BR])
    tokens_S = responses.ids_BR[responses.mask_BR]
    return states_F, torch.nn.functional.pad(tokens_S, (0, len(states_F) - len(tokens_S)))


def spread(values_S: torch.Tensor, mask_BR: torch.Tensor) -> torch.Tensor:
    """Return values, as many as are needed, in their places of a padded batch, zero elsewhere."""
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

    d log p / d z = onehot - p and d H / d z = -p (log p + H). The place of the logits holds first p, then the gradient.
    """

    @staticmethod
    def forward(ctx: Any, logits_SV: torch.Tensor, tokens_S: torch.Tensor, temperature: float) -> Any:
        parts = []
        rows = max(1, CHUNK_NUMBERS // logits_SV.shape[1])
        for logits, tokens in zip(logits_SV.split(rows), tokens_S.split(rows), strict=True):
            z = logits.float() if temperature == 1 else logits.float() / temperature
            log_p = torch.log_softmax(z, dim=-1)
            p = torch.exp(log_p)
            entropy = -(p[:, None] @ log_p[:, :, None]).flatten()
            parts.append((log_p.gather(1, tokens[:, None]).squeeze(1), entropy))
            if ctx.needs_input_grad[0]:
                logits.copy_(p)
        logprobs_S, entropy_S = map(torch.cat, zip(*parts, strict=True))
        ctx.save_for_backward(logits_SV, tokens_S, logprobs_S, entropy_S)
        ctx.temperature = temperature
        return logprobs_S, entropy_S

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        p_SV, tokens_S, logprobs_S, entropy_S = ctx.saved_tensors
        of_logprob_S, of_entropy_S = (gradient / ctx.temperature for gradient in gradients)
        with_entropy = bool(of_entropy_S.any())
        rows = max(1, CHUNK_NUMBERS // p_SV.shape[1])
        columns = ((-x[:, None]).split(rows) for x in (of_logprob_S + of_entropy_S * entropy_S, of_entropy_S))
        for stored, plain, of_entropy in zip(p_SV.split(rows), *columns, strict=True):
            p = stored.float()
            gradient = plain * p + of_entropy * torch.xlogy(p, p) if with_entropy else plain * p
            stored.copy_(gradient)
        of_token_S = -of_logprob_S * logprobs_S.expm1() - of_entropy_S * logprobs_S.exp() * (logprobs_S + entropy_S)
        p_SV.scatter_(1, tokens_S[:, None], of_token_S[:, None].to(p_SV.dtype))
        return p_SV, None, None
