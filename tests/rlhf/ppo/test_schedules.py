import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.ppo.schedules import learning_rate_factor
from sft.config import Schedule


def factors(iterations: int, kind: Schedule, warmup: int) -> list[float]:
    return [learning_rate_factor(i, iterations, kind=kind, warmup_iterations=warmup) for i in range(iterations)]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Schedule.LINEAR, [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        (Schedule.COSINE, [0.5, 1.0, 1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]),
        (Schedule.CONSTANT, [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_by_hand(kind: Schedule, expected: list[float]):
    """Six iterations, the first two rise; the rest falls in quarters, or in steps of 45 degrees."""
    assert factors(6, kind, 2) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("iterations", [1, 3, 40, 60])
def test_linear_without_warmup_is_what_is_left_of_the_run(iterations: int):
    assert factors(iterations, Schedule.LINEAR, 0) == [1 - i / iterations for i in range(iterations)]


@pytest.mark.parametrize("kind", list(Schedule))
def test_a_warmup_as_long_as_the_run_only_rises(kind: Schedule):
    assert factors(4, kind, 4) == [0.25, 0.5, 0.75, 1.0]
    assert factors(2, kind, 4) == [0.25, 0.5]


@given(st.data(), st.sampled_from(Schedule), st.integers(1, 10**6))
def test_above_0_and_at_most_1_and_never_rising_after_the_warmup(data: st.DataObject, kind: Schedule, iterations: int):
    warmup = data.draw(st.integers(0, iterations))
    iteration = data.draw(st.integers(0, iterations - 1))
    factor = learning_rate_factor(iteration, iterations, kind=kind, warmup_iterations=warmup)
    assert 0 < factor <= 1
    if iteration > 0:
        before = learning_rate_factor(iteration - 1, iterations, kind=kind, warmup_iterations=warmup)
        assert factor > before if iteration < warmup else factor <= before


@pytest.mark.parametrize("iteration", [-1, 5])
def test_outside_the_run_is_a_mistake_of_ours(iteration: int):
    with pytest.raises(AssertionError, match=f"iteration {iteration} of 5"):
        learning_rate_factor(iteration, 5, kind=Schedule.LINEAR, warmup_iterations=0)
