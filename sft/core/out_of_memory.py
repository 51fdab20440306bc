"""Memory that runs out, told as an error with a remedy."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sft.core.errors import RLHFError

_ON_CPU = "can't allocate memory"
"""What torch's allocator says on a CPU; there it raises a plain RuntimeError."""


class OutOfMemory(RLHFError):
    """Memory of the machine or the GPU did not suffice."""


@contextmanager
def memory_errors(remedy: str) -> Iterator[None]:
    """Turn memory that runs out inside the block into an OutOfMemory that says what to do."""
    try:
        yield
    except MemoryError as error:
        raise OutOfMemory(f"out of memory; {remedy}") from error
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and _ON_CPU not in str(error):
            raise
        first_line = str(error).strip().splitlines()[0]
        raise OutOfMemory(f"out of memory ({first_line}); {remedy}") from error
