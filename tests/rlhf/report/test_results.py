import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from rlhf.report.results import Results, StageResult, Tone, findings, summary_table, write_results


def make(**changes: object) -> Results:
    fields: dict[str, object] = {
        "experiment": "quickstart",
        "run_id": "r1",
        "seed": 3,
        "config_sha256": "ab" * 32,
        "stages": (
            StageResult(
                name="sft",
                artifact="sft:1",
                fingerprint="f" * 64,
                cached=False,
                seconds=23.4567,
                train_steps=300,
                metrics={"loss": float("nan")},
            ),
            StageResult(name="bias", artifact=None, fingerprint="e" * 64, cached=True, seconds=0.01, train_steps=0),
        ),
        "evaluation": {"win_rate": {"value": 0.8, "ci": (0.75, 0.85), "n": 400}},
        "bias": {"passed": True, "checks": [{"name": "swap", "group": "women", "effect": 0.1, "passed": True}]},
        "registry": {"sft": "sft:1", "reward": "reward:1", "policy": "policy:1"},
        "alias": "champion",
    }
    return Results(**(fields | changes))  # type: ignore[arg-type]


def test_results_file_holds_the_contract(tmp_path: Path):
    path = tmp_path / "run" / "results.json"
    write_results(path, make())
    loaded = json.loads(path.read_text())
    assert list(loaded)[:5] == ["experiment", "run_id", "seed", "config_sha256", "stages"]
    assert loaded["stages"][0] == {
        "name": "sft",
        "artifact": "sft:1",
        "fingerprint": "f" * 64,
        "cached": False,
        "seconds": 23.457,
        "train_steps": 300,
        "metrics": {"loss": None},
    }
    assert loaded["evaluation"] == {"win_rate": {"value": 0.8, "ci": [0.75, 0.85], "n": 400}}
    assert loaded["registry"] == {"sft": "sft:1", "reward": "reward:1", "policy": "policy:1"}


def win(value: float, low: float, high: float) -> tuple[Tone, str]:
    found = findings({"evaluation": {"win_rate": {"value": value, "ci": [low, high], "n": 100}}})[0]
    return found.tone, found.remark


def test_win_rate_is_read_from_its_interval_not_from_its_value():
    assert win(0.6, 0.51, 0.69)[0] is Tone.GOOD
    assert win(0.6, 0.49, 0.71)[0] is Tone.OPEN
    assert "no better than the SFT model" in win(0.6, 0.49, 0.71)[1]
    assert win(0.6, 0.5, 0.7)[0] is Tone.OPEN  # an end exactly at 50 % excludes nothing
    assert win(0.3, 0.2, 0.4)[0] is Tone.BAD
    assert findings({"evaluation": {"win_rate": 0.9}})[0].tone is Tone.OPEN


def accuracy(value: float, low: float, high: float, **fields: object) -> tuple[Tone, str]:
    estimate = {"value": value, "ci": [low, high], "n": 100} | fields
    found = findings({"evaluation": {"reward_model_accuracy": estimate}})[2]
    return found.tone, found.remark


def test_reward_accuracy_is_held_against_coin_longer_answer_and_ceiling():
    baseline = {"longer_wins": 0.55, "longer_wins_ci": [0.5, 0.6], "ceiling": 0.8}
    tone, remark = accuracy(0.72, 0.68, 0.76, **baseline)
    assert tone is Tone.GOOD
    assert "better than choosing the longer answer" in remark
    assert "0.90 of the noise ceiling 80.0 %" in remark
    assert "the longer answer wins 55.0 % [50.0, 60.0]" in remark
    tone, remark = accuracy(0.62, 0.58, 0.66, **baseline)
    assert tone is Tone.OPEN
    assert "not shown to be better than choosing the longer answer" in remark
    tone, remark = accuracy(0.52, 0.48, 0.56)
    assert tone is Tone.BAD
    assert "no better than a coin" in remark
    assert "ceiling of these labels is not known" in remark


def test_failed_bias_gate_names_check_and_group():
    check = {"name": "swap", "group": "women", "effect": 0.6, "ci": [0.4, 0.8], "n": 9, "limit": 0.2, "passed": False}
    found = findings({"bias": {"passed": False, "checks": [check]}})[-1]
    assert (found.value, found.tone) == ("failed", Tone.BAD)
    assert "swap (women)" in found.remark
    assert findings({"bias": {"passed": True, "checks": []}})[-1].value == "not measured"


def gate(low: float, *, passed: bool, judge: tuple[float, float] | None = None) -> tuple[str, str]:
    evaluation: dict[str, object] = {
        "win_rate": {"value": low + 0.1, "ci": [low, low + 0.2], "n": 100},
        "gate": {"passed": passed, "min_win_rate": 0.5},
    }
    if judge is not None:
        evaluation["judge_accuracy"] = {"value": 0.55, "ci": list(judge), "n": 100}
    found = next(found for found in findings({"evaluation": evaluation}) if found.label == "Evaluation gate")
    assert found.tone is (Tone.GOOD if passed else Tone.BAD)
    return found.value, found.remark


def test_the_evaluation_gate_says_why_it_failed():
    low_end = "the low end of the win rate's interval, "
    assert gate(0.51, passed=True) == ("passed", f"{low_end}51.0 %, is above 50.0 %")
    assert gate(0.5, passed=False) == ("failed", f"{low_end}50.0 %, is not above 50.0 % (evaluation.min_win_rate)")
    coin = "the judge is not shown to be better than a coin"
    assert gate(0.51, passed=False, judge=(0.49, 0.6)) == ("failed", coin)
    assert gate(0.4, passed=False, judge=(0.49, 0.6))[1].endswith(f"(evaluation.min_win_rate); {coin}")
    assert gate(0.4, passed=False, judge=(0.51, 0.6))[1].endswith("(evaluation.min_win_rate)")
    (old,) = [found for found in findings({"evaluation": {"win_rate": 0.9}}) if found.label == "Evaluation gate"]
    assert (old.value, old.tone) == ("not measured", Tone.OPEN)


def test_the_evaluation_gate_stands_in_the_table():
    evaluation = make().evaluation | {"gate": {"passed": False, "min_win_rate": 0.8}}
    shown = Console(file=StringIO(), width=160)
    shown.print(summary_table(make(evaluation=evaluation, alias="candidate"), mark="#2 kl_coef=0.3"))
    text = shown.file.getvalue()  # type: ignore[attr-defined]
    assert "75.0 %, is not above 80.0 %" in text
    assert "#2 kl_coef=0.3 · quickstart · r1" in text


@pytest.mark.parametrize(
    ("value", "ci", "shown"),
    [
        (-0.0001, [-0.00432, 0.00617], "-0.00010"),
        (-0.000001, [-0.00432, 0.00617], "0.00000"),
        (8.8114, [7.53, 10.1], "8.81"),
        (5.32, [0.4, 12.3], "5.3"),
        (5.32, None, "5.32"),
    ],
)
def test_kl_is_shown_as_finely_as_its_interval(value: float, ci: list[float] | None, shown: str):
    found = findings({"evaluation": {"kl": {"value": value, "ci": ci, "n": 9}}})[1]
    assert found.value == shown


def test_summary_table_shows_stages_findings_and_alias_and_takes_no_markup_from_data():
    stage = StageResult(name="[red]x", artifact="[b]y", fingerprint="", cached=False, seconds=65, train_steps=7)
    shown = Console(file=StringIO(), width=160)
    shown.print(summary_table(make(stages=(stage, *make().stages))))
    text = shown.file.getvalue()  # type: ignore[attr-defined]
    for part in ("[red]x", "[b]y", "1 min 05 s", "cached", "80.0 %", "[75.0, 85.0]", "400", "champion", "policy:1"):
        assert part in text


def test_a_judge_no_better_than_a_coin_shows_nothing() -> None:
    rate = {"value": 0.64, "ci": [0.59, 0.69], "n": 400}
    coin = {"value": 0.55, "ci": [0.49, 0.6], "n": 286}
    knows = {"value": 0.6, "ci": [0.55, 0.65], "n": 286}
    blind, seeing = (
        findings({"evaluation": {"win_rate": rate, "judge_accuracy": judge}})[0] for judge in (coin, knows)
    )
    assert blind.tone is Tone.OPEN
    assert "no better than a coin" in blind.remark
    assert seeing.tone is Tone.GOOD
