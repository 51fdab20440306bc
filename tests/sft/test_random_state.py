import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from sft.random_state import random_state, set_random_state

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def the_generators_of_before() -> Iterator[None]:
    before = random_state(CPU)
    yield
    set_random_state(before, CPU)


def draw() -> list[float]:
    return [random.random(), random.gauss(0, 1), np.random.random(), np.random.normal(), float(torch.rand(()))]


@pytest.mark.parametrize("drawn_before", [0, 1, 700])
def test_every_generator_draws_the_same_numbers_again(drawn_before: int):
    """One normal number more is kept by Python and by NumPy until it is asked for."""
    random.seed(drawn_before)
    np.random.seed(drawn_before)
    torch.manual_seed(drawn_before)
    for _ in range(drawn_before):
        draw()
    state = random_state(CPU)
    first = [draw() for _ in range(3)]
    set_random_state(state, CPU)
    assert [draw() for _ in range(3)] == first
    assert len({number for numbers in first for number in numbers}) == 15
