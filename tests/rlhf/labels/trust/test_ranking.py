import math
import random
from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize, special
from voters import judge, needs_pandalm, pandalm

from rlhf.labels.records import Choice, Judgement
from rlhf.labels.trust.ranking import Games, Ranking, fit_davidson, rank_models
from sft.core.text import user

A, B, TIE = Choice.A, Choice.B, Choice.TIE


def game(prompt: str, first: str | None, second: str | None, choice: Choice, who: str | None = None) -> Judgement:
    return replace(judge(prompt, choice, who), model_a=first, model_b=second)


def games(rows: list[tuple[int, int, float, int]], models: int) -> Games:
    a, b, outcome, cluster = zip(*rows, strict=True)
    return Games(np.array(a), np.array(b), np.array(outcome), np.array(cluster), models)


def drawn(scores: list[float], tie: float, *, seed: int, prompts: int, votes: int = 1) -> list[Judgement]:
    """Return games by the Davidson model; the `votes` judgements of a prompt are all the same."""
    generator = random.Random(seed)
    given = []
    for prompt in range(prompts):
        i, k = generator.sample(range(len(scores)), 2)
        gap = (scores[i] - scores[k]) / 2
        [choice] = generator.choices([A, TIE, B], weights=[math.exp(gap), tie, math.exp(-gap)])
        given += [game(f"p{prompt}", f"m{i}", f"m{k}", choice, f"ann{v}") for v in range(votes)]
    return given


def test_two_models_by_hand():
    # 6 wins to 2, 4 ties: odds 3, and tie / sqrt(win * loss) = 4 / sqrt(12).
    rows = [(0, 1, outcome, n) for n, outcome in enumerate([1.0] * 6 + [0.0] * 2 + [0.5] * 4)]
    fit = fit_davidson(games(rows, 2), prior_games=0)
    assert fit.scores_K == pytest.approx([math.log(3) / 2, -math.log(3) / 2], abs=1e-9)
    assert fit.log_tie == pytest.approx(math.log(4 / math.sqrt(12)), abs=1e-9)
    # Without ties: the error of a log odds of 6 to 2 is sqrt(1 / 6 + 1 / 2), and of half of it half.
    plain = fit_davidson(games(rows[:8], 2), prior_games=0)
    assert plain.log_tie is None
    assert np.sqrt(plain.model_covariance_KK[0, 0]) == pytest.approx(math.sqrt(1 / 6 + 1 / 2) / 2, abs=1e-9)
    # Every game a cluster: sum of squared residuals is 6 / 16 + 2 * 9 / 16, information 8 * 3 / 16.
    variance = (6 / 16 + 18 / 16) / 1.5**2 * 8 / 7 / 4
    assert plain.clustered_covariance_KK[0, 0] == pytest.approx(variance, abs=1e-9)


def test_scores_maximise_the_likelihood():
    generator = random.Random(0)
    rows = [(*generator.sample(range(4), 2), generator.choice([0.0, 0.5, 1.0, 1.0]), n) for n in range(80)]
    table = games(rows, 4)  # type: ignore[arg-type]

    def loss(x: np.ndarray) -> float:
        gap = (x[table.a_N] - x[table.b_N]) / 2
        logits = np.stack([-gap, np.full_like(gap, x[4]), gap])
        chosen = logits[(2 * table.outcome_N).astype(int), np.arange(len(gap))]
        return float((np.log(np.exp(logits).sum(axis=0)) - chosen).sum() + 1e-9 * (x @ x))

    reference = optimize.minimize(loss, np.zeros(5), method="BFGS").x
    fit = fit_davidson(table, prior_games=0)
    assert fit.scores_K == pytest.approx(reference[:4] - reference[:4].mean(), abs=1e-4)
    assert fit.log_tie == pytest.approx(reference[4], abs=1e-4)


def test_interval_covers_the_truth_under_clusters():
    scores, held, naive = [0.5, 0.0, -0.5], 0, 0
    for seed in range(100):
        ranking = rank_models(drawn(scores, 0.5, seed=seed, prompts=150, votes=4))
        for model in ranking.models:
            truth = scores[int(model.model[1])]
            held += model.score.ci[0] <= truth <= model.score.ci[1]
            naive += abs(model.score.value - truth) <= 1.96 * model.model_error
    assert 0.91 <= held / 300 <= 0.99
    assert naive / 300 < 0.8


def test_counts_and_order():
    given = [
        game("p", "x", "y", A, "ann"),
        game("p", "x", "y", A, "bob").swapped(),
        game("q", "x", "y", TIE, "ann"),
        game("r", "x", "y", B, "ann"),
        game("s", None, "y", B, "ann"),
        game("t", "y", "y", B, "ann"),
    ]
    ranking = rank_models(given)
    assert [(m.model, m.wins, m.ties, m.losses, m.score.n) for m in ranking.models] == [
        ("x", 2, 1, 1, 4),
        ("y", 1, 1, 2, 4),
    ]
    assert (ranking.games, ranking.clusters, ranking.left_out) == (4, 3, 2)
    assert ranking.models[0].as_dict().keys() == {"model", "score", "ci", "n", "wins", "ties", "losses", "group"}
    assert rank_models([g.swapped() for g in given]) == ranking
    assert rank_models([]) == Ranking((), 0, 0, 0)


def test_a_model_that_won_everything_has_a_finite_score():
    ranking = rank_models([game(f"p{n}", "x", "y", A) for n in range(5)])
    assert 0 < ranking.models[0].score.value < 5
    assert ranking.models[0].score.ci[0] < ranking.models[0].score.value - 0.5
    with pytest.raises(ArithmeticError, match="use prior_games=1"):
        fit_davidson(games([(0, 1, 1.0, 0), (0, 1, 1.0, 1)], 2), prior_games=0)
    only_ties = rank_models([game(f"p{n}", "x", "y", TIE) for n in range(5)])
    assert [m.score.value for m in only_ties.models] == pytest.approx([0, 0], abs=1e-9)
    one_prompt = rank_models([game("p", "x", "y", A)])
    assert one_prompt.models[0].score.ci[0] < 0 < one_prompt.models[0].score.ci[1]


def test_a_model_that_won_against_several_has_a_finite_score_too():
    ranking = rank_models(
        [*(game(f"p{n}", "x", "y", A) for n in range(40)), *(game(f"q{n}", "x", "z", A) for n in range(3))]
    )
    assert [m.model for m in ranking.models] == ["x", "z", "y"]
    scores_K = np.array([m.score.value for m in ranking.models])
    assert 2 < scores_K[0] < 6
    # the gradient of the log posterior at the scores, up to their common constant c, which the prior sets
    c = optimize.brentq(lambda c: (0.5 - special.expit(scores_K + c)).sum(), -9, 9)
    lost_N = special.expit(-(scores_K[0] - scores_K[1:]))
    pull_K = 0.5 - special.expit(scores_K + c)
    assert pull_K[1:] == pytest.approx([3 * lost_N[0], 40 * lost_N[1]], abs=1e-6)
    assert pull_K[0] == pytest.approx(-(3 * lost_N[0] + 40 * lost_N[1]), abs=1e-6)


def test_one_judgement_is_a_game_of_every_pair_of_models_that_wrote_the_answers():
    plain = game("p", "x", "y", A)
    also = replace(plain, also_models=(("y", "z"), ("v", "v")))
    for given in (also, also.swapped()):
        ranking = rank_models([given])
        assert [(m.model, m.wins, m.losses) for m in ranking.models] == [("x", 1, 0), ("y", 1, 1), ("z", 0, 1)]
        assert not any(math.isnan(m.clustered_error) for m in ranking.models)
    unknown = replace(also, model_a=None, also_models=())
    assert (rank_models([also, unknown]).games, rank_models([also, unknown]).left_out) == (2, 1)


def test_models_that_never_met_stand_in_groups():
    ranking = rank_models([game("p", "x", "y", A), game("q", "v", "w", B), game("r", "y", "z", A)])
    groups = {m.model: m.group for m in ranking.models}
    assert groups["x"] == groups["y"] == groups["z"] != groups["v"] == groups["w"]
    for group in (0, 1):
        assert sum(m.score.value for m in ranking.models if m.group == group) == pytest.approx(0, abs=1e-9)


@needs_pandalm
def test_three_judges_of_one_row_of_pandalm_are_no_three_rows():
    # Each row is a cluster; measured elsewhere on 999 rows: 0.047 for independent votes, 0.075 clustered.
    given = [replace(j, prompt=user(f"{j.line} {j.prompt[-1].content}")) for j in pandalm()]
    ranking = rank_models(given)
    assert len(ranking.models) == 5
    assert ranking.games + ranking.left_out + 3 * (700 - ranking.clusters) >= 2000
    ratios = [m.clustered_error / m.model_error for m in ranking.models]
    assert 1.4 < min(ratios) <= max(ratios) < 1.8
    assert 0.04 < np.mean([m.model_error for m in ranking.models]) < 0.08
