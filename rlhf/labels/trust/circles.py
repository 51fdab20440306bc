"""What other pairs of the same answers say about a pair that one person judged: noisy Bradley-Terry.

Letters: N votes, I pairs, K annotators (one more row, the last, stands for all votes without a name together), A
answers, 3 values FIRST, TIE, SECOND.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import optimize, sparse, special
from scipy.sparse import csgraph

from rlhf.labels.trust.aggregation import MAX_ITERATIONS, Consensus, people_of
from rlhf.labels.trust.votes import FIRST, TIE, UNKNOWN, Floats, Votes, value_counts

PAIRS_PER_ANSWER = 2
"""How many pairs there have to be for each answer that they compare: five answers to one prompt, all against all."""


def cross_checked(votes: Votes) -> npt.NDArray[np.bool_]:
    """Tell which pairs have one vote alone, but answers whose other pairs can tell whether it is wrong, (I,).

    A circle (x over y over z over x) tells that one of its votes is wrong, not which. Measured with all pairs of an
    answer's prompt judged once, by people right in 85 % of cases: of the votes that are then more likely wrong than
    right, 48 % are wrong with four answers, 61 % with five, 67 % with eight. So there have to be PAIRS_PER_ANSWER.
    """
    first_I, second_I = votes.answers_I2.T
    answers = 1 + int(votes.answers_I2.max(initial=-1))
    graph = sparse.coo_array((np.ones(len(first_I)), (first_I, second_I)), shape=(answers, answers))
    parts, part_A = csgraph.connected_components(graph, directed=False)
    pairs_P, answers_P = np.bincount(part_A[first_I], minlength=parts), np.bincount(part_A, minlength=parts)
    is_alone_I = value_counts(votes).sum(axis=1) == 1
    return np.asarray(is_alone_I & (pairs_P >= PAIRS_PER_ANSWER * answers_P)[part_A[first_I]], dtype=np.bool_)


def with_other_pairs(votes: Votes, consensus: Consensus) -> Consensus:
    """Return the consensus where pairs of one vote alone have what the other pairs of their answers say.

    How probable a tie is stays; the rest is divided by the answers' scores. A pair with two votes or more stays as it
    is: there Dawid and Skene's model knows more of the annotators than this one.
    """
    checked_I = cross_checked(votes)
    if not checked_I.any():
        return consensus
    found = noisy_bradley_terry(votes)
    # rounded: where votes stand evenly against each other, what is left of the fit's tolerance must not doubt one
    gap_I = np.round(found.scores_A[votes.answers_I2[:, 0]] - found.scores_A[votes.answers_I2[:, 1]], 2)
    tie_I = consensus.posterior_I3[:, TIE]
    scored_I3 = np.stack([(1 - tie_I) * special.expit(gap_I), tie_I, (1 - tie_I) * special.expit(-gap_I)], axis=1)
    posterior_I3 = np.where(checked_I[:, None], scored_I3, consensus.posterior_I3)
    return consensus._replace(posterior_I3=posterior_I3, converged=consensus.converged and found.converged)


class NoisyBradleyTerry(NamedTuple):
    """Answers' scores, and what each annotator does beside reading them; row K stands for votes without a name."""

    scores_A: Floats
    """Log odds; only differences within a prompt have a meaning."""
    attention_K: Floats
    """Share of votes that follow the answers; the others are guesses."""
    left_K: Floats
    """Chance of the left answer in a guess."""
    converged: bool
    """Whether the fit had settled after MAX_ITERATIONS steps."""


SCORE_SPREAD = 1.5
"""Standard deviation of the answers' scores before any vote."""
USUAL_ATTENTION = 0.8
"""Of an annotator without votes; it and `left_K` have a spread of 1 in log odds around it and around 0.5."""


def noisy_bradley_terry(votes: Votes) -> NoisyBradleyTerry:
    """Fit scores of answers with annotators who sometimes guess and then lean to a side.

    P(left is preferred) = attention * sigmoid(left score - right score) + (1 - attention) * left. A tie is half a
    vote for either side. Where sides are unknown a guess is even. Scores and log odds have normal priors, so that
    they stay finite with two or three votes on a pair. Where answers stand in one pair each, a guess and a close pair
    look alike, and attention is hardly known. No annotator is worse than a guess here: find those with
    `dawid_skene`.

    Source: Bugakova et al. 2019, "Aggregation of pairwise comparisons with reduction of biases", equation 2.
    """
    model = _NoisyModel(votes)
    found = optimize.minimize(
        model.loss, model.start(), jac=True, method="L-BFGS-B", options={"maxiter": MAX_ITERATIONS, "maxcor": 30}
    )
    scores_A, attention_K, left_K = model.split(np.asarray(found.x))
    return NoisyBradleyTerry(scores_A, special.expit(attention_K), special.expit(left_K), bool(found.success))


class _NoisyModel:
    """The posterior of the noisy Bradley-Terry model as a function of one vector: scores, attention, left."""

    def __init__(self, votes: Votes) -> None:
        self.people_N = people_of(votes)
        self.people = len(votes.annotators) + 1
        self.answers = 1 + int(votes.answers_I2.max(initial=-1))
        self.sided_N = votes.left_is_N != UNKNOWN
        left_N = np.where(self.sided_N, votes.left_is_N, FIRST)
        answers_N2 = votes.answers_I2[votes.item_N]
        self.left_answer_N = np.where(left_N == FIRST, answers_N2[:, 0], answers_N2[:, 1])
        self.right_answer_N = np.where(left_N == FIRST, answers_N2[:, 1], answers_N2[:, 0])
        self.said_left_N = np.where(votes.value_N == TIE, 0.5, votes.value_N == left_N)

    def start(self) -> Floats:
        usual = np.full(self.people, special.logit(USUAL_ATTENTION))
        return np.concatenate([np.zeros(self.answers), usual, np.zeros(self.people)])

    def split(self, vector: Floats) -> tuple[Floats, Floats, Floats]:
        scores_A, attention_K, left_K = np.split(vector, [self.answers, self.answers + self.people])
        return scores_A, attention_K, left_K

    def loss(self, vector: Floats) -> tuple[float, Floats]:
        """Return the negative log posterior and its gradient."""
        scores_A, attention_K, left_K = self.split(vector)
        follow_N = special.expit(scores_A[self.left_answer_N] - scores_A[self.right_answer_N])
        attention_N = special.expit(attention_K)[self.people_N]
        guess_N = np.where(self.sided_N, special.expit(left_K)[self.people_N], 0.5)
        p_N = np.clip(attention_N * follow_N + (1 - attention_N) * guess_N, 1e-12, 1 - 1e-12)
        y_N = self.said_left_N
        off_K = attention_K - special.logit(USUAL_ATTENTION)
        prior = (np.square(scores_A / SCORE_SPREAD).sum() + np.square(off_K).sum() + np.square(left_K).sum()) / 2
        loss = prior - (y_N * np.log(p_N) + (1 - y_N) * np.log1p(-p_N)).sum()
        slope_N = y_N / p_N - (1 - y_N) / (1 - p_N)
        by_gap_N = slope_N * attention_N * follow_N * (1 - follow_N)
        by_attention_N = slope_N * (follow_N - guess_N) * attention_N * (1 - attention_N)
        by_left_N = np.where(self.sided_N, slope_N * (1 - attention_N) * guess_N * (1 - guess_N), 0.0)
        wins_A = np.bincount(self.left_answer_N, by_gap_N, self.answers)
        losses_A = np.bincount(self.right_answer_N, by_gap_N, self.answers)
        gradient = [
            scores_A / SCORE_SPREAD**2 - wins_A + losses_A,
            off_K - np.bincount(self.people_N, by_attention_N, self.people),
            left_K - np.bincount(self.people_N, by_left_N, self.people),
        ]
        return float(loss), np.concatenate(gradient)
