"""How sure a reward model is, and how sure it should be.

A Bradley-Terry model says P(chosen over rejected) = sigmoid((r_chosen - r_rejected) / temperature). Letters: N pairs,
M bins.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sft.core.durable import write_json
from sft.core.errors import DataError

FILE = "calibration.json"
Floats = npt.NDArray[np.float64]


class Calibration(NamedTuple):
    """Calibrated score = (raw score - offset) / temperature; differences are then log-odds, and 0 is the SFT model."""

    offset: float
    temperature: float

    def save(self, folder: Path) -> None:
        """Write calibration.json beside the weights."""
        write_json(folder / FILE, {"offset": self.offset, "temperature": self.temperature})

    @classmethod
    def load(cls, folder: Path) -> "Calibration":
        """Read calibration.json; a model without one is taken as it is. Raises DataError when it makes no sense."""
        path = folder / FILE
        if not path.is_file():
            return cls(0.0, 1.0)
        try:
            stored = json.loads(path.read_text())
            calibration = cls(float(stored["offset"]), float(stored["temperature"]))
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{path} is no calibration file ({error}); it needs numbers offset and temperature"
            ) from None
        if not (np.isfinite(calibration.offset) and 0 < calibration.temperature < np.inf):
            raise DataError(f"{path}: offset must be finite and temperature positive, found {calibration}")
        return calibration


class Bin(NamedTuple):
    """One bar of a reliability diagram: mean confidence, share that was right, number of pairs."""

    confidence: float
    accuracy: float
    n: int


def fit_temperature(margins_N: Floats) -> float:
    """Return the temperature that makes the margins r_chosen - r_rejected most likely, between 0.05 and 50.

    Source: Guo et al. 2017, arXiv 1706.04599, section 4.2, for the one-logit case.
    """
    from scipy import optimize  # only training needs it

    if len(margins_N) == 0:
        return 1.0

    def negative_log_likelihood(log_temperature: float) -> float:
        return float(np.mean(np.logaddexp(0.0, -margins_N / np.exp(log_temperature))))

    fitted = optimize.minimize_scalar(negative_log_likelihood, bounds=(np.log(0.05), np.log(50)), method="bounded")
    return float(np.exp(fitted.x))


def reliability(margins_N: Floats, *, bins: int = 15) -> list[Bin]:
    """Return equal-mass bins over the confidence max(p, 1 - p), from unsure to sure.

    Args:
        margins_N: calibrated r_chosen - r_rejected; the model is right where this is positive.
        bins: at most this many; fewer when there are fewer pairs.
    """
    confidence_N = 1 / (1 + np.exp(-np.abs(margins_N)))
    right_N = np.where(margins_N == 0, 0.5, margins_N > 0)
    order_N = np.argsort(confidence_N, kind="stable")
    parts = np.array_split(order_N, min(bins, len(order_N))) if len(order_N) else []
    return [Bin(float(confidence_N[part].mean()), float(right_N[part].mean()), len(part)) for part in parts]


def expected_calibration_error(diagram: list[Bin]) -> float:
    """Return the mean distance of accuracy and confidence, weighted by the bins' sizes."""
    total = sum(bar.n for bar in diagram)
    return sum(bar.n * abs(bar.accuracy - bar.confidence) for bar in diagram) / total if total else 0.0
