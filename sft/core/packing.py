"""Forward passes without padding: the tokens of all rows stand in one line, and attention stays within each row.

Everything in a decoder but attention works token by token, so padding can be left out of it altogether. transformers
lets a model use an attention function by name; ours is its `sdpa` with one more argument, the lengths of the rows.

Letters: B rows, P prompt tokens, R response tokens, N tokens of all rows, S states, H heads, T tokens of the longest
row.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from sft.core.generation import Prompts, Responses, position_ids
from sft.core.kv_cache import attention_dtype

NAME = "packed_sdpa"
LINE_MULTIPLE = 128
"""Lines are filled up to a multiple of this many tokens: oneDNN needs a kernel for every number of rows (3 ms and up to
5 MB each), and compiled code is compiled for each."""


class Packed(NamedTuple):
    """Prompts with their responses, without padding."""

    ids_1N: torch.Tensor
    positions_1N: torch.Tensor
    """Counted from 0 within each row."""
    lengths_N: torch.Tensor
    """Tokens of each row, which add up to N, then zeros; on the CPU. N of them, so that its shape tells nothing new."""
    states_BR1: torch.Tensor
    """Where in N the state after 0, 1, ... R response tokens stands; anything behind a row's last token."""
    multiple: int

    def filled(self, states_S: torch.Tensor) -> torch.Tensor:
        """Return numbers of states, followed by others that fill them up to a multiple as well."""
        filling = -len(states_S) % self.multiple
        others = torch.ones(self.ids_1N.shape[1], dtype=torch.bool, device=states_S.device)
        others[states_S] = False
        return torch.cat([states_S, others.nonzero().squeeze(1)[:filling]])


def pack(prompts: Prompts, responses: Responses, *, multiple: int = LINE_MULTIPLE) -> Packed:
    """Return the rows of a padded batch in one line. Every prompt needs one token or more.

    A row of token 0 fills the line up to a multiple of `multiple`.
    """
    mask_BT = torch.cat([prompts.mask_BP, responses.mask_BR], dim=1)
    ids_BT = torch.cat([prompts.ids_BP, responses.ids_BR], dim=1)
    positions_BT = position_ids(mask_BT)
    lengths_B = mask_BT.sum(dim=1)
    starts_B1 = (lengths_B.cumsum(dim=0) - lengths_B)[:, None]
    states_BR1 = (starts_B1 + positions_BT)[:, prompts.ids_BP.shape[1] - 1 :]
    lengths = lengths_B.tolist()
    filling = -sum(lengths) % multiple
    ids_N = torch.nn.functional.pad(ids_BT[mask_BT], (0, filling))
    positions_N = torch.cat([positions_BT[mask_BT], torch.arange(filling, device=ids_BT.device)])
    lengths_N = torch.zeros(len(ids_N), dtype=torch.long)
    lengths_N[: len(lengths) + 1] = torch.tensor([*lengths, filling])[: len(ids_N)]
    return Packed(ids_N[None], positions_N[None], lengths_N, states_BR1, multiple)


def fill_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Return row numbers in batches of at most `max_tokens` tokens, rows of like length together.

    Batches are about equally full, since a small one wastes a pass. A row that is longer than that is a batch of its
    own.
    """
    fair = -(-sum(lengths) // max(1, -(-sum(lengths) // max_tokens)))
    batches: list[list[int]] = []
    filled = 0
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        if not batches or filled >= fair or filled + lengths[row] > max_tokens:
            batches.append([])
            filled = 0
        batches[-1].append(row)
        filled += lengths[row]
    return batches


def use_packed_attention(model: PreTrainedModel) -> PreTrainedModel:
    """Let a model take packed rows; batches with a mask work as before."""
    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
    last = decoder_layers(model)[-1]
    feed_forward = dict(last.named_children()).get("mlp")
    if feed_forward is not None:
        _NeededStates().attach(last, feed_forward)
    return model


def decoder_layers(model: PreTrainedModel) -> torch.nn.ModuleList:
    """Return the layers of a decoder, in order."""
    return next(part for part in model.base_model.modules() if isinstance(part, torch.nn.ModuleList))


class _NeededStates:
    """Lets the last layer's feed-forward part, most of its work, see only the states that somebody will read.

    Nothing comes after it that mixes tokens, so the states that are left out change no other. In the others the
    layer's output is that of its attention alone.
    """

    def __init__(self) -> None:
        self.needed: torch.Tensor | None = None
        self.length = 0

    def attach(self, layer: torch.nn.Module, feed_forward: torch.nn.Module) -> None:
        """Hook into the layer, which says what is needed, and its feed-forward part."""
        layer.register_forward_pre_hook(self._remember, with_kwargs=True)
        feed_forward.register_forward_pre_hook(self._select)
        feed_forward.register_forward_hook(self._put_back)

    def _remember(self, layer: torch.nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        self.needed = options.get("needed_states")
        self.length = inputs[0].shape[1]

    def _select(self, part: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return inputs if self.needed is None else (inputs[0][:, self.needed], *inputs[1:])

    def _put_back(
        self, part: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> torch.Tensor | None:
        if self.needed is None:
            return None
        return output.new_zeros(1, self.length, output.shape[2]).index_copy(1, self.needed, output)


def packed_inputs(model: PreTrainedModel, packed: Packed, needed_S: torch.Tensor | None = None) -> dict[str, object]:
    """Return the arguments with which a decoder reads packed rows.

    The four-dimensional mask is never looked at: it keeps transformers from building one over all N x N tokens.
    `needed_S` numbers the states in N that the caller will read, each once; None: all of them.
    """
    assert model.config._attn_implementation == NAME, "call use_packed_attention(model) after loading"
    return {
        "input_ids": packed.ids_1N,
        "position_ids": packed.positions_1N,
        "attention_mask": packed.ids_1N.new_zeros(1, 1, 1, 1),
        "use_cache": False,
        "row_lengths": packed.lengths_N,
        "needed_states": needed_S,
    }


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    row_lengths: torch.Tensor | None = None,
    sliding_window: int | None = None,
    **others: object,
) -> tuple[torch.Tensor, None]:
    """Attend within rows of the given lengths, or as `sdpa` does where there are none.

    Shapes as in transformers: query (1, H, N, D), key and value (1, H of keys, N, D), output (1, N, H, D).

    Raises:
        ValueError: a row is longer than a sliding window of the model; packing would ignore the window.
    """
    given = query.dtype
    query, key, value = (x.to(attention_dtype(x)) for x in (query, key, value))
    if row_lengths is not None:
        scale = query.shape[3] ** -0.5 if scaling is None else scaling
        window = 0 if sliding_window is None else sliding_window
        attended = attend_within_rows(query, key, value, row_lengths, scale, window).transpose(1, 2)
    elif query.shape[2] == 1 and query.device.type == "cpu" and attention_mask is not None:
        attended = _one_query(query, key, value, attention_mask, scaling)
    else:
        others |= {} if sliding_window is None else {"sliding_window": sliding_window}
        attended, _ = sdpa_attention_forward(
            module,
            query,
            key,
            value,
            attention_mask,
            scaling=scaling,
            **others,  # type: ignore[arg-type]
        )
    return attended.to(given), None


@torch.compiler.disable  # type: ignore[untyped-decorator]  # lengths differ in every batch
@torch.autocast("cpu", enabled=False)  # type: ignore[untyped-decorator]
def attend_within_rows(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths_N: torch.Tensor, scale: float, window: int
) -> torch.Tensor:
    """Return causal attention of shape (1, H, N, D); `window` is the model's sliding window, 0: none."""
    lengths = lengths_N[lengths_N > 0].tolist()
    if 0 < window < max(lengths):
        raise ValueError(
            f"a prompt with its answer has {max(lengths)} tokens and the model's sliding window {window}; "
            "lower data.max_prompt_tokens or ppo.response_length"
        )
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    return (_row_by_row if query.device.type == "cpu" else _padded)(query, key, value, lengths, scale)


@torch.autocast("cpu", enabled=False)  # type: ignore[untyped-decorator]
def _one_query(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    """Return attention of one query a row, as in sampling: on a CPU, two products beat the kernel of `sdpa` by half.

    The queries of a group share their keys, so they stand side by side, shape (B, H of keys, groups, D).
    """
    batch, heads, _, size = query.shape
    grouped = query.view(batch, key.shape[1], -1, size) * (size**-0.5 if scaling is None else scaling)
    scores = grouped @ key.transpose(2, 3)
    allowed = mask if mask.dtype == torch.bool else mask == 0
    weights = scores.masked_fill_(~allowed, -torch.inf).softmax(dim=-1)
    return (weights @ value).view(batch, 1, heads, size)


def _row_by_row(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: list[int], scale: float
) -> torch.Tensor:
    """Return one attention per row, or for all neighbours of one length: nothing is padded.

    A row's bits do not depend on its companions.
    """
    runs = [(length, len(list(same))) for length, same in groupby(lengths)]
    sizes = [length * rows for length, rows in runs]

    def stacked(x: torch.Tensor) -> list[torch.Tensor]:
        parts = zip(x.squeeze(0).split(sizes, 1), runs, strict=True)  # x[0] would cost zeros in the backward pass
        return [part.unflatten(1, (rows, length)).transpose(0, 1) for part, (length, rows) in parts]

    attended = [
        scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale).transpose(0, 1).flatten(1, 2)
        for q, k, v in zip(stacked(query), stacked(key), stacked(value), strict=True)
    ]
    return torch.cat(attended, dim=1)[None]


def _padded(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: list[int], scale: float
) -> torch.Tensor:
    """Return one attention over rows that are padded on the right for it alone: one kernel, for accelerators."""
    longest = max(lengths)
    lengths_B1 = torch.tensor(lengths, device=query.device)[:, None]
    column_T = torch.arange(longest, device=query.device)
    counts_BT = column_T < lengths_B1
    source_BT = torch.where(counts_BT, lengths_B1.cumsum(dim=0) - lengths_B1 + column_T, 0)

    def pad(x: torch.Tensor) -> torch.Tensor:
        return x[0][:, source_BT].transpose(0, 1)

    attended_BHTD = scaled_dot_product_attention(pad(query), pad(key), pad(value), is_causal=True, scale=scale)
    return attended_BHTD.transpose(1, 2)[counts_BT].transpose(0, 1)[None]
