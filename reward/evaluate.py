"""Held-out accuracy of a reward model beside what it can at best reach and what it must beat."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reward.baselines import bag_of_words, longer_wins
from reward.calibration import Bin, expected_calibration_error, reliability
from reward.data import Comparison
from reward.model import RewardModel
from sft.core.statistics import Estimate, clustered_mean
from sft.core.text import prompt_key


@dataclass(frozen=True)
class RewardReport:
    """Every number with n and a 95 % interval that resamples prompts."""

    accuracy: Estimate
    longer_wins: Estimate
    bag_of_words: Estimate
    ece: float
    """Expected calibration error after temperature scaling, 15 equal-mass bins."""
    reliability: list[Bin]
    chosen_scores: list[float]
    rejected_scores: list[float]


def assess(model: RewardModel, *, train: Sequence[Comparison], test: Sequence[Comparison], seed: int) -> RewardReport:
    """Compare a reward model with held-out labels; `train` serves the bag-of-words baseline. A tie counts half."""
    clusters = [prompt_key(comparison.prompt) for comparison in test]
    chosen_N = model.score_texts([(c.prompt, c.chosen) for c in test])
    rejected_N = model.score_texts([(c.prompt, c.rejected) for c in test])
    margins_N = chosen_N - rejected_N
    diagram = reliability(margins_N)

    def mean(values_N: npt.NDArray[np.float64]) -> Estimate:
        return clustered_mean(values_N, clusters, seed=seed)

    return RewardReport(
        accuracy=mean(np.where(margins_N == 0, 0.5, margins_N > 0)),
        longer_wins=mean(longer_wins(test)),
        bag_of_words=mean(bag_of_words(train, test)),
        ece=expected_calibration_error(diagram),
        reliability=diagram,
        chosen_scores=chosen_N.tolist(),
        rejected_scores=rejected_N.tolist(),
    )
