import re
import sys

import pytest

from rlhf.labels.trust.render import show

SHARE = {"value": 0.5, "ci": [0.25, 0.75], "n": 8}
PEOPLE = [{"name": "Ann", **{f"rate{n}": SHARE for n in range(4)}, "why": None}, {"name": "Bo", "rate0": SHARE}]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def shown(document: dict[str, object], width: int) -> list[str]:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", str(width))
        show(document)
        plain = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
        return [line.rstrip() for line in plain.splitlines()]

    return shown


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
