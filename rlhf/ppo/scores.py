"""Running moments of scores, and the scores as PPO uses them: normalised, then clipped.

Letters: B batch.
"""

from typing import NamedTuple

import torch

FLOAT32_EPSILON = 2.0**-23


class RunningMoments(NamedTuple):
    """Number, mean and sum of squared deviations of all scores so far; starts empty.

    The state is three numbers that JSON keeps exactly. The same batches in the same order give the same bits; in
    another order the last digits may differ.

    Source: Chan, Golub & LeVeque 1979, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances".
    """

    n: int = 0
    mean: float = 0.0
    m2: float = 0.0

    def updated(self, scores_B: torch.Tensor) -> "RunningMoments":
        """Return the moments with these scores added, in float64; no scores change nothing.

        One score that is no number makes all later moments no numbers: check before.
        """
        added = len(scores_B)
        if added == 0:
            return self
        values_B = scores_B.double()
        added_mean = float(values_B.mean())
        added_m2 = float((values_B - added_mean).square().sum())
        n = self.n + added
        delta = added_mean - self.mean
        return RunningMoments(
            n,
            self.mean + delta * added / n,
            self.m2 + added_m2 + delta * delta * self.n * added / n,
        )

    @property
    def std(self) -> float:
        """Population standard deviation; 1.0 where there is no spread beyond the rounding of a float32."""
        if self.n == 0:
            return 1.0
        std = float((self.m2 / self.n) ** 0.5)
        return 1.0 if std <= FLOAT32_EPSILON * abs(self.mean) else std


def adjust(
    scores_B: torch.Tensor, moments: RunningMoments, *, normalize: bool, clip: float | None = None
) -> torch.Tensor:
    """Return the scores as PPO uses them, shape (B,), in their own dtype.

    Args:
        scores_B: as the sources gave them.
        moments: of all scores so far, these included: update first, else the first batch has nothing to go by.
        normalize: take (score - mean) / std.
        clip: then clamp to [-clip, clip]; None: never.
    """
    if normalize:
        scores_B = ((scores_B.double() - moments.mean) / moments.std).to(scores_B.dtype)
    return scores_B if clip is None else scores_B.clamp(-clip, clip)
