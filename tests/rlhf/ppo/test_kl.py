import math

import pytest
import torch

from rlhf.ppo import kl_estimate
from rlhf.ppo.kl import KLController

LOGPROBS = torch.tensor([[-1.0, -2.0, -0.5]], dtype=torch.float64)
REFERENCE = torch.tensor([[-1.5, -1.0, -0.5]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        ("k1", [0.5, -1.0, 0.0]),
        ("k2", [0.125, 0.5, 0.0]),
        ("k3", [math.exp(-0.5) - 1 + 0.5, math.exp(1) - 1 - 1, 0.0]),
    ],
)
def test_by_hand(estimator: str, expected: list[float]):
    assert kl_estimate(LOGPROBS, REFERENCE, estimator)[0].tolist() == pytest.approx(expected, abs=1e-12)


def test_k1_and_k3_are_unbiased_and_k2_is_close():
    """Averaged over a distribution with its own probabilities, they are the KL itself."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 50, generator=generator, dtype=torch.float64)
    own, reference = torch.log_softmax(logits * 0.5, dim=1)
    kl = float((own.exp() * (own - reference)).sum())
    means = {name: float((own.exp() * kl_estimate(own, reference, name)).sum()) for name in ("k1", "k2", "k3")}
    assert means["k1"] == pytest.approx(kl)
    assert means["k3"] == pytest.approx(kl)
    assert means["k2"] == pytest.approx(kl, rel=0.3)
    assert abs(means["k2"] - kl) > 1e-6


def test_k1_is_never_clamped_and_k3_is_never_negative():
    generator = torch.Generator().manual_seed(0)
    own, reference = torch.randn(2, 1000, generator=generator)
    assert (kl_estimate(own, reference, "k1") < 0).any()
    assert (kl_estimate(own, reference, "k3") >= 0).all()


def test_an_unknown_estimator_is_named():
    with pytest.raises(ValueError, match="kl_estimator='k4' is unknown; use k1, k2 or k3"):
        kl_estimate(LOGPROBS, REFERENCE, "k4")


def test_as_a_loss_only_k2_has_the_gradient_of_the_kl():
    """Exact expectations over five tokens: k1's gradient is 0, k3's that of KL(reference || policy)."""
    generator = torch.Generator().manual_seed(0)
    logits, reference_logits = torch.randn(2, 1, 5, generator=generator, dtype=torch.float64)
    logits.requires_grad_(True)
    own, reference = torch.log_softmax(logits, dim=1), torch.log_softmax(reference_logits, dim=1)

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(loss.sum(), logits, retain_graph=True)[0]

    sampled = {n: gradient(own.exp().detach() * kl_estimate(own, reference, n)) for n in ("k1", "k2", "k3")}
    kl, turned_kl = gradient(own.exp() * (own - reference)), gradient(reference.exp() * (reference - own))
    assert torch.allclose(sampled["k1"], torch.zeros(1, 5, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(sampled["k2"], kl, atol=1e-12)
    assert torch.allclose(sampled["k3"], turned_kl, atol=1e-12)
    assert not torch.allclose(sampled["k3"], kl, atol=1e-2)


# The controller


@pytest.mark.parametrize(
    ("kl", "coef"),
    [
        (6.0, 0.1),
        (6.6, 0.1 * (1 + 0.1 * 0.5)),
        (5.7, 0.1 * (1 - 0.05 * 0.5)),
        (60.0, 0.1 * (1 + 0.2 * 0.5)),
        (0.0, 0.1 * (1 - 0.2 * 0.5)),
        (-3.0, 0.1 * (1 - 0.2 * 0.5)),
    ],
)
def test_adaptive_by_hand(kl: float, coef: float):
    """Target 6, 64 answers of a horizon of 128: half of the error, at most a tenth either way."""
    controller = KLController(coef=0.1, target_nats_per_sequence=6.0, horizon=128)
    assert controller.updated(kl, 64) == (pytest.approx(coef, rel=1e-12), 6.0, 128)
    assert controller.coef == 0.1


def test_without_a_target_the_coefficient_is_fixed():
    controller = KLController(coef=0.1, target_nats_per_sequence=None, horizon=1)
    assert controller.updated(1e6, 128) is controller


def test_one_horizon_moves_the_coefficient_as_far_as_ziegler():
    """A KL held at 1.1 times the target for one horizon of answers: a factor of about e^0.1, whatever the batch."""
    controller = KLController(coef=1.0, target_nats_per_sequence=6.0, horizon=10000)
    for _ in range(100):
        controller = controller.updated(6.6, 100)
    assert controller.coef == pytest.approx(math.exp(0.1), rel=1e-3)


def test_the_target_is_per_sequence_and_not_per_token():
    """Answers exactly at the target of 6 nats, 53 tokens each: their mean per token would read as far too little KL."""
    kl_BR = torch.full((4, 53), 6 / 53, dtype=torch.float64)
    controller = KLController(coef=0.1, target_nats_per_sequence=6.0, horizon=1000)
    assert controller.updated(float(kl_BR.sum(dim=1).mean()), 64).coef == pytest.approx(0.1)
    assert controller.updated(float(kl_BR.mean()), 64).coef == pytest.approx(0.1 * (1 - 0.2 * 0.064))


@pytest.mark.parametrize("kl", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("target", [6.0, None])
def test_a_kl_that_is_no_number_is_refused(kl: float, target: float | None):
    with pytest.raises(ValueError, match=r"KL to the reference is -?(nan|inf) nats per sequence, .* look for NaN"):
        KLController(0.1, target, 1000).updated(kl, 64)


def test_the_coefficient_stays_positive_or_the_horizon_is_refused():
    assert KLController(0.1, 6.0, 100).updated(0.0, 499).coef > 0
    with pytest.raises(ValueError, match=r"kl_horizon=100 is too short for 500 answers .* use ppo\.kl_horizon=500 or"):
        KLController(0.1, 6.0, 100).updated(0.0, 500)
