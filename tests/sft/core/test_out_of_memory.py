import pytest
import torch

from sft.core.errors import RLHFError
from sft.core.out_of_memory import OutOfMemory, memory_errors


def fail(error: Exception) -> None:
    with memory_errors("buy more"):
        raise error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), "out of memory; buy more"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried\nMore."),
            "out of memory (CUDA out of memory. Tried); buy more",
        ),
        (RuntimeError("CUDA error: out of memory"), "out of memory (CUDA error: out of memory); buy more"),
    ],
)
def test_memory_that_runs_out_is_told_with_a_remedy(error: Exception, told: str):
    with pytest.raises(OutOfMemory) as found:
        fail(error)
    assert str(found.value) == told
    assert found.value.exit_code == 1
    assert found.value.__cause__ is error


def test_what_torch_really_says_is_understood():
    with pytest.raises(OutOfMemory, match="can't allocate memory"), memory_errors("buy more"):
        torch.empty(2**58)


@pytest.mark.parametrize("error", [RuntimeError("shapes do not fit"), RLHFError("broken row")])
def test_other_errors_stay_as_they_are(error: Exception):
    with pytest.raises(type(error)) as found:
        fail(error)
    assert found.value is error
