import math

import pytest
import torch

from rlhf.ppo import kl_estimate

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
