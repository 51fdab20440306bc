"""Whether a file's labels can be trusted: agreement, annotators, ranking and doubtful judgements in one report."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlhf.labels.records import Judgement
from rlhf.labels.trust.aggregation import Consensus, dawid_skene, right_probabilities, side_biases, skills
from rlhf.labels.trust.agreement import Agreement, agreement
from rlhf.labels.trust.circles import cross_checked, with_other_pairs
from rlhf.labels.trust.kappa import GradedAgreement, graded_agreement
from rlhf.labels.trust.noise import (
    DoubtfulJudgement,
    Opposition,
    SkillTest,
    doubtful_judgements,
    opposed_annotators,
)
from rlhf.labels.trust.quality import LabelRates, label_rates
from rlhf.labels.trust.ranking import Ranking, rank_models
from rlhf.labels.trust.votes import UNKNOWN, Votes, is_compared, tabulate, value_counts
from sft.core.statistics import Estimate, proportion

COIN = 0.5
WORTH_A_VOTE = 0.6
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
    """Chance of being right, ties included; None where nobody else judged their pairs, or all had identical answers."""
    side_bias: Estimate | None
    """-0.5 always right, 0 no lean, 0.5 always left, whichever answer is better."""
    against_the_others: Opposition
    """The tests for being right as often as a coin, and as WORTH_A_VOTE."""
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
            "p_value": self.against_the_others.tests[0].p_value,
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
    graded: GradedAgreement
    converged: bool
    """Whether the fits behind skills, side biases and doubts settled; where they did not, those are approximate. More
    votes per pair settle them; agreement, rates and ranking do not depend on them."""
    annotators: tuple[AnnotatorReport, ...]
    """By name."""
    ranking: Ranking
    noise: tuple[DoubtfulJudgement, ...]
    """Judgements more likely wrong than right, the most doubtful first."""
    wrong_expected: float
    """How many of the compared votes are wrong, by the fit."""
    compared: int
    """Votes on pairs with two votes or more."""
    cross_checked: int
    """Pairs with one vote alone, doubted by what the other pairs of their answers say."""

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
            "pairs_cross_checked": self.cross_checked,
            "agreement": self.agreement.as_dict(),
            "graded_agreement": self.graded.as_dict(),
            "converged": self.converged,
            "annotators": [annotator.as_dict() for annotator in self.annotators],
            "ranking": [model.as_dict() for model in self.ranking.models],
            "ranking_clusters": self.ranking.clusters,
            "ranking_left_out": self.ranking.left_out,
            "noise": [judgement.as_dict() for judgement in self.noise],
            "wrong_expected": self.wrong_expected,
            "wrong_expected_of": self.compared,
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
    best = with_other_pairs(votes, consensus)
    is_compared_N = is_compared(votes)
    return TrustReport(
        judgements=len(judgements),
        votes=len(votes.item_N),
        repeated=votes.repeated,
        identical=votes.identical,
        unnamed=int((votes.annotator_N == UNKNOWN).sum()),
        pairs=len(votes.pairs),
        agreement=agreement(votes, seed=seed, resamples=resamples),
        graded=graded_agreement(votes, seed=seed, resamples=resamples),
        converged=best.converged,
        annotators=_annotators(judgements, votes, consensus),
        ranking=rank_models(judgements, votes),
        noise=tuple(doubtful_judgements(judgements, votes, best)),
        wrong_expected=float((1 - right_probabilities(votes, consensus))[is_compared_N].sum()),
        compared=int(is_compared_N.sum()),
        cross_checked=int(cross_checked(votes).sum()),
    )


def _annotators(judgements: Sequence[Judgement], votes: Votes, consensus: Consensus) -> tuple[AnnotatorReport, ...]:
    given: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        if judgement.annotator is not None:
            given.setdefault(judgement.annotator, []).append(judgement)
    with_others = agreement_with_others(votes)
    skill = dict(zip(votes.annotators, skills(votes, consensus), strict=True))
    lean = dict(zip(votes.annotators, side_biases(votes, consensus), strict=True))
    opposed = {o.annotator: o for o in opposed_annotators(votes, consensus, skills=(COIN, WORTH_A_VOTE))}
    untested = Opposition("", None, (SkillTest(1.0, False),) * 2)
    reports = []
    for name, own in sorted(given.items()):
        rates: LabelRates = label_rates(own)
        against, side = opposed.get(name, untested), lean.get(name)
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
                why=_why(against, side),
            )
        )
    return tuple(reports)


def _why(opposition: Opposition, side: Estimate | None) -> tuple[str, ...]:
    against, guesses = opposition.tests
    reasons = []
    if against.found:
        reasons.append(f"votes against the others more often than a coin would (p = {against.p_value:.2g})")
    elif guesses.found:
        reasons.append(f"is right less often than {WORTH_A_VOTE:.0%} of the time (p = {guesses.p_value:.2g})")
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
