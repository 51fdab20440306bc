from pathlib import Path

import pytest
from made_runs import group, make_run, read, scores

from rlhf.runs.duels import OWN_SFT, Duel, Refusal, matrix, read_scores
from rlhf.runs.groups import Group
from sft.core.statistics import wilson_interval


def judged(folder: Path, kept: dict[str, object], seed: int = 0) -> Path:
    return make_run(folder, seed=seed, reports={"evaluation": {"scores": kept}})


def cells(*groups: Group) -> dict[tuple[str, str], Duel | Refusal]:
    return {(cell.row, cell.column): cell.found for cell in matrix(groups, 12).cells}


def test_every_answer_meets_every_answer_to_the_same_prompt(tmp_path: Path):
    # Prompt p: 3 > 2, 3 > 1, 1 < 2, 1 = 1, so 2.5 of 4. Prompt q: 4 of 4.
    a = group([judged(tmp_path / "a", scores([3, 1, 5, 5]))], "A")
    b = group([judged(tmp_path / "b", scores([2, 1, 4, 4]))], "B")
    found = cells(a, b)
    duel = found["A", "B"]
    assert isinstance(duel, Duel)
    assert (duel.share, duel.prompts, duel.pairs) == ((2.5 / 4 + 1) / 2, 2, 1)
    assert (duel.seeds_low, duel.seeds_high) == (None, None)
    back = found["B", "A"]
    assert isinstance(back, Duel)
    assert back.share == pytest.approx(1 - duel.share)
    assert (back.low, back.high) == pytest.approx((1 - duel.high, 1 - duel.low))
    own = found["A", OWN_SFT]
    assert isinstance(own, Duel)
    assert (own.share, own.prompts) == (1.0, 2)
    assert (own.low, own.high) == wilson_interval(2, 2)


def test_seeds_are_paired_and_prompts_cluster_over_them(tmp_path: Path):
    a = group([judged(tmp_path / f"a{s}", scores([9, 9, 9, 9] if s else [9, 9, 0, 0]), s) for s in (0, 1)], "A")
    b = group([judged(tmp_path / f"b{s}", scores([5, 5, 5, 5]), s) for s in (1, 0, 7)], "B")
    duel = cells(a, b)["A", "B"]
    assert isinstance(duel, Duel)
    assert (duel.share, duel.prompts, duel.pairs) == (0.75, 2, 2)
    assert (duel.seeds_low, duel.seeds_high) == (0.0, 1.0)  # Student's -2.4 to 3.9, cut
    # Two prompts with hits (1, 1) and (0, 1): SE^2 = (0.5^2 + 0.5^2) / 16 * 2.
    effective = 0.75 * 0.25 / 0.0625
    assert (duel.low, duel.high) == pytest.approx(wilson_interval(0.75 * effective, effective))


def test_seeds_have_students_interval(tmp_path: Path):
    a = group([judged(tmp_path / f"a{s}", scores([5 + (s < 2), 5, 5, 5]), s) for s in range(4)], "A")
    b = group([judged(tmp_path / f"b{s}", scores([5, 5, 5, 5]), s) for s in range(4)], "B")
    duel = cells(a, b)["A", "B"]
    assert isinstance(duel, Duel)
    # Shares 0.625, 0.625, 0.5, 0.5: t(0.975, 3) = 3.182446, sd = 0.0721688.
    assert duel.share == 0.5625
    half = 3.182446 * 0.0721688 / 2
    assert (duel.seeds_low, duel.seeds_high) == pytest.approx((0.5625 - half, 0.5625 + half))


def test_without_a_common_seed_all_runs_meet(tmp_path: Path):
    a = group([judged(tmp_path / f"a{s}", scores([9] * 4), s) for s in (0, 1)], "A")
    b = group([judged(tmp_path / f"b{s}", scores([5] * 4), s) for s in (2, 3, 4)], "B")
    duel = cells(a, b)["A", "B"]
    assert isinstance(duel, Duel)
    assert (duel.pairs, duel.share) == (6, 1.0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"judge_sha256": "other"}, "different judges"),
        ({"judge": "held-out reward model"}, "different judges"),
        ({"prompts": ["x", "x", "y", "y"]}, "no common prompts"),
        ({"prompts": None}, "no scores kept"),
        ({"prompts": ["p"]}, "no scores kept"),
    ],
)
def test_what_does_not_compare_is_refused_with_the_reason(tmp_path: Path, changes: dict[str, object], reason: str):
    a = group([judged(tmp_path / "a", scores([1] * 4))], "A")
    b = group([judged(tmp_path / "b", scores([1] * 4, **changes))], "B")
    assert cells(a, b)["A", "B"] == Refusal(reason)


def test_runs_without_an_evaluation_have_no_scores(tmp_path: Path):
    assert read_scores(read(make_run(tmp_path))) is None


def test_groups_without_room_are_named(tmp_path: Path):
    groups = [group([judged(tmp_path / name, scores([1] * 4))], name) for name in "ABC"]
    found = matrix(groups, 2)
    assert (found.letters, found.left_out, found.judges) == (("A", "B"), ("C",), ("gold",))
    assert {(cell.row, cell.column) for cell in found.cells} == {("A", "B"), ("B", "A"), ("A", "SFT"), ("B", "SFT")}
