"""Ranking models by the judgements of their answers: Bradley-Terry with ties, and intervals that know of clusters.

Letters: N games (a judgement of answers of two models), K models, C clusters (prompts), P = K + 1 parameters where
there are ties, the last one log of the tie parameter, else K.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse, special, stats
from scipy.sparse import csgraph

from rlhf.labels.records import Choice, Judgement
from rlhf.labels.trust.votes import Floats, Ints, Votes, tabulate
from sft.core.statistics import Estimate

PRIOR_GAMES = 1.0
"""Games of each model against an imaginary one of score 0, half won and half lost."""
MAX_STEPS = 100


class RankedModel(NamedTuple):
    """One model; score.n is its number of games."""

    model: str
    score: Estimate
    """Log odds of being preferred over the average model of its group, ties aside."""
    wins: int
    ties: int
    losses: int
    group: int
    """Models of different groups were never compared, not even by way of others: their scores do not compare."""
    model_error: float
    """Standard error if all games were independent."""
    clustered_error: float
    """Standard error with clusters; the interval takes the larger of the two."""

    def as_dict(self) -> dict[str, object]:
        """Return `{model, score, ci, n, wins, ties, losses, group}`."""
        counts: dict[str, object] = {"wins": self.wins, "ties": self.ties, "losses": self.losses, "group": self.group}
        return {"model": self.model, "score": self.score.value, "ci": list(self.score.ci), "n": self.score.n} | counts


class Ranking(NamedTuple):
    """All models, group by group, the best first."""

    models: tuple[RankedModel, ...]
    games: int
    clusters: int
    left_out: int
    """Judgements without a known model on both sides, or with the same one."""


class Games(NamedTuple):
    """Who met whom, and how it ended."""

    a_N: Ints
    b_N: Ints
    outcome_N: Floats
    """1: a was preferred, 0: b, 0.5: tie."""
    cluster_N: Ints
    models: int


class Fit(NamedTuple):
    """Parameters of the Davidson model and their two covariances; scores have mean 0 in each group."""

    scores_K: Floats
    log_tie: float | None
    """Log of the tie parameter: two equal models tie with odds exp(log_tie) / 2; None without ties."""
    model_covariance_KK: Floats
    clustered_covariance_KK: Floats
    group_K: Ints


def rank_models(judgements: Sequence[Judgement], votes: Votes | None = None) -> Ranking:
    """Rank the models that wrote the answers; clusters are prompts. No usable judgement gives no model.

    Where several pairs of models wrote the same two answers, their one judgement is a game of each pair.

    Args:
        judgements: of any pairs; a judgement that its annotator repeated later does not count.
        votes: the table of these judgements, where the caller has it.
    """
    table = tabulate(judgements) if votes is None else votes
    clusters = table.prompt_I[table.item_N]
    played: list[tuple[str, str, Choice, int]] = []
    left_out = 0
    for source, cluster in zip(table.source_N.tolist(), clusters.tolist(), strict=True):
        models = _models(judgements[source])
        left_out += not models
        played += [(a, b, judgements[source].choice, cluster) for a, b in models]
    if not played:
        return Ranking((), 0, 0, left_out)
    names = sorted({name for a, b, _, _ in played for name in (a, b)})
    number = {name: index for index, name in enumerate(names)}
    points = {Choice.A: 1.0, Choice.TIE: 0.5, Choice.B: 0.0}
    games = Games(
        a_N=np.array([number[a] for a, _, _, _ in played]),
        b_N=np.array([number[b] for _, b, _, _ in played]),
        outcome_N=np.array([points[choice] for _, _, choice, _ in played]),
        cluster_N=np.array([cluster for _, _, _, cluster in played]),
        models=len(names),
    )
    clusters_used = len(np.unique(games.cluster_N))
    return Ranking(_ranked(names, games, fit_davidson(games), clusters_used), len(played), clusters_used, left_out)


def _models(judgement: Judgement) -> list[tuple[str, str]]:
    """Return who played in a judgement: the models of its answers, and others that wrote the same."""
    first = [] if judgement.model_a is None or judgement.model_b is None else [(judgement.model_a, judgement.model_b)]
    return [(a, b) for a, b in (*first, *judgement.also_models) if a != b]


def _ranked(names: list[str], games: Games, fit: Fit, clusters: int) -> tuple[RankedModel, ...]:
    # Student's t: with few clusters the clustered error is itself uncertain.
    reach = float(stats.t.ppf(0.975, max(1, clusters - 1)))
    model_error_K, clustered_error_K = (
        np.sqrt(np.maximum(np.diag(covariance), 0))
        for covariance in (fit.model_covariance_KK, fit.clustered_covariance_KK)
    )
    for_K = [
        np.bincount(games.a_N[games.outcome_N == a], minlength=games.models)
        + np.bincount(games.b_N[games.outcome_N == 1 - a], minlength=games.models)
        for a in (1.0, 0.5, 0.0)
    ]
    ranked = []
    for index, name in enumerate(names):
        wins, ties, losses = (int(counts[index]) for counts in for_K)
        score = float(fit.scores_K[index])
        half = reach * float(max(model_error_K[index], clustered_error_K[index]))
        estimate = Estimate(score, (score - half, score + half), wins + ties + losses)
        errors = float(model_error_K[index]), float(clustered_error_K[index])
        ranked.append(RankedModel(name, estimate, wins, ties, losses, int(fit.group_K[index]), *errors))
    return tuple(sorted(ranked, key=lambda r: (r.group, -r.score.value, r.model)))


def fit_davidson(games: Games, *, prior_games: float = PRIOR_GAMES) -> Fit:
    """Fit P(a), P(tie), P(b) in proportion to exp(gap / 2), tie, exp(-gap / 2), with gap = score a - score b.

    Args:
        games: one or more.
        prior_games: games of each model against an imaginary one of score 0, half won, half lost; they keep the score
            of a model that won everything finite.

    Raises:
        ArithmeticError: no finite scores fit, which happens with prior_games=0 alone.

    Source: Davidson 1970, "On Extending the Bradley-Terry Model to Accommodate Ties"; covariance: Cameron & Miller
    2015, "A Practitioner's Guide to Cluster-Robust Inference", section II.
    """
    has_ties = bool((games.outcome_N == 0.5).any())
    x_P = np.zeros(games.models + has_ties)
    group_K = _groups(games)
    # Scores are free up to a constant in each group: this makes the information invertible and changes nothing else.
    constants_KK = (group_K[:, None] == group_K) / np.bincount(group_K)[group_K]
    constants_PP = np.pad(constants_KK, (0, int(has_ties)))
    # A prior holds the constant itself, and to hold it twice would make each of Newton's steps too short.
    held_PP = constants_PP if prior_games == 0 else np.zeros_like(constants_PP)
    x_P = _maximised(games, x_P, held_PP, prior_games)
    inverse_PP = np.linalg.inv(_derivatives(games, x_P, prior_games)[1] + constants_PP)
    centre_KP = (np.eye(games.models) - constants_KK) @ np.eye(games.models, len(x_P))
    meat_PP = _clustered_squares(games, x_P)
    return Fit(
        scores_K=centre_KP @ x_P,
        log_tie=float(x_P[-1]) if has_ties else None,
        model_covariance_KK=centre_KP @ inverse_PP @ centre_KP.T,
        clustered_covariance_KK=centre_KP @ inverse_PP @ meat_PP @ inverse_PP @ centre_KP.T,
        group_K=group_K,
    )


def _maximised(games: Games, x_P: Floats, held_PP: Floats, prior_games: float) -> Floats:
    """Return the parameters at which the gradient is 0, by Newton's steps of at most 1 from `x_P`."""
    for _ in range(MAX_STEPS):
        gradient_P, information_PP = _derivatives(games, x_P, prior_games)
        if np.linalg.cond(information_PP + held_PP) > 1e12:
            break
        step_P = np.linalg.solve(information_PP + held_PP, gradient_P)
        largest = float(np.abs(step_P).max())
        x_P = x_P + step_P / max(1.0, largest)
        if largest < 1e-9:
            return x_P
    raise ArithmeticError("no finite scores fit these games: some model won or lost all of them; use prior_games=1")


def _groups(games: Games) -> Ints:
    met = sparse.coo_array((np.ones(len(games.a_N)), (games.a_N, games.b_N)), shape=(games.models, games.models))
    return np.asarray(csgraph.connected_components(met, directed=False)[1], dtype=np.int64)


class _Expected(NamedTuple):
    lead_N: Floats
    """P(a) - P(b)."""
    tie_N: Floats


def _expected(games: Games, x_P: Floats) -> _Expected:
    gap_N = (x_P[games.a_N] - x_P[games.b_N]) / 2
    tie_N = np.full_like(gap_N, x_P[-1] if len(x_P) > games.models else -np.inf)
    p_3N = special.softmax(np.stack([gap_N, tie_N, -gap_N]), axis=0)
    return _Expected(p_3N[0] - p_3N[2], p_3N[1])


def _residuals(games: Games, expected: _Expected) -> tuple[Floats, Floats]:
    """Return what each game adds to the gradient of a's score (b's: the negative) and of the log tie parameter."""
    return games.outcome_N - 0.5 - expected.lead_N / 2, (games.outcome_N == 0.5) - expected.tie_N


def _derivatives(games: Games, x_P: Floats, prior_games: float) -> tuple[Floats, Floats]:
    """Return the gradient of the log posterior and the negative of its second derivative."""
    expected = _expected(games, x_P)
    score_N, tied_N = _residuals(games, expected)
    size, K = len(x_P), games.models
    gradient_P = np.bincount(games.a_N, score_N, size) - np.bincount(games.b_N, score_N, size)
    information_PP = np.zeros((size, size))
    weight_N = (1 - expected.tie_N - expected.lead_N**2) / 4
    for row_N, column_N, sign in ((0, 0, 1), (1, 1, 1), (0, 1, -1), (1, 0, -1)):
        row, column = (games.a_N, games.b_N)[row_N], (games.a_N, games.b_N)[column_N]
        np.add.at(information_PP, (row, column), sign * weight_N)
    if size > K:
        gradient_P[K] = tied_N.sum()
        mixed_N = -expected.tie_N * expected.lead_N / 2
        mixed_P = np.bincount(games.a_N, mixed_N, size) - np.bincount(games.b_N, mixed_N, size)
        information_PP[K] += mixed_P
        information_PP[:, K] += mixed_P
        information_PP[K, K] = (expected.tie_N * (1 - expected.tie_N)).sum()
    even_P = special.expit(x_P)
    return (
        gradient_P + prior_games * (0.5 - even_P),
        information_PP + prior_games * np.diag(even_P * (1 - even_P)),
    )


def _clustered_squares(games: Games, x_P: Floats) -> Floats:
    """Return the sum over clusters of the outer product of their gradients, with the factor C / (C - 1)."""
    score_N, tied_N = _residuals(games, _expected(games, x_P))
    clusters, cluster_N = np.unique(games.cluster_N, return_inverse=True)
    tie_column = [(cluster_N, np.full_like(cluster_N, games.models), tied_N)] if len(x_P) > games.models else []
    entries = [(cluster_N, games.a_N, score_N), (cluster_N, games.b_N, -score_N), *tie_column]
    rows, columns, values = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    gradient_CP = sparse.csr_array((values, (rows, columns)), shape=(len(clusters), len(x_P)))
    squares_PP: Floats = (gradient_CP.T @ gradient_CP).toarray()
    return squares_PP * (len(clusters) / max(1, len(clusters) - 1))
