"""What both sides measure with: a clock that waits for the device, memory, and a count of optimiser steps."""

import resource
import time
from collections import Counter

import torch
import transformers
from torch._dynamo.utils import counters
from torch.optim.optimizer import register_optimizer_step_post_hook


def now(device: torch.device) -> float:
    """Return seconds, once the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak_mib(device: torch.device) -> float:
    """Return the peak memory so far: allocated on the GPU, or resident in this process (children do not count)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def compiled_graphs() -> int:
    """Return how many graphs torch.compile has built in this process."""
    return counters["stats"]["unique_graphs"]


def versions() -> str:
    """Return the versions that decide speed."""
    return f"torch {torch.__version__}, transformers {transformers.__version__}"


def device_name(device: torch.device) -> str:
    """Return the name of the device, with the thread count of a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


class StepCounter:
    """Counts the steps that optimisers really take: a wrapper may swallow some."""

    def __init__(self) -> None:
        self._steps: Counter[int] = Counter()
        register_optimizer_step_post_hook(self._count)

    def _count(self, optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        self._steps[id(optimizer)] += 1

    @property
    def most(self) -> int:
        """Steps of the busiest optimiser."""
        return max(self._steps.values(), default=0)
