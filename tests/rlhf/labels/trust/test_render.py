import re
import sys
from collections.abc import Callable

import pytest

from rlhf.labels.trust.render import Section, coefficient, known_columns, points, share, show, show_sections, zeros
from sft.core.statistics import Estimate

SHARE = {"value": 0.5, "ci": [0.25, 0.75], "n": 8}
PEOPLE = [{"name": "Ann", **{f"rate{n}": SHARE for n in range(4)}, "why": None}, {"name": "Bo", "rate0": SHARE}]


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def printed(action: Callable[[], None], width: int | None) -> list[str]:
        """Return the lines on a terminal of so many columns, or in a pipe (None)."""
        monkeypatch.setattr(sys.stdout, "isatty", lambda: width is not None)
        monkeypatch.setenv("COLUMNS", str(width or 80))
        action()
        return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()

    return printed


@pytest.fixture
def shown(printed):
    return lambda document, width: printed(lambda: show(document), width)


def test_a_list_that_fits_is_a_table(shown):
    lines = shown({"people": PEOPLE}, 200)
    heads = next(line for line in lines if "rate0" in line).split()
    assert heads == ["name", "rate0", "rate1", "rate2", "rate3", "why"]
    assert sum("0.5 [0.25, 0.75] n=8" in line for line in lines) == 2


def test_a_list_that_is_too_wide_is_told_row_by_row_and_no_value_is_cut(shown):
    lines = shown({"people": PEOPLE}, 60)
    assert [line.split() for line in lines if line.startswith("name")] == [["name", "Ann"], ["name", "Bo"]]
    assert sum("0.5 [0.25, 0.75] n=8" in line for line in lines) == 5
    assert not any("…" in line or "why" in line for line in lines)
    assert max(map(len, lines)) <= 60


def test_large_numbers_are_written_out(shown):
    assert "1795000000" in " ".join(shown({"time": 1.795e9}, 60))


def test_sections(printed):
    sections = [
        Section("First", ["one sentence"], [("tasks", "3"), ("labels to come", "7")], after=["the end"]),
        Section("Second", rows=[{"name": "Ann", "n": "3"}, {"name": "Bo", "n": "14"}]),
    ]
    wanted = ["First", "  one sentence", "  tasks           3", "  labels to come  7", "  the end", "", "Second"]
    assert printed(lambda: show_sections(sections), None) == [*wanted, "  name  n", "  Ann   3", "  Bo    14"]
    assert printed(lambda: show_sections(sections), 40)[:7] == wanted


@pytest.mark.parametrize("width", [40, 100, None])
def test_no_line_ends_in_spaces_or_beyond_the_terminal(printed, width):
    sentence = "a sentence that is longer than forty columns, but not than a hundred of them"
    section = Section("T", [sentence], [("name", "value " * 9)], [{"name": "Ann", "share": "50 % [25, 75] n=8"}] * 2)
    lines = printed(lambda: show_sections([section, section]), width)
    assert not any(line != line.rstrip() for line in lines)
    assert max(map(len, lines)) <= (width or 500)
    assert (f"  {sentence}" in lines) == (width != 40)


def test_cells():
    estimate = Estimate(0.456, (0.2, 0.704), 12)
    assert (share(estimate), share(None)) == ("46 % [20, 70] n=12", "-")
    assert points(Estimate(-0.002, (-0.3, 0.296), 12)) == "+0 [-30, +30] n=12"
    assert points(Estimate(-0.054, (-0.1, -0.004), 12)) == "-5 [-10, +0] n=12"
    assert coefficient(estimate) == "0.46 [0.20, 0.70] n=12"


def test_zeros_are_named_in_one_sentence():
    assert zeros({"skips": 0, "flags": 3, "gold": 0}) == ["none: skips, gold"]
    assert zeros({"flags": 3}) == []


def test_columns_that_nobody_knows_are_left_out():
    rows = [{"name": "Ann", "skips": "-", "left": "3"}, {"name": "Bo", "skips": "-", "left": "-"}]
    assert known_columns(rows) == [{"name": "Ann", "left": "3"}, {"name": "Bo", "left": "-"}]
