"""Judgements that are probably wrong, and annotators whose judgements should not be used.

Letters: N votes, K annotators, T tests.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from rlhf.labels.records import Choice, Judgement
from rlhf.labels.trust.aggregation import Consensus, right_probabilities, without_own_vote
from rlhf.labels.trust.agreement import FIRST, SECOND, TIE, Floats, Ints, Votes, value_counts
from sft.core.statistics import Estimate, proportion

FALSE_DISCOVERY_RATE = 0.05
MIN_ANNOTATORS = 3
"""With two, nobody can tell which of them is wrong."""


class DoubtfulJudgement(NamedTuple):
    """A judgement that is more likely wrong than right, or whatever the caller's threshold was."""

    line: int
    digest: str
    """sha256 of the raw row."""
    annotator: str | None
    pair: str
    choice: Choice
    likely: Choice
    """The most probable right choice, a and b as in the judgement."""
    wrong: float
    """Probability that the choice is wrong; 1 - the probability of a truth that all votes, this one too, speak for."""

    def as_dict(self) -> dict[str, object]:
        """Return the fields for JSON."""
        return self._asdict() | {"choice": self.choice.value, "likely": self.likely.value}


def doubtful_judgements(
    judgements: Sequence[Judgement], votes: Votes, consensus: Consensus, *, above: float = 0.5
) -> list[DoubtfulJudgement]:
    """Return the judgements whose probability of being wrong is over a threshold, the most doubtful first.

    Args:
        judgements: what `votes` was made of.
        votes: the table.
        consensus: fitted to the table.
        above: probability, 0 to 1; 0.5 returns those that are more likely wrong than right.
    """
    wrong_N = 1 - right_probabilities(votes, consensus)
    labels_I = consensus.labels_I
    at = np.flatnonzero(wrong_N > above)
    ordered = at[np.lexsort((votes.source_N[at], -wrong_N[at]))]
    found = []
    for n in ordered.tolist():
        judgement = judgements[int(votes.source_N[n])]
        item = int(votes.item_N[n])
        truth = labels_I[item]
        likely = Choice.TIE if truth == TIE else Choice.A if truth == votes.a_is_N[n] else Choice.B
        if likely is judgement.choice:
            continue  # unsure, but nothing else is likelier
        where = (judgement.line, judgement.digest, judgement.annotator, votes.pairs[item])
        found.append(DoubtfulJudgement(*where, judgement.choice, likely, float(wrong_N[n])))
    return found


class Opposition(NamedTuple):
    """How one annotator's votes stand to what the others say; ties on either side are left out."""

    annotator: str
    with_others: Estimate | None
    """Share of votes for the answer that the others' votes speak for; None without such pairs."""
    p_value: float
    """Chance of so small a share if the annotator were right as often as the test supposes; 1 if untestable."""
    found: bool
    """Whether the annotator is among those that the test names."""


def opposed_annotators(
    votes: Votes, consensus: Consensus, *, skill: float = 0.5, rate: float = FALSE_DISCOVERY_RATE
) -> list[Opposition]:
    """Test each known annotator for agreeing with the others less than someone who is right with chance `skill`.

    At 0.5 it finds those who vote against the better answer more often than a coin: swapped buttons, or poison. Of
    those found, at most `rate` are expected to be right as often as `skill` or more. What the others say about a
    pair leaves out the annotator's own vote, and counts for less where they are unsure.

    Args:
        votes: of three annotators or more; with fewer nobody is found.
        consensus: fitted to the table.
        skill: 0.5 to 1, the chance of being right between two answers that the test supposes.
        rate: the false discovery rate, 0 to 1.

    Returns:
        One per known annotator, in the order of `votes.annotators`.

    Source: Benjamini & Hochberg 1995, "Controlling the False Discovery Rate"; the binomial tail bounds that of votes
    with different chances: Hoeffding 1956, "On the Distribution of the Number of Successes in Independent Trials".
    """
    others_N3 = without_own_vote(votes, consensus)
    first_N, second_N = others_N3[:, FIRST], others_N3[:, SECOND]
    has_others_N = value_counts(votes).sum(axis=1)[votes.item_N] > 1
    tested_N = has_others_N & (votes.value_N != TIE) & (np.abs(first_N - second_N) > 1e-6)
    sure_N = np.maximum(first_N, second_N) / np.maximum(first_N + second_N, 1e-12)
    agrees_N = votes.value_N == np.where(first_N > second_N, FIRST, SECOND)
    chance_N = sure_N * skill + (1 - sure_N) * (1 - skill)
    enough = len(votes.annotators) >= MIN_ANNOTATORS
    shares: list[Estimate | None] = []
    p_values = np.ones(len(votes.annotators))
    for k in range(len(votes.annotators)):
        mine = tested_N & (votes.annotator_N == k)
        shares.append(proportion(agrees_N[mine].astype(np.float64)) if mine.any() else None)
        if mine.any() and enough:
            p_values[k] = stats.binom.cdf(agrees_N[mine].sum(), mine.sum(), chance_N[mine].mean())
    found = benjamini_hochberg(p_values, rate=rate)
    rows = zip(votes.annotators, shares, p_values.tolist(), found, strict=True)
    return [Opposition(name, share, p, is_found) for name, share, p, is_found in rows]


def benjamini_hochberg(p_values: Floats, *, rate: float) -> list[bool]:
    """Tell which of T tests are discoveries, so that at most `rate` of them are expected to be false.

    Source: Benjamini & Hochberg 1995, "Controlling the False Discovery Rate", equation 1.
    """
    order_T: Ints = np.argsort(p_values, kind="stable")
    passed = np.flatnonzero(p_values[order_T] <= rate * np.arange(1, len(p_values) + 1) / max(1, len(p_values)))
    limit = p_values[order_T[passed[-1]]] if len(passed) else -1.0
    return [bool(p <= limit) for p in p_values]
