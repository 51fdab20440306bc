"""`hydra/sweeper=optuna` with runs that take no time, through Hydra and its launchers."""

import json
import logging
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_search import WORDS, interrupted_at_third, search
from joblib.externals.loky import get_reusable_executor

from rlhf.launch import launch
from rlhf.preflight import check
from sft.core.errors import ConfigError, DataError, Interrupted, UsageError

SCRIPT = Path(__file__).with_name("fake_search.py")


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    get_reusable_executor().shutdown()  # joblib's processes would keep this folder as theirs


def study(name: str = "s") -> dict:
    return json.loads(Path(f"search/{name}/study.json").read_text())


def tried(name: str = "s") -> list[tuple[str, dict]]:
    return [(trial["state"], trial["settings"]) for trial in study(name)["trials"]]


def test_a_search_tries_the_defaults_first_then_what_the_study_suggests():
    results = search("search.study=s", "search.trials=6", "search.pruner=none")
    trials = study()["trials"]
    assert trials[0]["settings"] == {"ppo.kl_coef": 0.05, "ppo.lam": 0.95}
    assert trials[0]["values"] == [pytest.approx(0.9)]
    assert len(trials) == len({json.dumps(trial["settings"]) for trial in trials}) == 6
    assert [best["place"] for best in study()["best"]] == [0]
    command = study()["best"][0]["command"]
    assert command.startswith("rlhf run reward.judge_fraction=0.3 ")
    assert "search." not in command
    assert check(command.split()[2:])[0].config.ppo.kl_coef == 0.05
    assert len(results) == 6
    assert "<svg" in Path("search/s/study.html").read_text()


def test_the_same_command_carries_on_and_then_has_nothing_to_do():
    words = ["search.pruner=none", 'search.enqueue=["ppo.kl_coef=0.1 ppo.lam=0.9"]']
    assert len(search(*words, "search.trials=3")) == 3
    (name,) = [folder.name for folder in Path("search").iterdir()]
    assert len(search(*words, "search.trials=5")) == 2
    assert search(*words, "search.trials=5") == []
    settings = [settings for _, settings in tried(name)]
    assert len(settings) == 5
    assert settings[1] == {"ppo.kl_coef": 0.1, "ppo.lam": 0.9}


def test_another_search_of_the_same_name_is_refused():
    search("search.study=s", "search.trials=1")
    with pytest.raises(UsageError, match=r"settings differ"):
        search("search.study=s", "search.trials=1", "ppo.gamma=0.9")


def test_pruned_trials_and_failed_ones_are_counted():
    search("search.study=s", "search.trials=16", "ppo.eval_steps=1", "ppo.lam=range(0.8,1.0,0.05)")
    counts = study()["counts"]
    assert counts["complete"] >= 4
    assert counts["pruned"] >= 1
    assert counts["failed"] >= 1
    assert sum(counts.values()) == 16
    pruned = next(trial for trial in study()["trials"] if trial["state"] == "pruned")
    assert "worse than the median" in pruned["outcome"]["pruned"]
    page = Path("search/s/study.html").read_text()
    assert "worse than the median" in page


def test_a_search_in_which_nothing_works_says_so():
    with pytest.raises(DataError, match=r"none of the 2 trials has worked; the first: this lam does not work"):
        search("search.study=s", "search.trials=2", "ppo.lam=interval(0.1,0.2)", "search.pruner=none")
    assert study()["counts"] == {"failed": 2}


def test_several_objectives_have_a_front():
    search("search.study=s", "search.trials=8", "search.objectives=[win_rate,kl]")
    values = {trial["place"]: trial["values"] for trial in study()["trials"] if trial["state"] == "complete"}
    front = [values[best["place"]] for best in study()["best"]]
    assert front
    assert all(not (w > win and k <= kl) for w, k in values.values() for win, kl in front)


def test_two_processes_of_joblib_share_the_trials():
    words = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "search.parallel=2", "search.pruner=none"]
    results = search("search.study=s", "search.trials=4", *words)
    assert len(results) == 4
    assert [state for state, _ in tried()] == ["complete"] * 4
    assert sorted(path.name for path in Path("search/s").iterdir() if path.is_dir()) == ["000", "001", "002", "003"]


@pytest.mark.parametrize("launcher", [[], ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "search.parallel=2"]])
def test_an_interrupted_search_tries_the_same_again(launcher: list[str]):
    words = ["search.study=s", "search.trials=5", "search.pruner=none", *launcher]
    with pytest.raises(Interrupted):
        launch([*WORDS, *words], interrupted_at_third)
    asked = [json.loads(line) for line in Path("calls.txt").read_text().splitlines()]
    results = search(*words)
    assert len(results) >= 2
    trials = study()["trials"]
    assert [trial["state"] for trial in trials] == ["complete"] * 5
    kept = {trial["settings"]["ppo.kl_coef"] for trial in trials}
    assert {kl_coef for _, _, kl_coef, _ in asked} <= kept


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["search.enqueue=['ppo.kl_coef=7']"], "search.enqueue"),
        (["search.enqueue=['ppo.gamma=0.9']"], "search.enqueue"),
        (["search.enqueue=['nonsense(']"], "search.enqueue"),
    ],
)
def test_settings_that_are_no_point_of_the_search_are_refused(words: list[str], field: str):
    with pytest.raises(ConfigError) as caught:
        search(*words, "search.trials=1")
    assert [problem.field for problem in caught.value.problems] == [field]


def test_a_folder_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "it's, a folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    search("search.study='kl, and lam'", "search.trials=2", "search.pruner=none")
    assert study("kl, and lam")["counts"] == {"complete": 2}


def test_the_command_of_the_best_finds_what_was_trained():
    Path("mine/experiment").mkdir(parents=True)
    Path("mine/experiment/ours.yaml").write_text("# @package _global_\nppo:\n  gamma: 0.5\n")
    words = ["--config-dir", "mine", "experiment=ours", "registry.root='a b'", "runtime.threads=1"]
    search("search.study=s", "search.trials=1", *words)
    (best,) = study()["best"]
    (point,) = check(shlex.split(best["command"])[2:])
    assert (point.experiment, point.config.ppo.gamma) == ("ours", 0.5)
    assert (point.config.registry.root, point.config.runtime.threads) == ("a b", 1)


def test_a_search_that_is_killed_ends_as_if_it_had_not_been(tmp_path: Path):
    words = ["search.study=s", "search.trials=8", "search.pruner=none", "ppo.lam=interval(0.85,1.0)"]
    calm = tmp_path / "calm"
    calm.mkdir()
    subprocess.run([sys.executable, SCRIPT, "0", *words], cwd=calm, check=True, capture_output=True, timeout=120)
    killed = tmp_path / "killed"
    killed.mkdir()
    for wait in (2, 5):
        with subprocess.Popen(
            [sys.executable, SCRIPT, "0.5", *words], cwd=killed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            _until_calls(killed, wait)
            process.send_signal(signal.SIGKILL)
    subprocess.run([sys.executable, SCRIPT, "0", *words], cwd=killed, check=True, capture_output=True, timeout=120)
    one, other = ([(t["state"], t["settings"]) for t in _study(folder)["trials"]] for folder in (calm, killed))
    assert one == other
    calls = [json.loads(line) for line in (killed / "calls.txt").read_text().splitlines()]
    assert len(calls) > 8, "what was at work when the kills came is tried again"
    assert len({call[1] for call in calls}) == 8, "in the same folders"


def _until_calls(folder: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    file = folder / "calls.txt"
    while time.monotonic() < deadline:
        if file.exists() and len(file.read_text().splitlines()) >= count:
            return
        time.sleep(0.02)
    raise AssertionError("the search did not start")


def _study(folder: Path) -> dict:
    return json.loads((folder / "search" / "s" / "study.json").read_text())
