import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.ppo.scores import RunningMoments, adjust


def after(*batches: list[float]) -> RunningMoments:
    moments = RunningMoments()
    for batch in batches:
        moments = moments.updated(torch.tensor(batch))
    return moments


def test_moments_by_hand():
    """Of 1, 3 and 8: mean 4, squared deviations 9 + 1 + 16."""
    moments = after([1.0, 3.0], [8.0])
    assert moments == pytest.approx((3, 4.0, 26.0))
    assert moments.std == pytest.approx(math.sqrt(26 / 3))


@pytest.mark.parametrize("sizes", [[300], [1] * 300, [1, 299], [128, 128, 44], [0, 150, 0, 150]])
def test_parts_give_what_numpy_gives_for_all(sizes: list[int]):
    values = np.random.default_rng(0).normal(3.0, 2.0, 300)
    moments = RunningMoments()
    for part in torch.from_numpy(values).split(sizes):
        moments = moments.updated(part)
    assert moments.n == 300
    assert moments.mean == pytest.approx(values.mean(), abs=1e-12)
    assert moments.m2 / moments.n == pytest.approx(values.var(), abs=1e-12)
    assert moments.std == pytest.approx(values.std(), abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=30), st.data())
def test_any_division_into_parts_gives_the_same(values: list[float], data: st.DataObject):
    cut = data.draw(st.integers(0, len(values)))
    assert after(values[:cut], values[cut:]) == pytest.approx(after(values), rel=1e-9, abs=1e-6)


def test_a_far_mean_takes_no_digits_from_the_spread():
    """The sum of squares minus the square of the sum would leave no digit of it."""
    values = 1e8 + np.random.default_rng(0).normal(size=100)
    moments = RunningMoments().updated(torch.from_numpy(values[:30])).updated(torch.from_numpy(values[30:]))
    assert moments.m2 / 100 == pytest.approx(values.var(), rel=1e-6)


def test_no_scores_change_nothing():
    moments = after([1.0, 2.0])
    assert moments.updated(torch.tensor([])) == moments
    assert after([]) == RunningMoments()


@pytest.mark.parametrize("batches", [[], [[5.0]], [[0.1] * 7], [[0.1] * 7, [0.1] * 4], [[0.0, 0.0]]])
def test_no_spread_counts_as_one(batches: list[list[float]]):
    assert after(*batches).std == 1.0


def test_the_last_bit_of_a_float_is_no_spread():
    """A constant score differs by rounding from batch to batch, which must not become a reward of +-1."""
    score = torch.tensor([3.0])
    moments = RunningMoments().updated(torch.cat([score, torch.nextafter(score, score + 1)]))
    assert moments.m2 > 0
    assert moments.std == 1.0
    assert after([3.0, 3.0001]).std == pytest.approx(0.00005, rel=1e-2)


def test_the_state_survives_json_to_the_bit():
    moments = after(np.random.default_rng(0).normal(size=11).tolist())
    assert all(type(x) in (int, float) for x in moments)
    assert RunningMoments(*json.loads(json.dumps(moments))) == moments


def test_normalised_scores_of_all_have_mean_zero_and_unit_spread():
    scores = torch.tensor([4.0, 6.0, 11.0])
    adjusted = adjust(scores, after(scores.tolist()), normalize=True, clip=None)
    assert adjusted.tolist() == pytest.approx(((np.array([4, 6, 11]) - 7) / np.std([4, 6, 11])).tolist())
    assert adjusted.dtype == scores.dtype


def test_a_constant_is_normalised_to_zero():
    scores = torch.full((5,), 0.1)
    assert adjust(scores, after(scores.tolist()), normalize=True, clip=None).tolist() == [0.0] * 5


def test_scores_are_clipped_after_normalisation():
    """Mean 10, std 2: 20 becomes 5 and is clipped to 1.5; 12 becomes 1 and is not."""
    scores, moments = torch.tensor([20.0, 12.0, 0.0]), RunningMoments(n=4, mean=10.0, m2=16.0)
    assert adjust(scores, moments, normalize=True, clip=1.5).tolist() == [1.5, 1.0, -1.5]
    assert adjust(scores, moments, normalize=False, clip=15.0).tolist() == [15.0, 12.0, 0.0]
    assert adjust(scores, moments, normalize=False, clip=None).tolist() == [20.0, 12.0, 0.0]
    assert scores.tolist() == [20.0, 12.0, 0.0]
