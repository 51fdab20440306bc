from pathlib import Path

import pytest
from made_runs import change, estimate, make_run, read
from rich.console import Console

from rlhf.runs.compare import compare
from rlhf.runs.folder import find_runs
from rlhf.runs.lines import Column, cell, laid_out, wrapped
from rlhf.runs.render import comparison_page, run_list, run_page

RUN_ID = "quickstart-20261122-030703-c495"


def printed(columns: list[Column], below: list[list[str]], width: int | None) -> list[str]:
    console = Console(width=width or 500)
    with console.capture() as said:
        console.print(laid_out(columns, below, called="own", width=width), soft_wrap=width is None)
    return [line.rstrip() for line in said.get().splitlines()]


def column(title: str, *values: str | None, leaves: int = 0) -> Column:
    return Column(title, [cell(value) for value in values], leaves)


def test_columns_leave_by_their_rank_until_the_rest_fits():
    columns = [column("id", "a" * 10), column("x", "1.234", leaves=2), column("y", "5.678", leaves=1)]
    # 10 + 2 + 5 + 2 + 5 = 24
    assert printed(columns, [[]], 24) == ["id          x      y", "aaaaaaaaaa  1.234  5.678"]
    left_out = "left out in 23 columns: x; a wider terminal, a pipe and --json have them"
    narrow = printed(columns, [[]], 23)
    assert narrow[:2] == ["id          y", "aaaaaaaaaa  5.678"]
    assert " ".join(narrow[2:]) == left_out


def test_what_cannot_leave_is_folded_and_never_cut():
    lines = printed([column("id", "0123456789")], [["abcdefghijkl"]], 6)
    assert "".join(lines[1:3]) == "0123456789"
    assert "".join(line.strip() for line in lines[3:]) == "abcdefghijkl"


def test_a_pipe_has_one_line_for_each_however_long():
    lines = printed([column("id", "a", "bb")], [["w" * 400, "v" * 400], []], None)
    assert lines == ["id  own", f"a   {'w' * 400} {'v' * 400}", "bb"]


def test_columns_without_a_value_are_named():
    assert printed([column("id", "a"), column("x", None, leaves=1)], [[]], 80) == ["id", "a", "none here has: x"]


def test_pieces_are_wrapped_between_each_other():
    assert wrapped(["60 % [40, 80],", "n 20", "x" * 20, "y"], 19) == ["60 % [40, 80], n 20", "x" * 20, "y"]
    assert wrapped(["日本", "日本"], 8) == ["日本", "日本"]  # two cells a character
    assert wrapped([], 8) == []


def test_a_narrow_comparison_keeps_the_first_number_of_trials_beside_that_of_other_runs(tmp_path: Path):
    make_run(tmp_path / "run", numbers={name: estimate(0.5) for name in ("win_rate", "kl", "policy_gold")})
    trial = make_run(tmp_path / "trial", config={"search": {"trial": 0}}, numbers={})
    change(trial / "results.json", objectives={"win_rate": estimate(0.7)}, gold=estimate(0.1))
    console = Console(width=90)
    with console.capture() as said:
        console.print(comparison_page(compare(find_runs([tmp_path])), 90))
    assert "70.0 % [60.0, 80.0] (prompts)" in said.get()
    assert "50.0 % [40.0, 60.0] (prompts)" in said.get()
    assert "left out in 90 columns: gold, KL, validation: gold;" in said.get()


def test_the_page_of_a_run_cuts_nothing_either(tmp_path: Path):
    word = f"search.storage=sqlite:///{'deep/' * 20}study.sqlite"
    console = Console(width=60)
    with console.capture() as said:
        console.print(run_page(read(make_run(tmp_path / "r", overrides=[word], numbers={"kl": estimate(1.0)}))))
    assert "…" not in said.get()
    assert word in "".join(line.strip() for line in said.get().splitlines())


@pytest.mark.parametrize("width", [40, 80, 120, 200, None])
def test_ids_and_numbers_are_whole_at_every_width(tmp_path: Path, width: int | None):
    numbers = {"win_rate": estimate(0.525), "kl": estimate(-0.00168), "policy_gold": estimate(-0.8)}
    words = [f"section.setting_{place}=0.123456789" for place in range(20)]
    runs = [
        read(make_run(tmp_path / str(seed), seed=seed, run_id=RUN_ID, numbers=numbers, overrides=words))
        for seed in range(3)
    ]
    console = Console(width=width or 500)
    with console.capture() as said:
        console.print(run_list(runs, width), soft_wrap=width is None)
    text = said.get()
    assert text.count(RUN_ID) == 3
    assert "…" not in text
    assert all(text.count(word) == 1 for word in words)
    if width != 40:
        assert text.count("-0.00168") == text.count("52.5 %") == 3
        assert ("2026-11-21 10:00" in text) == (width != 80)
