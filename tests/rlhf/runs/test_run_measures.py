import math
from pathlib import Path

import pytest
from made_runs import change, estimate, group, make_run, read

from rlhf.runs.measures import HEADLINES, VALIDATION, Basis, across_seeds, difference, measure_names
from rlhf.search.config import Objective


def seeds(folder: Path, values: dict[int, float], letter: str = "A"):
    return group([make_run(folder / str(s), seed=s, numbers={"kl": estimate(v)}) for s, v in values.items()], letter)


def test_seeds_have_students_interval(tmp_path: Path):
    found = across_seeds(seeds(tmp_path, {0: 1.0, 1: 2.0, 2: 3.0}), "kl")
    assert found is not None
    assert (found.mean, found.n, found.basis) == (2.0, 3, Basis.SEEDS)
    assert found.interval == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)))
    assert found.values == ((0, 1.0), (1, 2.0), (2, 3.0))
    assert found.as_dict()["interval_over"] == "seeds"


def test_one_seed_keeps_its_own_interval_and_says_over_what(tmp_path: Path):
    found = across_seeds(seeds(tmp_path, {4: 1.0}), "kl")
    assert found is not None
    assert (found.interval, found.n, found.basis) == ((0.9, 1.1), 1, Basis.PROMPTS)
    only = group([make_run(tmp_path / "plain", numbers={"ece": 0.5})])
    plain = across_seeds(only, "ece")
    assert plain is not None
    assert (plain.interval, plain.basis) == (None, Basis.NONE)
    assert across_seeds(only, "kl") is None


def test_runs_without_results_do_not_count(tmp_path: Path):
    folders = [make_run(tmp_path / "0", seed=0, numbers={"kl": estimate(1.0)}), make_run(tmp_path / "1", seed=1)]
    found = across_seeds(group(folders), "kl")
    assert found is not None
    assert found.n == 1


def test_differences_are_paired_by_seed(tmp_path: Path):
    """Seeds differ by 10, the treatment by 1, 2 and 3: unpaired, nothing could be seen."""
    own = seeds(tmp_path / "b", {0: 11.0, 1: 22.0, 2: 33.0, 9: 5.0})
    other = seeds(tmp_path / "a", {0: 10.0, 1: 20.0, 2: 30.0, 8: 5.0})
    found = difference(own, other, "kl")
    assert found is not None
    assert (found.mean, found.n) == (2.0, 3)
    assert found.interval == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)))
    one = difference(own, seeds(tmp_path / "c", {9: 1.0}), "kl")
    assert one is not None
    assert (one.mean, one.interval, one.basis) == (4.0, None, Basis.NONE)
    assert difference(own, seeds(tmp_path / "d", {7: 1.0}), "kl") is None


def test_a_trials_objectives_have_names_of_their_own(tmp_path: Path):
    folder = make_run(tmp_path / "0", config={"search": {"trial": 0, "objectives": ["win_rate"]}}, numbers={})
    change(folder / "results.json", objectives={"win_rate": estimate(0.5)}, gold=None, evaluation={"kl": estimate(1.0)})
    assert measure_names([read(folder)]) == ["validation_win_rate"]
    found = across_seeds(group([folder]), "validation_win_rate")
    assert found is not None
    assert (found.mean, found.interval) == (0.5, (0.4, 0.6))


def test_every_objective_of_a_search_has_a_title():
    titled = {measure.name for measure in HEADLINES if measure.name.startswith(VALIDATION)}
    assert titled == {f"{VALIDATION}{name}" for name in [*Objective, "gold"]}


def test_names_of_all_runs_headlines_first(tmp_path: Path):
    numbers = {"zeta": 1, "kl": estimate(1.0), "judge": "gold", "win_rate": estimate(0.5)}
    runs = group([make_run(tmp_path / "a", numbers=numbers), make_run(tmp_path / "b", numbers={"alpha": 2})]).runs
    assert measure_names(runs) == ["win_rate", "kl", "alpha", "zeta"]
