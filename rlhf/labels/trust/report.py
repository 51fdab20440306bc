"""Whether a file's labels can be trusted: agreement, annotators, ranking and doubtful judgements in one report."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlhf.labels.records import Judgement
from rlhf.labels.trust.aggregation import Consensus, dawid_skene, right_probabilities, side_biases, skills
from rlhf.labels.trust.agreement import UNKNOWN, Agreement, Votes, agreement, tabulate, value_counts
from rlhf.labels.trust.noise import (
    DoubtfulJudgement,
    Opposition,
    doubtful_judgements,
    opposed_annotators,
)
from rlhf.labels.trust.quality import LabelRates, label_rates
from rlhf.labels.trust.ranking import Ranking, rank_models
from sft.core.statistics import Estimate, proportion

WORSE_THAN_CHANCE = 0.5
HARDLY_BETTER_THAN_CHANCE = 0.6
"""Who is right less often than this, between two answers, adds little to a vote."""
SIDE_BIAS_LIMIT = 0.1
"""A lean whose whole interval is further from 0 than this is a habit, 0.5 being always the same side."""


@dataclass(frozen=True, kw_only=True)
class AnnotatorReport:
    """One annotator. Rates are None where no judgement tells them."""

    name: str
    n: int
    """Judgements, repeated ones included."""
    agreement: Estimate | None
    """Chance that another vote on the same pair is the same."""
    left: Estimate | None
    longer: Estimate | None
    tie: Estimate
    skill: Estimate | None
    """Chance of being right, ties included; None when every pair they judged had identical answers."""
    side_bias: Estimate | None
    """-0.5 always right, 0 no lean, 0.5 always left, whichever answer is better."""
    against_the_others: Opposition
    """The test for votes against the better answer."""
    why: tuple[str, ...]
    """What is suspicious, in words; nothing when nothing is."""

    def as_dict(self) -> dict[str, object]:
        """Return the fields for JSON; an estimate is `{value, ci, n}` or None."""
        rates = {
            "agreement": self.agreement,
            "left": self.left,
            "longer": self.longer,
            "tie": self.tie,
            "skill": self.skill,
            "side_bias": self.side_bias,
            "with_the_others": self.against_the_others.with_others,
        }
        return {
            "name": self.name,
            "n": self.n,
            **{name: _json(estimate) for name, estimate in rates.items()},
            "p_value": self.against_the_others.p_value,
            "suspicious": bool(self.why),
            "why": list(self.why),
        }


@dataclass(frozen=True, kw_only=True)
class TrustReport:
    """All of it. judgements = votes + repeated + identical."""

    judgements: int
    votes: int
    repeated: int
    """Judgements that their annotator gave again later; the last one counts."""
    identical: int
    """Judgements of two answers of the same text; they count for the habits alone."""
    unnamed: int
    """Votes without an annotator's name."""
    pairs: int
    agreement: Agreement
    converged: bool
    """Whether the Dawid-Skene fit behind skills and doubts did."""
    annotators: tuple[AnnotatorReport, ...]
    """By name."""
    ranking: Ranking
    noise: tuple[DoubtfulJudgement, ...]
    """Judgements more likely wrong than right, the most doubtful first."""
    wrong_expected: float
    """How many of the votes are wrong, by the fit."""

    def as_dict(self) -> dict[str, object]:
        """Return the report for JSON."""
        return {
            "judgements": self.judgements,
            "votes": self.votes,
            "repeated": self.repeated,
            "identical": self.identical,
            "unnamed": self.unnamed,
            "pairs": self.pairs,
            "pairs_with_two_votes": self.agreement.pairs,
            "agreement": self.agreement.as_dict(),
            "converged": self.converged,
            "annotators": [annotator.as_dict() for annotator in self.annotators],
            "ranking": [model.as_dict() for model in self.ranking.models],
            "ranking_clusters": self.ranking.clusters,
            "ranking_left_out": self.ranking.left_out,
            "noise": [judgement.as_dict() for judgement in self.noise],
            "wrong_expected": self.wrong_expected,
        }


def _json(estimate: Estimate | None) -> dict[str, object] | None:
    return None if estimate is None else estimate.as_dict()


def trust_report(judgements: Sequence[Judgement], *, seed: int, resamples: int = 1000) -> TrustReport:
    """Return all numbers about a set of judgements. No judgements give a report of nothing.

    Args:
        judgements: of any pairs, in the order in which they were given.
        seed: of the resampling behind the agreement's intervals; everything else is without chance.
        resamples: how many, at least 100.

    Raises:
        ValueError: resamples is below 100.
    """
    votes = tabulate(judgements)
    consensus = dawid_skene(votes)
    return TrustReport(
        judgements=len(judgements),
        votes=len(votes.item_N),
        repeated=votes.repeated,
        identical=votes.identical,
        unnamed=int((votes.annotator_N == UNKNOWN).sum()),
        pairs=len(votes.pairs),
        agreement=agreement(votes, seed=seed, resamples=resamples),
        converged=consensus.converged,
        annotators=_annotators(judgements, votes, consensus),
        ranking=rank_models(judgements, votes),
        noise=tuple(doubtful_judgements(judgements, votes, consensus)),
        wrong_expected=float((1 - right_probabilities(votes, consensus)).sum()),
    )


def _annotators(judgements: Sequence[Judgement], votes: Votes, consensus: Consensus) -> tuple[AnnotatorReport, ...]:
    given: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        if judgement.annotator is not None:
            given.setdefault(judgement.annotator, []).append(judgement)
    with_others = agreement_with_others(votes)
    skill = dict(zip(votes.annotators, skills(votes, consensus), strict=True))
    lean = dict(zip(votes.annotators, side_biases(votes, consensus), strict=True))
    poisoned = {o.annotator: o for o in opposed_annotators(votes, consensus, skill=WORSE_THAN_CHANCE)}
    guessing = {o.annotator: o for o in opposed_annotators(votes, consensus, skill=HARDLY_BETTER_THAN_CHANCE)}
    untested = Opposition("", None, 1.0, False)
    reports = []
    for name, own in sorted(given.items()):
        rates: LabelRates = label_rates(own)
        against, guesses, side = (poisoned.get(name, untested), guessing.get(name, untested), lean.get(name))
        reports.append(
            AnnotatorReport(
                name=name,
                n=len(own),
                agreement=with_others.get(name),
                left=rates.left,
                longer=rates.longer,
                tie=rates.tie,
                skill=skill.get(name),
                side_bias=side,
                against_the_others=against,
                why=_why(against, guesses, side),
            )
        )
    return tuple(reports)


def _why(against: Opposition, guesses: Opposition, side: Estimate | None) -> tuple[str, ...]:
    reasons = []
    if against.found:
        reasons.append(f"votes against the others more often than a coin would (p = {against.p_value:.2g})")
    elif guesses.found:
        reasons.append(
            f"is right less often than {HARDLY_BETTER_THAN_CHANCE:.0%} of the time (p = {guesses.p_value:.2g})"
        )
    if side is not None and side.ci[0] > SIDE_BIAS_LIMIT:
        reasons.append(f"leans to the left answer whichever is better (by {side.value:.0%} of votes)")
    if side is not None and side.ci[1] < -SIDE_BIAS_LIMIT:
        reasons.append(f"leans to the right answer whichever is better (by {-side.value:.0%} of votes)")
    return tuple(reasons)


def agreement_with_others(votes: Votes) -> dict[str, Estimate]:
    """Return for each annotator the chance that another vote on the same pair is the same, mean over their pairs.

    Annotators who share no pair with anybody are not in it. The interval is Wilson's, n their pairs with others.
    """
    return {name: proportion(shares) for name, shares in shares_with_others(votes).items() if shares}


def shares_with_others(votes: Votes) -> dict[str, list[float]]:
    """Return for each of an annotator's votes on shared pairs the share of the others' that are the same, in order."""
    counts_I3 = value_counts(votes)
    others_N = counts_I3.sum(axis=1)[votes.item_N] - 1
    share_N = (counts_I3[votes.item_N, votes.value_N] - 1) / np.maximum(others_N, 1)
    order = np.argsort(votes.source_N, kind="stable")
    order = order[others_N[order] > 0]
    return {name: share_N[order[votes.annotator_N[order] == k]].tolist() for k, name in enumerate(votes.annotators)}
