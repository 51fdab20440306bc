"""study.html and study.json of a study written by hand."""

import json
import subprocess
from pathlib import Path

import pytest

from rlhf.search.config import SearchConfig
from rlhf.search.report import Report, show, write_report
from rlhf.search.study import Tried

HOSTILE = "<script>alert(1)</script> \u202e<img src=x onerror=alert(2)>"


def tried(place: int, win_rate: float, kl: float) -> Tried:
    objectives = {
        "win_rate": {"value": win_rate, "ci": [win_rate - 0.1, win_rate + 0.1], "n": 40},
        "kl": {"value": kl, "ci": [kl / 2, kl * 2], "n": 40},
    }
    outcome = {"objectives": objectives, "gold": {"value": 0.5, "ci": [0.4, 0.6], "n": 40}, "stages": [{"seconds": 90}]}
    return Tried(place, {"ppo.kl_coef": 0.01 * (place + 1), "model": "tiny"}, "complete", (win_rate, kl), outcome, None)


TRIALS = [
    tried(0, 0.6123, 3.0),
    tried(1, 0.71, 2.0),
    tried(3, 0.5, 9.0),
    Tried(4, {"ppo.kl_coef": 0.9, "model": HOSTILE}, "failed", (), {}, HOSTILE),
    Tried(5, {"ppo.kl_coef": 0.8, "model": "tiny"}, "pruned", (), {"pruned": "worse than others", "stages": []}, None),
]


def written(folder: Path, *objectives: str) -> Report:
    config = SearchConfig(objectives=list(objectives))
    trials = TRIALS if len(objectives) == 2 else [trial._replace(values=trial.values[:1]) for trial in TRIALS]
    return write_report(
        folder, trials, config, name="s", experiment="quick", fixed=["experiment=quick", "search.trials=9"]
    )


@pytest.mark.parametrize(("objectives", "best"), [(["win_rate"], [1]), (["win_rate", "kl"], [1])])
def test_the_best_is_shown_with_its_command(objectives: list[str], best: list[int], tmp_path: Path):
    report = written(tmp_path, *objectives)
    kept = json.loads((tmp_path / "study.json").read_text())
    assert [found["place"] for found in kept["best"]] == best
    assert kept["counts"] == {"complete": 3, "failed": 1, "pruned": 1}
    command = "rlhf run experiment=quick ppo.kl_coef=0.02 model=tiny"
    assert report.command(report.best[0]) == kept["best"][0]["command"] == command
    page = (tmp_path / "study.html").read_text()
    said = (command, "0.6123 [0.512, 0.712]", "worse than others", "1 min 30 s", "the search has not seen test data")
    assert [text for text in said if text not in page] == []


def test_a_command_can_be_pasted_into_a_shell(tmp_path: Path):
    report = written(tmp_path, "win_rate")._replace(fixed=("ppo.gamma=${ppo.lam}", "registry.root='a b'"))
    trial = TRIALS[1]._replace(settings={"bias.groups": "{a:[x y]}"})
    said = subprocess.run(["sh", "-c", f"echo {report.command(trial)}"], capture_output=True, text=True, check=True)
    assert said.stdout == "rlhf run ppo.gamma=${ppo.lam} registry.root='a b' bias.groups={a:[x y]}\n"


def test_texts_of_settings_and_errors_are_inert(tmp_path: Path):
    written(tmp_path, "win_rate", "kl")
    page = (tmp_path / "study.html").read_text()
    assert "<script" not in page
    assert "<img" not in page
    assert "\u202e" not in page
    assert page.count("&lt;script&gt;") == 2
    assert "default-src 'none'" in page


def test_a_study_without_a_finished_trial_has_a_page(tmp_path: Path):
    write_report(tmp_path, TRIALS[3:4], SearchConfig(), name="s", experiment="e", fixed=[])
    assert "failed" in (tmp_path / "study.html").read_text()
    assert json.loads((tmp_path / "study.json").read_text())["best"] == []


def test_a_tie_is_called_one_and_has_the_command_of_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    trials = [tried(place, 0.5, 1.0)._replace(values=(0.5,)) for place in (1, 2, 4)]
    config = SearchConfig(objectives=["win_rate"])
    report = write_report(tmp_path, trials, config, name="s", experiment="quick", fixed=["experiment=quick"])
    page = (tmp_path / "study.html").read_text()
    assert "A tie: 3 trials have the best win_rate" in page
    assert page.count("<code>rlhf run") == 1
    assert "ppo.kl_coef=0.02" in page.partition("<code>rlhf run")[2].partition("</code>")[0]
    show(report, tmp_path)
    said = capsys.readouterr().out
    assert "best, a tie of 3" in said
    assert "(trial 1, the first of the tie)" in said
    assert "ppo.kl_coef=0.02" in said.partition("rlhf run")[2]


def test_the_terminal_gets_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    show(written(tmp_path, "win_rate"), tmp_path)
    said = capsys.readouterr().out
    assert "0.71 [0.61, 0.81]" in said
    assert "5 trials: 3 complete, 1 failed, 1 pruned" in said
    assert "rlhf run experiment=quick ppo.kl_coef=0.02 model=tiny" in said
