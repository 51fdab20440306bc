"""What is wrong with a search is said before its first trial."""

import pytest

from rlhf.preflight import check
from sft.core.errors import ConfigError

SEARCH = ["-m", "hydra/sweeper=optuna", "reward.judge_fraction=0.3"]


@pytest.mark.parametrize(
    ("words", "field", "rule"),
    [
        ([*SEARCH], "hydra/sweeper", "nothing to search"),
        ([*SEARCH[1:], "ppo.lam=interval(0.8,1.0)"], "hydra/sweeper", "single run"),
        ([*SEARCH, "ppo.lam=interval(0.8,1.5)"], "ppo.lam", "between 0 and 1"),
        ([*SEARCH, "ppo.lam=tag(x,interval(0.8,1.0))"], "ppo.lam", "tag x"),
        ([*SEARCH, "ppo.lambda=interval(0.8,1.0)"], "ppo.lambda", "unknown"),
        ([*SEARCH, "seed=1,2", "search.trial=3"], "search.trial", "set by the search"),
        ([*SEARCH, "seed=1,2", "reward.judge_fraction=0"], "reward.judge_fraction", "needs a judge"),
        (
            [*SEARCH, "seed=1,2", "search.objectives=[worst_bias]", "bias.max_flip_rate=0"],
            "bias.max_flip_rate",
            "no share of a limit",
        ),
        ([*SEARCH, "seed=1,2", "search.objectives=[gold]"], "search.objectives", "what to make better"),
        ([*SEARCH, "seed=1,2", "search.objectives=[]"], "search.objectives", "what to make better"),
        ([*SEARCH, "seed=1,2", "search.objectives=[kl,kl]"], "search.objectives", "twice"),
        ([*SEARCH, "seed=1,2", "search.objectives=[kl]", "search.pruner=median"], "search.pruner", "looked at"),
        ([*SEARCH, "seed=1,2", "search.pruner=median"], "ppo.eval_steps", "must be set"),
        ([*SEARCH, "seed=1,2", "search.storage=postgresql://u:geheim@h/d"], "search.storage", "password"),
        ([*SEARCH, "seed=1,2", "search.storage=mysql://h/d"], "search.storage", "SQLite or PostgreSQL"),
        ([*SEARCH, "seed=1,2", "search.study=../../s"], "search.study", "no name of a folder"),
        ([*SEARCH, "seed=1,2", "labels.source=scripted"], "labels.source", "every trial"),
        (["-m", "ppo.lam=interval(0.8,1.0)"], "ppo.lam", "basic sweeper"),
    ],
)
def test_problems_of_a_search(words: list[str], field: str, rule: str):
    with pytest.raises(ConfigError) as caught:
        check(words)
    assert [problem for problem in caught.value.problems if problem.field == field and rule in problem.rule]
    assert "geheim" not in str(caught.value)


def test_every_corner_of_a_small_search_is_checked():
    rounds = ["labels.source=file", "labels.rounds=1"]
    points = check([*SEARCH, "ppo.lam=interval(0.8,0.9)", "experiment=quickstart,iterative", *rounds])
    assert {(point.config.ppo.lam, point.experiment) for point in points} == {
        (lam, name) for lam in (0.8, 0.9) for name in ("quickstart", "iterative")
    }
    assert all(point.config.search.is_trial for point in points)


def test_every_end_of_a_large_search_is_checked():
    words = [f"ppo.{name}=interval(0.1,0.9)" for name in ("lam", "gamma", "cliprange", "kl_coef", "vf_coef")]
    words += ["sft.learning_rate=interval(1e-5,1e-3)", "ppo.cliprange_value=interval(0.1,0.9)", "seed=1,2,3,4"]
    points = check([*SEARCH, *words])
    assert len(points) == 1 + 7 + 3
    assert {point.config.ppo.gamma for point in points} == {0.1, 0.9}
    assert {point.config.seed for point in points} == {1, 2, 3, 4}
    with pytest.raises(ConfigError, match=r"ppo\.gamma=9"):
        check([*SEARCH, *words, "ppo.gamma=interval(0.1,9)"])


def test_without_a_search_there_are_no_trials():
    assert not check(["seed=1"])[0].config.search.is_trial
