import math
from pathlib import Path

import pytest
from made_runs import group, make_run, read

from rlhf.runs.curves import (
    at_kl,
    course,
    even_grid,
    frontier,
    iterations,
    kl_grid,
    kl_lines,
    mean_line,
    over_kl,
    reach,
    validation_course,
)
from rlhf.runs.record import State


def row(iteration: int, kl: float, reward: float) -> dict[str, object]:
    return {"iteration": iteration, "kl": kl, "reward": reward, "gold": None, "length": 9, "entropy": 1}


def made(folder: Path, points: list[tuple[float, float]], seed: int = 0) -> Path:
    rows = [row(place, kl, reward) for place, (kl, reward) in enumerate(points, start=1)]
    return make_run(folder, seed=seed, reports={"ppo": {"iterations": rows}})


def test_the_mean_stops_where_the_first_run_stops():
    assert mean_line([[(1, 2.0), (2, 4.0), (3, 9.0)], [(1, 4.0), (2, 8.0)]]) == [(1, 3.0), (2, 6.0)]
    assert mean_line([]) == []


def test_courses_of_a_group(tmp_path: Path):
    runs = group([made(tmp_path / "a", [(0, 1), (1, 3)]), made(tmp_path / "b", [(0, 2), (1, 5)], seed=1)], "B")
    found = course(runs, "reward")
    assert (found.letter, found.lines) == ("B", ([(1, 1), (2, 3)], [(1, 2), (2, 5)]))
    assert found.mean == [(1, 1.5), (2, 4.0)]
    assert course(runs, "gold").lines == ()


def test_a_run_in_progress_is_read_from_its_ledger_and_repeated_iterations_count_once(tmp_path: Path):
    def metrics(kl: float) -> dict[str, float]:
        return {"objective/kl": kl, "objective/scores": 2 * kl, "response/mean_tokens": 7.0}

    lines = [("sft", 1, {"loss": 1.0}), ("ppo", 1, metrics(0.1)), ("ppo", 2, metrics(0.2)), ("ppo", 2, metrics(0.3))]
    run = read(make_run(tmp_path, state=State.INTERRUPTED, ledger=lines))
    assert [(r["iteration"], r["kl"], r["reward"], r["gold"], r["length"]) for r in iterations(run)] == [
        (1, 0.1, 0.2, None, 7.0),
        (2, 0.3, 0.6, None, 7.0),
    ]


def test_validation_losses(tmp_path: Path):
    loss = [{"step": 5, "train": 1.0, "validation": None}, {"step": 10, "train": 0.9, "validation": 0.8}]
    assert validation_course(group([make_run(tmp_path, reports={"sft": {"loss": loss}})]), "sft").mean == [(10, 0.8)]


def test_rewards_over_kl_are_sorted_and_averaged_in_blocks():
    """Eight points make four blocks of two; the order in which training went does not matter."""
    points = [(3.0, 30.0), (0.0, 0.0), (7.0, 70.0), (1.0, 10.0), (2.0, 20.0), (6.0, 60.0), (5.0, 50.0), (4.0, 40.0)]
    assert over_kl(points) == [(0.5, 5.0), (2.5, 25.0), (4.5, 45.0), (6.5, 65.0)]
    assert over_kl([]) == []
    assert over_kl([(2.0, 1.0)]) == [(2.0, 1.0)]
    assert len(over_kl([(float(x), 0.0) for x in range(5000)])) == 24


def test_nothing_is_extrapolated():
    line = [(1.0, 10.0), (3.0, 30.0)]
    assert [at_kl(line, kl) for kl in (0.9, 1.0, 1.5, 3.0, 3.1)] == [None, 10.0, 15.0, 30.0, None]
    assert at_kl([], 1.0) is None


def test_runs_are_matched_at_equal_kl(tmp_path: Path):
    """Reward is 1 and 3 times the KL; the second run gets half as far."""
    runs = group([made(tmp_path / "a", [(0, 0), (8, 8)]), made(tmp_path / "b", [(0, 0), (4, 12)], seed=1)])
    assert reach(kl_lines(runs, "reward")) == 4.0  # half of the runs
    assert even_grid(kl_lines(runs, "reward"), 4) == [0.0, 2.0, 4.0, 6.0, 8.0]
    found = frontier("A", kl_lines(runs, "reward"), [2.0, 4.0, 6.0, 9.0])
    assert [(p.kl, p.mean, p.n) for p in found.points] == [(2.0, 4.0, 2), (4.0, 8.0, 2), (6.0, 6.0, 1)]
    half = 12.706205 * math.sqrt(8) / math.sqrt(2)  # t(0.975, 1), sd of 2 and 6
    assert (found.points[0].low, found.points[0].high) == pytest.approx((4 - half, 4 + half))
    assert (found.points[2].low, found.points[2].high) == (None, None)


def test_common_kl_values_lie_within_every_group_and_beyond():
    assert kl_grid([0.9, 40.0, 0.0], 3) == pytest.approx([0.3, 0.6, 0.9, 13.93333, 26.96667, 40.0])
    assert kl_grid([2.0, 2.0], 2) == [1.0, 2.0]
    assert kl_grid([0.0], 3) == []


def test_a_group_without_iterations_reaches_nothing(tmp_path: Path):
    runs = group([make_run(tmp_path)])
    assert (
        reach(kl_lines(runs, "reward")),
        even_grid(kl_lines(runs, "reward"), 4),
        frontier("A", kl_lines(runs, "gold"), [1.0]).points,
    ) == (0.0, [], ())
