import math

import numpy as np
import pytest
import torch

from rlhf.ppo import policy_loss, value_loss

JUNK = [math.nan, math.inf, -math.inf, 1e4]


def ragged(generator: np.random.Generator, batch: int = 8, width: int = 7) -> torch.Tensor:
    return torch.from_numpy(np.arange(width)[None, :] < generator.integers(1, width + 1, batch)[:, None])


def random_batch(seed: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Return (new, old, third) and a mask; ratios reach far beyond the clip on both sides."""
    generator = np.random.default_rng(seed)
    old = generator.normal(-2, 1, (8, 7))
    new = old + generator.normal(0, 0.6, (8, 7))
    third = generator.normal(0, 1.5, (8, 7))
    return [torch.from_numpy(x) for x in (new, old, third)], ragged(generator)


def slow_policy(new, old, advantages, mask, low: float, high: float, dual: float | None) -> tuple[float, np.ndarray]:
    """Return the loss and its gradient, token by token, case by case."""
    count, loss, gradient = int(mask.sum()), 0.0, np.zeros(mask.shape)
    for index in np.argwhere(mask):
        b, t = index
        advantage, ratio = advantages[b, t], math.exp(new[b, t] - old[b, t])
        if advantage >= 0:
            moves, term = ratio <= 1 + high, -advantage * min(ratio, 1 + high)
        else:
            moves, term = ratio >= 1 - low, -advantage * max(ratio, 1 - low)
            if dual is not None and term > -advantage * dual:
                moves, term = False, -advantage * dual
        loss += term / count
        gradient[b, t] = -advantage * ratio / count if moves else 0.0
    return loss, gradient


def slow_value(values, old, returns, mask, clip: float) -> tuple[float, np.ndarray]:
    count, loss, gradient = int(mask.sum()), 0.0, np.zeros(mask.shape)
    for b, t in np.argwhere(mask):
        plain = (values[b, t] - returns[b, t]) ** 2
        moved = old[b, t] + max(-clip, min(clip, values[b, t] - old[b, t]))
        clipped = (moved - returns[b, t]) ** 2
        loss += 0.5 * max(plain, clipped) / count
        inside = abs(values[b, t] - old[b, t]) <= clip
        gradient[b, t] = (values[b, t] - returns[b, t]) / count if inside or plain > clipped else 0.0
    return loss, gradient


def with_gradient(function, new: torch.Tensor, *rest: torch.Tensor, **settings) -> tuple[float, np.ndarray]:
    leaf = new.clone().requires_grad_(True)
    loss = function(leaf, *rest, **settings).loss
    loss.backward()
    return loss.item(), leaf.grad.numpy()


# Policy


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [
        (1.0, 2.0, -2.0, False),
        (1.5, 2.0, -2.0 * 1.3, True),
        (0.5, 2.0, -1.0, False),
        (0.5, -2.0, 2.0 * 0.8, True),
        (1.5, -2.0, 3.0, False),
        (5.0, -2.0, 2.0 * 3.0, False),
    ],
)
def test_policy_by_hand(ratio: float, advantage: float, loss: float, clipped: bool):
    found = policy_loss(
        torch.tensor([[math.log(ratio) - 1, 5.0]]),
        torch.tensor([[-1.0, 7.0]]),
        torch.tensor([[advantage, 9.0]]),
        torch.tensor([[True, False]]),
        clip_low=0.2,
        clip_high=0.3,
        dual_clip=3.0,
    )
    assert float(found.loss) == pytest.approx(loss)
    assert float(found.clip_fraction) == clipped
    assert float(found.ratio) == pytest.approx(ratio)
    assert float(found.approx_kl) == pytest.approx(math.log(ratio) ** 2 / 2)
    assert float(found.max_ratio_deviation) == pytest.approx(abs(ratio - 1))


@pytest.mark.parametrize(("low", "high", "dual"), [(0.2, 0.2, None), (0.1, 0.4, None), (0.2, 0.28, 1.5)])
@pytest.mark.parametrize("seed", range(4))
def test_policy_against_loops(seed: int, low: float, high: float, dual: float | None):
    tensors, mask = random_batch(seed)
    loss, gradient = slow_policy(*(x.numpy() for x in tensors), mask.numpy(), low, high, dual)
    for junk in (0.0, *JUNK):
        outside = [torch.where(mask, x, torch.full_like(x, junk)) for x in tensors]
        found = with_gradient(policy_loss, *outside, mask, clip_low=low, clip_high=high, dual_clip=dual)
        assert found[0] == pytest.approx(loss, abs=1e-6)
        assert np.allclose(found[1], gradient, rtol=0, atol=1e-6)


def test_the_dual_clip_bounds_negative_advantages_only():
    ratio = torch.tensor([[10.0, 10.0]]).log()
    advantages, mask = torch.tensor([[-1.0, 1.0]]), torch.ones(1, 2, dtype=torch.bool)
    plain = policy_loss(ratio, torch.zeros(1, 2), advantages, mask)
    bounded = policy_loss(ratio, torch.zeros(1, 2), advantages, mask, dual_clip=3.0)
    assert float(plain.loss) == pytest.approx((10 - 1.2) / 2)
    assert float(bounded.loss) == pytest.approx((3 - 1.2) / 2)


def test_an_unchanged_policy_has_ratio_1():
    (new, _, advantages), mask = random_batch(0)
    found = policy_loss(new, new.clone(), advantages, mask)
    assert (float(found.ratio), float(found.approx_kl), float(found.clip_fraction)) == pytest.approx((1, 0, 0))
    assert float(found.max_ratio_deviation) == 0
    assert float(found.loss) == pytest.approx(-float(advantages[mask].mean()))


def test_what_padding_holds_changes_no_diagnostic():
    tensors, mask = random_batch(1)
    clean = policy_loss(*tensors, mask)
    for junk in JUNK:
        dirty = policy_loss(*(torch.where(mask, x, torch.full_like(x, junk)) for x in tensors), mask)
        assert [float(x) for x in dirty] == pytest.approx([float(x) for x in clean])


def test_policy_diagnostics_against_loops():
    (new, old, advantages), mask = random_batch(2)
    found = policy_loss(new, old, advantages, mask)
    ratios = (new - old).exp()[mask].numpy()
    clipped = [
        (a > 0 and r > 1.2) or (a < 0 and r < 0.8) for r, a in zip(ratios, advantages[mask].numpy(), strict=True)
    ]
    assert float(found.clip_fraction) == pytest.approx(np.mean(clipped))
    assert float(found.ratio) == pytest.approx(ratios.mean())
    assert float(found.max_ratio_deviation) == pytest.approx(np.abs(ratios - 1).max())
    assert float(found.approx_kl) == pytest.approx((np.log(ratios) ** 2 / 2).mean())
    assert not any(x.requires_grad for x in found[1:])


# Value


@pytest.mark.parametrize(
    ("value", "old", "target", "loss", "clipped"),
    [
        (1.0, 1.0, 3.0, 2.0, False),
        (2.0, 1.0, 3.0, 0.5 * 1.8**2, True),
        (1.1, 1.0, 0.0, 0.5 * 1.21, False),
        (5.0, 1.0, 3.0, 2.0, False),
        (0.5, 1.0, 0.0, 0.5 * 0.64, True),
    ],
)
def test_value_by_hand(value: float, old: float, target: float, loss: float, clipped: bool):
    found = value_loss(
        *(torch.tensor([[x, 50.0]]) for x in (value, old, target)), torch.tensor([[True, False]]), clip_range=0.2
    )
    assert float(found.loss) == pytest.approx(loss)
    assert float(found.clip_fraction) == clipped


@pytest.mark.parametrize("clip", [0.2, 0.7])
@pytest.mark.parametrize("seed", range(4))
def test_value_against_loops(seed: int, clip: float):
    tensors, mask = random_batch(seed)
    loss, gradient = slow_value(*(x.numpy() for x in tensors), mask.numpy(), clip)
    for junk in (0.0, *JUNK):
        outside = [torch.where(mask, x, torch.full_like(x, junk)) for x in tensors]
        found = with_gradient(value_loss, *outside, mask, clip_range=clip)
        assert found[0] == pytest.approx(loss, abs=1e-6)
        assert np.allclose(found[1], gradient, rtol=0, atol=1e-6)


# Both


@pytest.mark.parametrize("function", [policy_loss, value_loss])
@pytest.mark.parametrize("cuts", [[4, 4], [1, 2, 5], [1] * 8])
def test_micro_batches_with_the_global_count_add_up(function, cuts: list[int]):
    tensors, mask = random_batch(3)
    whole = with_gradient(function, *tensors, mask)
    parts = [
        with_gradient(function, *chunk, num_tokens=int(mask.sum()))
        for chunk in zip(*(x.split(cuts) for x in (*tensors, mask)), strict=True)
    ]
    assert sum(loss for loss, _ in parts) == pytest.approx(whole[0], abs=1e-9)
    assert np.allclose(np.concatenate([gradient for _, gradient in parts]), whole[1], rtol=0, atol=1e-9)
    mean_of_means = np.mean(
        [with_gradient(function, *chunk)[0] for chunk in zip(*(x.split(cuts) for x in (*tensors, mask)), strict=True)]
    )
    assert abs(mean_of_means - whole[0]) > 1e-3, "this batch would not tell a mean of means from a global mean"


@pytest.mark.parametrize("function", [policy_loss, value_loss])
def test_a_micro_batch_without_tokens_is_0(function):
    tensors, _ = random_batch(0)
    empty = torch.zeros(8, 7, dtype=torch.bool)
    assert with_gradient(function, *tensors, empty)[0] == 0
    loss, gradient = with_gradient(function, *tensors, empty, num_tokens=torch.tensor(30))
    assert loss == 0
    assert not gradient.any()
