"""A key-value cache whose room is taken once and whose rows can be dropped.

Letters: B rows, H heads of keys, C columns of room, T tokens so far, Q new tokens, D head size.
"""

from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin


def attention_dtype(x: torch.Tensor) -> torch.dtype:
    """Return float32 for bfloat16 on a CPU, where products of ever new shapes cost oneDNN a kernel each."""
    return torch.float32 if x.device.type == "cpu" and x.dtype == torch.bfloat16 else x.dtype


class RoomyLayer(CacheLayerMixin):
    """One layer's keys and values, written in place; `DynamicLayer` copies everything at every token instead."""

    def __init__(self, columns: int) -> None:
        """Take no room yet: shapes are known with the first keys."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.columns = columns
        self.length = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Take room for keys of shape (B, H, C, D) and values of theirs."""
        dtype = attention_dtype(key_states)
        self.keys, self.values = (
            x.new_empty(*x.shape[:2], self.columns, x.shape[3], dtype=dtype) for x in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write Q new columns and return views of all T + Q."""
        if self.keys is None or self.values is None:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        end = self.length + key_states.shape[2]
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def keep(self, rows: torch.Tensor) -> None:
        """Move the given rows, ascending, to the front and forget the others; no new room is taken."""
        assert self.keys is not None
        assert self.values is not None
        for held in (self.keys, self.values):
            held[: len(rows), :, : self.length] = held[rows, :, : self.length]
        self.keys, self.values = self.keys[: len(rows)], self.values[: len(rows)]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many columns a mask covers, and where they start."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Return T."""
        return self.length

    def get_max_length(self) -> int:
        """Return C."""
        return self.columns


class RoomyCache(Cache):
    """A `RoomyLayer` for every layer of a model."""

    def __init__(self, config: PreTrainedConfig, columns: int) -> None:
        """Make room for `columns` tokens a row."""
        self.roomy = [RoomyLayer(columns) for _ in range(config.num_hidden_layers)]
        super().__init__(layers=list(self.roomy))

    def keep(self, rows: torch.Tensor) -> None:
        """Keep the given rows, ascending."""
        for layer in self.roomy:
            layer.keep(rows)
