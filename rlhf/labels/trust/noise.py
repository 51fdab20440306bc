"""Judgements that are probably wrong, and annotators whose judgements should not be used.

Letters: N votes, K annotators, T tests.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from rlhf.labels.records import Choice, Judgement
from rlhf.labels.trust.aggregation import Consensus, right_probabilities, without_own_vote
from rlhf.labels.trust.votes import FIRST, SECOND, TIE, Floats, Ints, Votes, is_compared
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
    right_N = right_probabilities(votes, consensus)
    wrong_N, labels_I = 1 - right_N, consensus.labels_I
    is_another_likelier_N = consensus.posterior_I3.max(axis=1)[votes.item_N] > right_N
    at = np.flatnonzero((wrong_N > above) & is_another_likelier_N)
    ordered = at[np.lexsort((votes.source_N[at], -wrong_N[at]))]
    found = []
    for n in ordered.tolist():
        judgement = judgements[int(votes.source_N[n])]
        item = int(votes.item_N[n])
        truth = labels_I[item]
        likely = Choice.TIE if truth == TIE else Choice.A if truth == votes.a_is_N[n] else Choice.B
        where = (judgement.line, judgement.digest, judgement.annotator, votes.pairs[item])
        found.append(DoubtfulJudgement(*where, judgement.choice, likely, float(wrong_N[n])))
    return found


class SkillTest(NamedTuple):
    """Whether one annotator is right less often than a test supposes."""

    p_value: float
    """Chance of so small a share if the annotator were right as often as the test supposes; 1 if untestable."""
    found: bool
    """Whether the annotator is among those that the test names."""


class Opposition(NamedTuple):
    """How one annotator's votes stand to what the others say; ties on either side are left out."""

    annotator: str
    with_others: Estimate | None
    """Share of votes for the answer that the others' votes speak for; None without such pairs."""
    tests: tuple[SkillTest, ...]
    """One per skill that was supposed, in that order."""


def opposed_annotators(
    votes: Votes, consensus: Consensus, *, skills: Sequence[float] = (0.5,), rate: float = FALSE_DISCOVERY_RATE
) -> list[Opposition]:
    """Test each known annotator for agreeing with the others less than someone who is right with a given chance.

    At 0.5 it finds those who vote against the better answer more often than a coin: swapped buttons, or poison. Of
    those found at one skill, at most `rate` are expected to be right so often or more. What the others say about a
    pair leaves out the annotator's own vote, and counts for less where they are unsure.

    Args:
        votes: of three annotators or more; with fewer nobody is found.
        consensus: fitted to the table.
        skills: 0.5 to 1 each, the chances of being right between two answers that the tests suppose.
        rate: the false discovery rate, 0 to 1.

    Returns:
        One per known annotator, in the order of `votes.annotators`.

    Source: Benjamini & Hochberg 1995, "Controlling the False Discovery Rate"; the binomial tail bounds that of votes
    with different chances: Hoeffding 1956, "On the Distribution of the Number of Successes in Independent Trials".
    """
    others_N3 = without_own_vote(votes, consensus)
    first_N, second_N = others_N3[:, FIRST], others_N3[:, SECOND]
    tested_N = is_compared(votes) & (votes.value_N != TIE) & (np.abs(first_N - second_N) > 1e-6)
    sure_N = np.maximum(first_N, second_N) / np.maximum(first_N + second_N, 1e-12)
    agrees_N = votes.value_N == np.where(first_N > second_N, FIRST, SECOND)
    supposed_T = np.asarray(skills, dtype=np.float64)
    enough = len(votes.annotators) >= MIN_ANNOTATORS
    shares: list[Estimate | None] = []
    p_values_TK = np.ones((len(supposed_T), len(votes.annotators)))
    for k in range(len(votes.annotators)):
        mine = tested_N & (votes.annotator_N == k)
        shares.append(proportion(agrees_N[mine].astype(np.float64)) if mine.any() else None)
        if mine.any() and enough:
            sure = sure_N[mine].mean()
            chance_T = sure * supposed_T + (1 - sure) * (1 - supposed_T)
            p_values_TK[:, k] = stats.binom.cdf(agrees_N[mine].sum(), mine.sum(), chance_T)
    tests_TK = [
        [SkillTest(p, found) for p, found in zip(row.tolist(), benjamini_hochberg(row, rate=rate), strict=True)]
        for row in p_values_TK
    ]
    return [
        Opposition(name, share, tuple(tests[k] for tests in tests_TK))
        for k, (name, share) in enumerate(zip(votes.annotators, shares, strict=True))
    ]


def benjamini_hochberg(p_values: Floats, *, rate: float) -> list[bool]:
    """Tell which of T tests are discoveries, so that at most `rate` of them are expected to be false.

    Source: Benjamini & Hochberg 1995, "Controlling the False Discovery Rate", equation 1.
    """
    order_T: Ints = np.argsort(p_values, kind="stable")
    passed = np.flatnonzero(p_values[order_T] <= rate * np.arange(1, len(p_values) + 1) / max(1, len(p_values)))
    limit = p_values[order_T[passed[-1]]] if len(passed) else -1.0
    return [bool(p <= limit) for p in p_values]
