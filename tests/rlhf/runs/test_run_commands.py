import json
from pathlib import Path
from typing import Any

import pytest
from made_runs import change, estimate, make_run, scores, stage
from typer.testing import CliRunner, Result

from rlhf.runs.commands import app
from rlhf.runs.record import RUN_FILE, State
from sft.core.errors import UsageError


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs of a sweep that differ in the seed, and one that failed."""
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        numbers = {"win_rate": estimate(0.8 + 0.1 * seed), "kl": estimate(4.0)}
        make_run(
            tmp_path / "multirun" / "day" / str(seed),
            seed=seed,
            numbers=numbers,
            stages=[stage("sft", seconds=61.0), stage("evaluation", cached=True, artifact=None)],
            reports={"evaluation": {"scores": scores([1, 1, 1, 1])}},
            overrides=["experiment=made", "ppo.kl_coef=0.1", f"seed={seed}"],
            started=f"2026-11-21T10:0{seed}:00.000+00:00",
        )
    failed = make_run(
        tmp_path / "outputs" / "bad",
        config={"ppo": {"kl_coef": 0.5}},
        overrides=["experiment=made", "ppo.kl_coef=0.5"],
        state=State.FAILED,
        started="2026-11-21T11:00",
        ledger=[("ppo", 7, {"objective/kl": 1.0})],
    )
    change(failed / RUN_FILE, error="DataError: [bold]\u202eno labels", stages=[stage("sft")._asdict()])
    return tmp_path


def invoke(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def test_list_shows_what_differs():
    result = invoke("list")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()[2:-1]]
    assert [line[0] for line in lines] == ["run", "made-0", "made-1", "made-bad"]
    assert " ".join(lines[1][1:]) == "2026-11-21 10:00 finished 0 made 80.0 % 4 passed seed=0"
    assert " ".join(lines[3][3:]) == "failed 0 made - - - after sft; ppo.kl_coef=0.5"
    assert result.stdout.startswith("most runs share: ppo.kl_coef=0.1\n")
    assert "none here has: gold, RM accuracy" in result.stdout
    only = invoke("list", "multirun").stdout
    assert "seed=1" in only
    assert only.count("kl_coef") == 1  # both have it


def test_list_as_json():
    document = json.loads(invoke("list", "--json").stdout)
    assert [row["run_id"] for row in document["runs"]] == ["made-0", "made-1", "made-bad"]
    assert document["runs"][0]["numbers"]["win_rate"] == estimate(0.8)
    assert document["runs"][2]["error"].startswith("DataError")
    assert (document["unreadable"], document["older"]) == ([], 0)


def test_a_run_without_the_shared_words_says_so_and_the_others_do_not_repeat_them(root: Path):
    common = [f"part.number{place}=1" for place in range(20)]
    for place in range(4):
        make_run(root / "many" / str(place), overrides=[*common, f"seed={place}", "part.number3=7"][: 22 - place % 2])
    make_run(root / "many" / "bare", overrides=["part.number0=2", "+x=1", "+x=2"])
    head, _, _, *lines = invoke("list", "many").stdout.splitlines()
    assert head == f"most runs share: {' '.join(word for word in common if word != 'part.number3=1')}"
    assert [line.split("  ")[-1].strip() for line in lines[:4]] == [
        "part.number3=7 seed=0",
        "part.number3=1 seed=1",
        "part.number3=7 seed=2",
        "part.number3=1 seed=3",
    ]
    own, without = lines[4].split("; without ")
    assert own.endswith(" part.number0=2 +x=2")  # a value of its own is not missing; of two the last counts
    assert without.split() == [word for word in common[1:] if word != "part.number3=1"]
    make_run(root / "many" / "none")
    assert "without all that most share" in invoke("list", "many").stdout


def make_trial(folder: Path, number: int, objectives: dict[str, object] | None, **changes: Any) -> Path:
    later = 10 + number  # the study's own number of a trial that took the place of a killed one
    words = ("search.study=s", "search.storage='sqlite:///x'", f"search.trial={later}", "ppo.kl_coef=0.3")
    config = {"p": number, "search": {"trial": later, "study": "s"}}
    made = make_run(folder / f"{number:03}", config=config, overrides=words, numbers={}, **changes)
    change(made / "results.json", objectives=objectives or {}, gold=None)
    return made


def test_trials_show_their_objectives_as_validation_or_say_why_not(root: Path):
    found = {"win_rate": estimate(0.6), "kl": {"value": -0.0021, "ci": [-0.00432, 0.00617], "n": 9}}
    make_trial(root / "search", 0, found)
    pruned = make_trial(root / "search", 1, None, state=State.PRUNED)
    change(pruned / RUN_FILE, error="worse than the median at step 3")
    make_trial(root / "search", 2, None, state=State.FAILED)
    listed = invoke("list", "search").stdout
    assert (
        "0 of s, on validation data: win_rate 60.0 % [50.0, 70.0] (n 40), kl -0.00210 [-0.00432, 0.00617] (n 9)"
        in listed
    )
    assert "trial 1 of s, no objectives: worse than the median at step 3" in listed
    assert "trial 2 of s, no objectives: it is failed" in listed
    assert "storage" not in listed
    rows = json.loads(invoke("list", "search", "--json").stdout)["runs"]
    assert [row["trial"] for row in rows] == [0, 1, 2]
    assert rows[0]["numbers"] == {f"validation_{name}": value for name, value in found.items()}
    compared = invoke("compare", "search").stdout
    assert "validation: win_rate" in compared
    assert "-0.00210 [-0.00432, 0.00617] (prompts)" in compared
    assert "3 of 3 runs are trials of a search: their numbers are of validation data" in compared
    assert "validation data: KL to SFT, nats per answer  -0.00210" in invoke("show", "search/000").stdout


def test_list_says_what_it_does_not_list(root: Path):
    (root / "outputs" / "bad" / RUN_FILE).write_text("{")
    (root / "outputs" / "older").mkdir()
    (root / "outputs" / "older" / "results.json").write_text("{}")
    result = invoke("list", "outputs")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "run.json cannot be read" in result.stderr
    assert "1 folders of an older program" in result.stderr
    assert "no runs in outputs; `rlhf run" in result.stderr
    assert isinstance(invoke("list", "absent").exception, UsageError)


def test_show(root: Path):
    result = invoke("show", "made-bad")
    assert result.exit_code == 0, result.output
    assert "failed after sft" in result.stdout
    assert "DataError: [bold]⟨U+202E⟩no labels" in result.stdout
    assert "ppo step 7" in result.stdout
    assert "found" in invoke("show", "multirun/day/1").stdout
    assert "90.0 %  [80.0, 100.0]  40" in invoke("show", "made-1").stdout
    document = json.loads(invoke("show", "made-1", "--json").stdout)
    assert (document["state"], document["results"]["evaluation"]["kl"]) == ("finished", estimate(4.0))
    assert isinstance(invoke("show", "multirun").exception, UsageError)
    assert "made-1" in invoke("show", "made-1", "--in", str(root / "multirun")).stdout


def test_compare_prints_a_table_and_names_the_page():
    result = invoke("compare", "multirun", "made-bad")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    rows = [" ".join(line.split()) for line in lines]
    assert rows[0] == "group seeds win rate KL settings"
    # Student's half width of 0.8 and 0.9 is 12.706 * 0.05 = 0.635, cut at 1
    assert rows[1] == "A 0, 1 85.0 % [21.5, 100.0] 4 [4, 4] ppo.kl_coef=0.1"
    assert rows[2] == "B 0 - - ppo.kl_coef=0.5"
    assert rows[3] == "none here has: gold, RM accuracy"
    assert "1 of 3 runs are not finished" in result.stdout
    assert "--output PAGE.html" in result.stdout


def test_compare_as_json():
    document = json.loads(invoke("compare", "multirun", "made-bad", "--json").stdout)
    first, second = document["groups"]
    assert (first["letter"], first["settings"]) == ("A", {"ppo.kl_coef": "0.1"})
    assert first["numbers"]["win_rate"]["mean"] == pytest.approx(0.85)
    assert first["numbers"]["win_rate"]["n"] == 2
    assert [run["seed"] for run in first["runs"]] == [0, 1]
    assert second["numbers"] == {}
    duels = {(duel["row"], duel["column"]): duel for duel in document["duels"]}
    assert duels["A", "B"]["refused"] == "no scores kept"
    assert duels["A", "SFT"]["share"] == 1.0
    assert duels["A", "SFT"]["over_seeds"] == {"ci": [1.0, 1.0], "n": 2}
    assert first["stages"][0]["seconds"] == 61.0


def test_compare_writes_a_page(root: Path):
    refused = invoke("compare", "multirun", "--output", "deep/page.html").exception
    assert isinstance(refused, UsageError)
    assert "deep is no folder; make it first" in str(refused)
    assert not (root / "deep").exists()
    result = invoke("compare", "multirun", "--output", "a page.html", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["fields"] == []
    assert (root / "a page.html").read_text().startswith("<!doctype html>")
    assert invoke("compare", "multirun", "--output", "page.html").stdout == "page.html\n"
