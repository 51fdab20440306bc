"""Memory that runs out, told as an error with a remedy. Imports no torch."""

from collections.abc import Iterator
from contextlib import contextmanager

from sft.core.errors import RLHFError

_SAID = ("can't allocate memory", "out of memory")
"""What torch's allocators say in their RuntimeErrors: that of a CPU, those of GPUs."""


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
        if not any(said in str(error) for said in _SAID):
            raise
        first_line = str(error).strip().splitlines()[0]
        raise OutOfMemory(f"out of memory ({first_line}); {remedy}") from error
