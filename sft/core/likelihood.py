"""Log-probabilities of given responses.

Letters: B batch, P prompt tokens (padded on the left), R response tokens (padded on the right), V vocabulary.
"""

from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from sft.core.generation import Prompts, Responses, position_ids


class TokenStatistics(NamedTuple):
    """Per response token; whatever stands outside the response mask means nothing."""

    logprobs_BR: torch.Tensor
    entropy_BR: torch.Tensor


def joined(prompts: Prompts, responses: Responses) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and mask of prompt and response side by side, shape (B, P + R)."""
    return torch.cat([prompts.ids_BP, responses.ids_BR], dim=1), torch.cat([prompts.mask_BP, responses.mask_BR], dim=1)


def token_statistics(
    model: PreTrainedModel, prompts: Prompts, responses: Responses, *, temperature: float = 1.0
) -> TokenStatistics:
    """Return the log-probability of each response token and the entropy it was drawn from.

    The logits are divided by the temperature that the responses were sampled with, so that the scored distribution is
    the sampled one.
    """
    ids, mask = joined(prompts, responses)
    length = responses.ids_BR.shape[1]
    logits_BRV = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=position_ids(mask),
        use_cache=False,
        logits_to_keep=length + 1,
    ).logits[:, :-1]
    log_softmax_BRV = torch.log_softmax(logits_BRV.float() / temperature, dim=-1)
    logprobs_BR = log_softmax_BRV.gather(2, responses.ids_BR[:, :, None]).squeeze(2)
    with torch.no_grad():
        entropy_BR = -(log_softmax_BRV.exp() * log_softmax_BRV).sum(dim=-1)
    return TokenStatistics(logprobs_BR, entropy_BR)
