"""The random number generators of this process, as checkpoints hold them: Python's, NumPy's and torch's own ones."""

import random
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

_TORCH, _PYTHON, _NUMPY = "torch", "python", "numpy"
_GPU = "cuda"


class RandomState(NamedTuple):
    """Where the generators stand: their numbers as `tensors`, what else they hold as JSON in `plain`."""

    tensors: dict[str, torch.Tensor]
    plain: dict[str, object]


def random_state(device: torch.device) -> RandomState:
    """Return where the generators of this process and of the device that models run on stand."""
    version, numbers, gauss = random.getstate()
    kind, keys, *rest = np.random.get_state(legacy=True)
    tensors = {
        _TORCH: torch.get_rng_state(),
        _PYTHON: torch.tensor(numbers),
        _NUMPY: torch.from_numpy(np.asarray(keys, dtype=np.int64)),
    }
    if device.type == _GPU:
        tensors[_GPU] = torch.cuda.get_rng_state(device)
    return RandomState(tensors, {_PYTHON: [version, gauss], _NUMPY: [str(kind), *rest]})


def set_random_state(state: RandomState, device: torch.device) -> None:
    """Put the generators where they stood."""
    plain: Mapping[str, Any] = state.plain
    version, gauss = plain[_PYTHON]
    random.setstate((version, tuple(state.tensors[_PYTHON].tolist()), gauss))
    kind, *rest = plain[_NUMPY]
    np.random.set_state((kind, state.tensors[_NUMPY].numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state.tensors[_TORCH])
    if device.type == _GPU and _GPU in state.tensors:  # absent where resume.allow accepts another device
        torch.cuda.set_rng_state(state.tensors[_GPU], device)
