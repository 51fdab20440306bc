import math

import numpy as np
import pytest
import torch

from rlhf.ppo import estimate_advantages

JUNK = [math.nan, math.inf, -math.inf, 1e4]


def slow_advantages(rewards, values, mask, gamma: float, lam: float) -> np.ndarray:
    """Return sum over l of (gamma * lam)^l * delta_{t + l}, straight from the definition, row by row."""
    advantages = np.zeros(mask.shape)
    for b in range(mask.shape[0]):
        length = int(mask[b].sum())
        for t in range(length):
            for later in range(t, length):
                next_value = values[b, later + 1] if later + 1 < length else 0.0
                delta = rewards[b, later] + gamma * next_value - values[b, later]
                advantages[b, t] += (gamma * lam) ** (later - t) * delta
    return advantages


def random_batch(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = np.random.default_rng(seed)
    mask = np.arange(11)[None, :] < generator.integers(0, 12, 6)[:, None]
    rewards, values = generator.normal(size=(2, 6, 11))
    return torch.from_numpy(rewards), torch.from_numpy(values), torch.from_numpy(mask)


def test_by_hand():
    """delta = 1 + 0.9 * 3 - 2 = 1.7 and 5 - 3 = 2; A = 1.7 + 0.9 * 0.5 * 2 = 2.6."""
    rewards, values = torch.tensor([[1.0, 5.0, 8.0]]), torch.tensor([[2.0, 3.0, 4.0]])
    mask = torch.tensor([[True, True, False]])
    advantages, returns = estimate_advantages(rewards, values, mask, gamma=0.9, lam=0.5)
    assert advantages[0].tolist() == pytest.approx([2.6, 2.0, 0.0])
    assert returns[0].tolist() == pytest.approx([4.6, 5.0, 0.0])


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (0.99, 1.0), (1.0, 0.0), (0.0, 0.7)])
@pytest.mark.parametrize("seed", range(4))
def test_against_loops(seed: int, gamma: float, lam: float):
    rewards, values, mask = random_batch(seed)
    expected = slow_advantages(rewards.numpy(), values.numpy(), mask.numpy(), gamma, lam)
    for junk in (0.0, *JUNK):
        outside = torch.full_like(rewards, junk)
        advantages, returns = estimate_advantages(
            torch.where(mask, rewards, outside), torch.where(mask, values, outside), mask, gamma=gamma, lam=lam
        )
        assert np.allclose(advantages.numpy(), expected, rtol=0, atol=1e-6)
        assert np.allclose(returns.numpy(), np.where(mask, expected + values.numpy(), 0), rtol=0, atol=1e-6)
        assert (advantages[~mask] == 0).all()
        assert (returns[~mask] == 0).all()


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_lambda_1_is_the_monte_carlo_return(gamma: float):
    """Whatever the critic says, the return is the discounted sum of the rewards that follow."""
    rewards, values, mask = random_batch(0)
    _, returns = estimate_advantages(rewards, values, mask, gamma=gamma, lam=1.0)
    for b in range(6):
        length = int(mask[b].sum())
        for t in range(length):
            expected = sum(gamma ** (later - t) * float(rewards[b, later]) for later in range(t, length))
            assert float(returns[b, t]) == pytest.approx(expected, abs=1e-9)


def test_lambda_0_is_one_step():
    rewards, values, mask = random_batch(1)
    _, returns = estimate_advantages(rewards, values, mask, gamma=0.9, lam=0.0)
    next_values = torch.nn.functional.pad(torch.where(mask, values, 0.0)[:, 1:], (0, 1))
    assert torch.allclose(returns, torch.where(mask, rewards + 0.9 * next_values, 0.0))


def test_a_perfect_critic_leaves_no_advantage():
    rewards, _, mask = random_batch(2)
    _, truth = estimate_advantages(rewards, torch.zeros_like(rewards), mask, gamma=0.95, lam=1.0)
    advantages, returns = estimate_advantages(rewards, truth, mask, gamma=0.95, lam=0.6)
    assert advantages.abs().max() < 1e-9
    assert torch.allclose(returns, truth)


def test_the_arguments_are_not_changed_and_empty_batches_pass():
    rewards, values, mask = random_batch(3)
    before = rewards.clone(), values.clone(), mask.clone()
    estimate_advantages(rewards, values, mask, gamma=1.0, lam=0.95)
    assert all(torch.equal(x, y) for x, y in zip((rewards, values, mask), before, strict=True))
    for shape in ((0, 5), (3, 0)):
        empty = torch.zeros(shape)
        advantages, returns = estimate_advantages(empty, empty, empty.bool(), gamma=1.0, lam=0.95)
        assert advantages.shape == returns.shape == shape
