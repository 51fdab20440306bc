"""Joining votes by how far each annotator can be believed: Dawid-Skene.

Letters: N votes, I pairs, K annotators (one more row, the last, stands for all votes without a name together), 3 values
FIRST, TIE, SECOND. The first answer of a pair is so by hash, whichever side it was shown on: what is
true of the answers and what is a habit of the hand are two models.

Nothing here can tell a majority that is wrong in the same way from one that is right.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse, special

from rlhf.labels.trust.votes import SECOND, TIE, UNKNOWN, VALUES, Floats, Ints, Votes, is_compared, value_counts
from sft.core.statistics import Estimate, wilson_interval

SMOOTHING = 4.0
"""How many votes of the average annotator each one starts with."""
MAX_ITERATIONS = 1000
TOLERANCE = 1e-5
"""Change of the posterior, largest over all pairs, below which the fit has converged."""
Z_95 = 1.959963984540054


class Consensus(NamedTuple):
    """What the votes say together."""

    posterior_I3: Floats
    """Probability of each value of each pair."""
    prior_3: Floats
    confusion_K33: Floats
    """Probability that annotator k votes v when t is true, [k, t, v]; the last row is of votes without a name."""
    converged: bool
    """Whether the fit settled within MAX_ITERATIONS rounds; if not, all that is here is of the last round."""

    @property
    def labels_I(self) -> Ints:
        """The most probable value of each pair."""
        return np.asarray(np.argmax(self.posterior_I3, axis=1), dtype=np.int64)


def dawid_skene(votes: Votes, *, smoothing: float = SMOOTHING, symmetric: bool = True) -> Consensus:
    """Fit a confusion matrix to each annotator by expectation maximisation, from the vote shares.

    Args:
        votes: of any pairs; no votes give an empty consensus.
        smoothing: votes of the average annotator that are added to each one's own; with two or three votes on a pair
            the plain estimate (0) goes to extremes.
        symmetric: hold FIRST and SECOND to the same error rates and the same prior, as their order has no meaning.

    Source: Dawid & Skene 1979, "Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm".
    """
    seen_3, people_N, people = _seen(votes), people_of(votes), len(votes.annotators) + 1
    posterior_I3 = value_counts(votes).astype(np.float64)
    posterior_I3 /= posterior_I3.sum(axis=1, keepdims=True)
    prior_3, confusion_K33 = np.full(VALUES, 1 / VALUES), np.zeros((people, VALUES, VALUES))
    change = 0.0
    for _ in range(MAX_ITERATIONS if len(posterior_I3) else 0):
        prior_3, counts_K33 = posterior_I3.mean(axis=0), _counts(votes, people_N, people, posterior_I3)
        if symmetric:
            prior_3, counts_K33 = (prior_3 + prior_3[::-1]) / 2, counts_K33 + counts_K33[:, ::-1, ::-1]
        average_33 = _row_shares(counts_K33.sum(axis=0), seen_3)
        confusion_K33 = _row_shares(counts_K33 + smoothing * average_33, seen_3)
        before, posterior_I3 = posterior_I3, _softmax(_log_joint(votes, people_N, prior_3, confusion_K33))
        change = float(np.abs(posterior_I3 - before).max())
        if change < TOLERANCE:
            break
    return Consensus(posterior_I3, prior_3, confusion_K33, change < TOLERANCE)


def _seen(votes: Votes) -> npt.NDArray[np.bool_]:
    """Tell which values can be true: those voted for, FIRST and SECOND together."""
    seen_3 = np.bincount(votes.value_N, minlength=VALUES) > 0
    return seen_3 | seen_3[::-1]


def _row_shares(counts: Floats, seen_3: npt.NDArray[np.bool_]) -> Floats:
    """Return each row divided by its sum; a row of nothing becomes even over the values that were seen."""
    totals = counts.sum(axis=-1, keepdims=True)
    even = np.broadcast_to(seen_3 / max(1, int(seen_3.sum())), counts.shape)
    return np.where(totals > 0, counts / np.where(totals > 0, totals, 1.0), even)


def people_of(votes: Votes) -> Ints:
    """Return each vote's row among K + 1 annotators."""
    return np.where(votes.annotator_N == UNKNOWN, len(votes.annotators), votes.annotator_N)


def _counts(votes: Votes, people_N: Ints, people: int, posterior_I3: Floats) -> Floats:
    """Return how often each annotator, by the posterior, voted v when t was true, (K + 1, 3, 3) as [k, t, v]."""
    cell_N = people_N * VALUES + votes.value_N
    weights_3N = posterior_I3[votes.item_N].T
    counts = [np.bincount(cell_N, weights, people * VALUES).reshape(-1, VALUES) for weights in weights_3N]
    return np.stack(counts, axis=1)


def _log(probability: Floats) -> Floats:
    return np.log(np.maximum(probability, 1e-12))


def _softmax(logits: Floats) -> Floats:
    return np.asarray(special.softmax(logits, axis=1), dtype=np.float64)


def _log_joint(votes: Votes, people_N: Ints, prior_3: Floats, confusion_K33: Floats) -> Floats:
    """Return log of P(value and all votes on the pair), (I, 3)."""
    log_vote_N3 = _log(confusion_K33)[people_N, :, votes.value_N]
    sums = [np.bincount(votes.item_N, column, len(votes.pairs)) for column in log_vote_N3.T]
    return np.asarray(_log(prior_3) + np.stack(sums, axis=1), dtype=np.float64)


def without_own_vote(votes: Votes, consensus: Consensus) -> Floats:
    """Return for each vote what the others' votes on its pair say, (N, 3); the prior where there are none."""
    people_N = people_of(votes)
    own_N3 = _log(consensus.confusion_K33)[people_N, :, votes.value_N]
    joint_I3 = _log_joint(votes, people_N, consensus.prior_3, consensus.confusion_K33)
    return _softmax(joint_I3[votes.item_N] - own_N3)


def right_probabilities(votes: Votes, consensus: Consensus) -> Floats:
    """Return for each vote the probability that it names the pair's true value, (N,)."""
    return consensus.posterior_I3[votes.item_N, votes.value_N]


def skills(votes: Votes, consensus: Consensus) -> list[Estimate | None]:
    """Return how often each known annotator is right, in the order of `votes.annotators`.

    Only votes on pairs that others judged too can tell: n is their number, and without any there is None. The interval
    is Wilson's with the number of votes that would tell as much if the truth were known: what is not known of it, and
    what the annotators' skills owe to each other, is taken off.
    Source: Louis 1982, "Finding the Observed Information Matrix when Using the EM Algorithm", in the one-coin model.
    """
    told = np.flatnonzero((votes.annotator_N != UNKNOWN) & is_compared(votes))
    item, value = votes.item_N[told], votes.value_N[told]
    names, who = np.unique(votes.annotator_N[told], return_inverse=True)
    people, pairs = len(names), len(votes.pairs)
    if people == 0:
        return [None] * len(votes.annotators)
    right = right_probabilities(votes, consensus)[told]
    n_K = np.bincount(who, minlength=people)
    skill_K = np.bincount(who, right, people) / n_K
    spread_K = np.maximum(skill_K * (1 - skill_K), 0.25 / (n_K + 1))
    by_value = sparse.csr_array((np.sqrt(right), (who, item * VALUES + value)), shape=(people, pairs * VALUES))
    by_pair = sparse.csr_array((right, (who, item)), shape=(people, pairs))
    missing_KK = (by_value @ by_value.T - by_pair @ by_pair.T).toarray()
    information_KK = np.diag((n_K + SMOOTHING) * spread_K) - missing_KK
    strengths, directions = np.linalg.eigh(information_KK)
    strengths = np.maximum(strengths, 1e-3 * spread_K.min())
    variance_K = (np.square(directions) / strengths).sum(axis=1)
    worth_K = np.clip(1 / (spread_K * variance_K), 1, n_K).astype(int)
    found = {
        int(name): Estimate(float(skill), wilson_interval(float(skill) * int(worth), int(worth)), int(n))
        for name, skill, worth, n in zip(names, skill_K, worth_K, n_K, strict=True)
    }
    return [found.get(k) for k in range(len(votes.annotators))]


def side_biases(votes: Votes, consensus: Consensus) -> list[Estimate | None]:
    """Return how much each known annotator leans to the left answer, -0.5 to 0.5, in the order of `votes.annotators`.

    It is half of: chance of "left" when left is better, minus chance of "right" when right is; 0 is no lean, 0.5 is
    always left. What is better the others' votes say, and how often it was shown left is taken into account: the
    estimate is the share of "left", by a straight line over the probability that left is better, where that is 0.5,
    minus 0.5. n counts votes that are no tie, of known sides; None without any.
    """
    used = np.flatnonzero((votes.value_N != TIE) & (votes.left_is_N != UNKNOWN))
    better_N3, left_is = without_own_vote(votes, consensus)[used], votes.left_is_N[used]
    rows = np.arange(len(used))
    left_better = _with_shares(better_N3[rows, left_is], better_N3[rows, SECOND - left_is])
    said_left = (votes.value_N[used] == left_is).astype(np.float64)
    own = [votes.annotator_N[used] == k for k in range(len(votes.annotators))]
    return [_side_bias(left_better[mine], said_left[mine]) if mine.any() else None for mine in own]


def _with_shares(left_N: Floats, right_N: Floats) -> Floats:
    """Return the chance that left is better, where how often it is so was fitted by expectation maximisation."""
    share, left_better_N = 0.5, left_N
    for _ in range(MAX_ITERATIONS if len(left_N) else 0):
        left_better_N = share * left_N / np.maximum(share * left_N + (1 - share) * right_N, 1e-300)
        before, share = share, float(left_better_N.mean())
        if abs(share - before) < TOLERANCE:
            break
    return left_better_N


def _side_bias(left_better: Floats, said_left: Floats) -> Estimate:
    # One vote for either side at either end keeps the line and its spread defined (as Agresti & Caffo 2000 for shares).
    x, y = np.concatenate([left_better, [0, 0, 1, 1]]), np.concatenate([said_left, [0, 1, 0, 1]])
    off = x - x.mean()
    weight = 1 / len(x) + (0.5 - x.mean()) * off / np.square(off).sum()
    slope = float(off @ y / np.square(off).sum())
    error = float(np.sqrt(np.square(weight * (y - y.mean() - slope * off)).sum()))
    value = float(np.clip(weight @ y - 0.5, -0.5, 0.5))
    return Estimate(value, (max(-0.5, value - Z_95 * error), min(0.5, value + Z_95 * error)), len(said_left))
