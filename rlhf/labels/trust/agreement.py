"""How far judges agree: the field's coefficients on a table of votes.

Letters: I pairs ("items"), R resamples, 3 values in the order FIRST, TIE, SECOND, which is also their order for the
ordinal coefficient.
"""

from typing import NamedTuple

import numpy as np

from rlhf.labels.trust.kappa import coefficients, cohen_kappa, percentile_estimate
from rlhf.labels.trust.votes import VALUES, Floats, Ints, Votes, value_counts
from sft.core.statistics import Estimate


class Agreement(NamedTuple):
    """Coefficients over pairs with two votes or more; None where undefined."""

    raw: Estimate | None
    cohen_kappa: Estimate | None
    fleiss_kappa: Estimate | None
    krippendorff_nominal: Estimate | None
    krippendorff_ordinal: Estimate | None
    pairs: int
    """Pairs with two votes or more."""

    def as_dict(self) -> dict[str, object]:
        """Return each coefficient as `{value, ci, n}`; value and ci are None where it is undefined."""
        return coefficients(self._asdict(), self.pairs)


def agreement(votes: Votes, *, seed: int, resamples: int = 1000) -> Agreement:
    """Return all coefficients with 95 % percentile intervals that resample pairs.

    Only pairs with two votes or more count. Full agreement gives an interval of no width: look at n then. Resamples
    in which a coefficient is undefined (all votes the same value) do not count.

    Args:
        votes: of any pairs.
        seed: of the resampling.
        resamples: how many, at least 100.

    Raises:
        ValueError: resamples is below 100.
    """
    if resamples < 100:
        raise ValueError(f"resamples={resamples} is too few for an interval; use 100 or more, 1000 as a rule")
    counts_I3 = value_counts(votes)
    counts_I3 = counts_I3[counts_I3.sum(axis=1) > 1]
    if len(counts_I3) == 0:
        return Agreement(None, None, None, None, None, 0)
    pairs = len(counts_I3)
    # Pairs with the same counts are alike: drawing how often each kind comes is drawing the pairs.
    kinds_M3, kind_counts_M = np.unique(counts_I3, axis=0, return_counts=True)
    drawn_RM = np.random.default_rng(seed).multinomial(pairs, kind_counts_M / pairs, size=resamples)
    weights_RM = np.concatenate([kind_counts_M[None], drawn_RM]).astype(np.float64)
    return Agreement(
        raw=percentile_estimate(raw_agreement(kinds_M3, weights_RM), pairs),
        cohen_kappa=cohen_kappa(votes, seed=seed, resamples=resamples),
        fleiss_kappa=percentile_estimate(fleiss_kappa(kinds_M3, weights_RM), pairs),
        krippendorff_nominal=percentile_estimate(krippendorff_alpha(kinds_M3, weights_RM, ordinal=False), pairs),
        krippendorff_ordinal=percentile_estimate(krippendorff_alpha(kinds_M3, weights_RM, ordinal=True), pairs),
        pairs=pairs,
    )


def _divided(above: Floats, below: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.abs(below) > 1e-12, above / below, np.nan)


def raw_agreement(counts_I3: Ints, weights_RI: Floats) -> Floats:
    """Return the chance that two votes on a pair agree, mean over pairs, for each row of weights, (R,).

    Args:
        counts_I3: votes per pair and value, two votes or more each.
        weights_RI: how often each pair counts.
    """
    n_I = counts_I3.sum(axis=1)
    agreeing_I = (counts_I3 * (counts_I3 - 1)).sum(axis=1) / (n_I * (n_I - 1))
    return _divided(weights_RI @ agreeing_I, weights_RI.sum(axis=1))


def fleiss_kappa(counts_I3: Ints, weights_RI: Floats) -> Floats:
    """Return Fleiss' kappa for each row of weights, (R,); nan where all votes are the same value.

    Pairs may differ in their number of votes; the shares of the values are then those among all votes.
    Source: Fleiss 1971, "Measuring nominal scale agreement among many raters".
    """
    totals_R3 = weights_RI @ counts_I3
    chance_R = ((totals_R3 / totals_R3.sum(axis=1, keepdims=True)) ** 2).sum(axis=1)
    return _divided(raw_agreement(counts_I3, weights_RI) - chance_R, 1 - chance_R)


def krippendorff_alpha(counts_I3: Ints, weights_RI: Floats, *, ordinal: bool) -> Floats:
    """Return Krippendorff's alpha for each row of weights, (R,); nan where all votes are the same value.

    Source: Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", sections C to E.
    """
    n_I = counts_I3.sum(axis=1)
    pairs_I33 = counts_I3[:, :, None] * (counts_I3[:, None, :] - np.eye(VALUES))
    observed_R33 = (weights_RI @ (pairs_I33 / (n_I - 1)[:, None, None]).reshape(-1, VALUES**2)).reshape(-1, 3, 3)
    totals_R3 = observed_R33.sum(axis=2)
    distance_R33 = _ordinal_distances(totals_R3) if ordinal else np.broadcast_to(1 - np.eye(VALUES), (1, 3, 3))
    expected_R33 = totals_R3[:, :, None] * totals_R3[:, None, :]
    observed_R = (observed_R33 * distance_R33).sum(axis=(1, 2))
    expected_R = (expected_R33 * distance_R33).sum(axis=(1, 2)) / (totals_R3.sum(axis=1) - 1)
    return 1 - _divided(observed_R, expected_R)


def _ordinal_distances(totals_R3: Floats) -> Floats:
    """Return the squared number of votes between two values, half of both ends included, (R, 3, 3)."""
    middle_R3 = np.cumsum(totals_R3, axis=1) - totals_R3 / 2
    return np.square(middle_R3[:, :, None] - middle_R3[:, None, :])
