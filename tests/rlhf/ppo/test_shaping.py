import math
import threading

import numpy as np
import pytest
import torch

from rlhf.ppo import shape_rewards, standardise
from rlhf.ppo.shaping import last_token_mask

JUNK = [math.nan, math.inf, -math.inf, 1e4]


def ragged(generator: np.random.Generator, batch: int, width: int, *, shortest: int = 0) -> torch.Tensor:
    lengths = generator.integers(shortest, width + 1, batch)
    return torch.from_numpy(np.arange(width)[None, :] < lengths[:, None])


def filled(x: torch.Tensor, mask: torch.Tensor, junk: float) -> torch.Tensor:
    return torch.where(mask, x, torch.full_like(x, junk))


def slow_rewards(scores, logprobs, reference, mask, kl_coef: float, estimator: str) -> np.ndarray:
    rewards = np.zeros(mask.shape)
    for b in range(mask.shape[0]):
        last = -1
        for t in range(mask.shape[1]):
            if mask[b, t]:
                k1 = logprobs[b, t] - reference[b, t]
                kl = {"k1": k1, "k2": k1**2 / 2, "k3": math.exp(-k1) - 1 + k1}[estimator]
                rewards[b, t] = -kl_coef * kl
                last = t
        if last >= 0:
            rewards[b, last] += scores[b]
    return rewards


def slow_standardise(x, mask, *, shift_mean: bool = True) -> np.ndarray:
    counted = [x[b, t] for b in range(x.shape[0]) for t in range(x.shape[1]) if mask[b, t]]
    mean = sum(counted) / len(counted)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in counted) / len(counted) + 1e-8)
    result = np.zeros(x.shape)
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            if mask[b, t]:
                result[b, t] = (x[b, t] - (mean if shift_mean else 0)) / deviation
    return result


# Rewards


def test_score_on_the_last_token_and_kl_on_every_token_by_hand():
    mask = torch.tensor([[True, True, True], [True, False, False], [False, False, False]])
    logprobs = torch.tensor([[-1.0, -2.0, -3.0], [-1.0, 9.0, 9.0], [9.0, 9.0, 9.0]])
    reference = torch.tensor([[-1.5, -2.0, -2.0], [-3.0, -7.0, 5.0], [0.0, 0.0, 0.0]])
    rewards = shape_rewards(torch.tensor([10.0, 20.0, 30.0]), logprobs, reference, mask, kl_coef=0.1)
    expected = [[-0.05, 0.0, 10 + 0.1], [20 - 0.2, 0, 0], [0, 0, 0]]
    assert torch.allclose(rewards, torch.tensor(expected))


def test_last_token_by_hand():
    mask = torch.tensor([[True, True, False], [True, True, True], [True, False, False], [False, False, False]])
    expected = [[0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0, 0]]
    assert last_token_mask(mask).int().tolist() == expected


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
@pytest.mark.parametrize("seed", range(4))
def test_rewards_against_loops(seed: int, estimator: str):
    generator = np.random.default_rng(seed)
    mask = ragged(generator, 7, 9)
    scores = torch.from_numpy(generator.normal(size=7))
    logprobs, reference = torch.from_numpy(generator.normal(size=(2, 7, 9)))
    expected = slow_rewards(scores.numpy(), logprobs.numpy(), reference.numpy(), mask.numpy(), 0.13, estimator)
    for junk in (0.0, *JUNK):
        found = shape_rewards(
            scores,
            filled(logprobs, mask, junk),
            filled(reference, mask, -junk),
            mask,
            kl_coef=0.13,
            kl_estimator=estimator,
        )
        assert np.allclose(found.numpy(), expected, rtol=0, atol=1e-6)
        assert (found[~mask] == 0).all()


def test_the_arguments_are_not_changed():
    mask = torch.tensor([[True, False]])
    tensors = [torch.tensor([1.0]), torch.tensor([[1.0, math.nan]]), torch.tensor([[2.0, math.inf]])]
    before = [x.clone() for x in tensors]
    shape_rewards(*tensors, mask, kl_coef=0.1)
    standardise(tensors[1], mask)
    assert all(torch.equal(x.nan_to_num(7), y.nan_to_num(7)) for x, y in zip(tensors, before, strict=True))


# Standardisation


@pytest.mark.parametrize("shift_mean", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_standardise_against_loops(seed: int, shift_mean: bool):
    generator = np.random.default_rng(seed)
    mask = ragged(generator, 6, 8)
    x = torch.from_numpy(generator.normal(3, 2, size=(6, 8)))
    expected = slow_standardise(x.numpy(), mask.numpy(), shift_mean=shift_mean)
    for junk in (0.0, *JUNK):
        found = standardise(filled(x, mask, junk), mask, shift_mean=shift_mean)
        assert np.allclose(found.numpy(), expected, rtol=0, atol=1e-6)
        assert (found[~mask] == 0).all()


def test_mean_0_and_deviation_1_or_the_scaled_mean():
    x, mask = torch.tensor([[1.0, 2.0, 3.0, 99.0]]), torch.tensor([[True, True, True, False]])
    deviation = math.sqrt(2 / 3)
    assert standardise(x, mask)[0].tolist() == pytest.approx([-1 / deviation, 0, 1 / deviation, 0])
    assert standardise(x, mask, shift_mean=False)[0].tolist() == pytest.approx(
        [1 / deviation, 2 / deviation, 3 / deviation, 0]
    )


def test_equal_values_become_0_not_nan():
    found = standardise(torch.full((2, 3), 5.0), torch.ones(2, 3, dtype=torch.bool))
    assert (found == 0).all()


class AllReduce:
    """Sums a tensor over threads that play the ranks."""

    def __init__(self, ranks: int) -> None:
        self.barrier = threading.Barrier(ranks, timeout=10)
        self.parts: dict[int, torch.Tensor] = {}

    def __call__(self, rank: int, x: torch.Tensor) -> torch.Tensor:
        self.parts[rank] = x
        self.barrier.wait()
        total = torch.stack(list(self.parts.values())).sum(dim=0)
        self.barrier.wait()
        return total


@pytest.mark.parametrize("shift_mean", [True, False])
def test_two_ranks_see_the_global_batch(shift_mean: bool):
    """One rank holds short rows and other values; both give what one big batch gives."""
    generator = np.random.default_rng(0)
    mask = torch.cat([ragged(generator, 4, 9, shortest=7), ragged(generator, 4, 9) & (torch.arange(9) < 2)])
    x = torch.from_numpy(np.concatenate([generator.normal(0, 1, (4, 9)), generator.normal(5, 3, (4, 9))]))
    reduce, found = AllReduce(2), {}

    def rank(number: int) -> None:
        rows = slice(4 * number, 4 * number + 4)
        found[number] = standardise(x[rows], mask[rows], shift_mean=shift_mean, reduce=lambda y: reduce(number, y))

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = standardise(x, mask, shift_mean=shift_mean)
    assert torch.allclose(torch.cat([found[0], found[1]]), together, rtol=0, atol=1e-9)
    assert not torch.allclose(standardise(x[:4], mask[:4], shift_mean=shift_mean), together[:4], atol=1e-2)
