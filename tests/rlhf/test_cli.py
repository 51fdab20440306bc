"""The command as a stranger uses it: processes, exit codes, standard output, SIGKILL and SIGTERM.

Some processes begin with a new interpreter, as a stranger's do; where that is not the matter they are forked.
"""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
from commands import Command, rlhf
from micro import MICRO

from rlhf import pipeline
from rlhf.registry import Registry
from sft.core.durable import broken_files

ROOT = Path(__file__).parents[2]


def fresh(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a new interpreter."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    words = (sys.executable, "-m", "rlhf", *words)
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def registered(root: Path) -> set[str]:
    if not (root / "registry.db").is_file():
        return set()
    return {artifact.name for artifact in Registry(root, create=False).artifacts()}


def wait_for(name: str, root: Path, running: Command) -> None:
    deadline = time.monotonic() + 300
    while name not in registered(root):
        assert not running.ended(), running.wait().stderr
        assert time.monotonic() < deadline
        time.sleep(0.05)


def die_before_labels() -> None:
    """Let this process send itself SIGKILL where the stage after SFT begins."""
    pipeline.run_labels = lambda *_: os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def killed_and_resumed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, str]:
    """Kill a run once SFT is registered; then give the same command again."""
    folder = tmp_path_factory.mktemp("cli")
    killed = Command("run", *MICRO, cwd=folder, first=die_before_labels).wait()
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert "sft" in registered(folder / "registry")
    for artifact in Registry(folder / "registry", create=False).artifacts():
        assert broken_files(artifact.path) == []
    done = fresh("run", *MICRO, "--json", "hydra.run.dir=second", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout), done.stderr


def test_a_killed_run_carries_on_after_the_last_finished_stage(killed_and_resumed: tuple[Path, dict, str]) -> None:
    folder, results, _ = killed_and_resumed
    assert [stage["cached"] for stage in results["stages"]] == [True, *[False] * 5]
    assert not any((folder / "registry" / ".work").iterdir())
    assert json.loads((folder / "second" / "results.json").read_text()) == results


def test_the_table_and_the_paths_end_a_run(killed_and_resumed: tuple[Path, dict, str]) -> None:
    folder, results, stderr = killed_and_resumed
    assert "results.json" in stderr  # with --json all but the document goes to standard error
    again = rlhf("run", *MICRO, "hydra.run.dir=third", cwd=folder)
    assert again.returncode == 0
    for word in ("sft:1", "policy:1", "third/results.json", "third/report.html", "Win rate"):
        assert word in again.stdout
    gate = results["evaluation"]["gate"]
    assert gate == {"passed": results["evaluation"]["win_rate"]["ci"][0] > 0.5, "min_win_rate": 0.5}
    (row,) = [line for line in again.stdout.splitlines() if "Evaluation gate" in line]
    assert ("passed" if gate["passed"] else "failed") in row


def test_a_sweep_reuses_the_trained_stages(killed_and_resumed: tuple[Path, dict, str]) -> None:
    folder, _, _ = killed_and_resumed
    done = rlhf("run", "-m", *MICRO, "ppo.kl_coef=0.02,0.1", "--json", "hydra.sweep.dir=sweep", cwd=folder)
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)
    for results in (first, second):
        assert [stage["cached"] for stage in results["stages"]][:3] == [True] * 3
    assert first["stages"][3]["cached"] is False
    assert second["stages"][3]["cached"] is True  # 0.1 is the preset's own value
    for line in ("#0 kl_coef=0.02 · ppo: 3/3 iteration", "#1 kl_coef=0.1 · sft: already done"):
        assert line in done.stderr
    for title in ("#0 kl_coef=0.02 · quickstart", "#1 kl_coef=0.1 · quickstart"):
        assert title in done.stderr
    assert json.loads((folder / "sweep" / "1" / "results.json").read_text()) == second


def test_models_commands_print_one_json_document(killed_and_resumed: tuple[Path, dict, str]) -> None:
    folder, results, _ = killed_and_resumed
    printed = {}
    for word, *words in (["list"], ["show", results["registry"]["policy"]], ["lineage", "policy:1"]):
        done = fresh("models", word, *words, "--json", cwd=folder)
        assert done.returncode == 0, done.stderr
        printed[word] = json.loads(done.stdout)
    shown = printed["show"]
    assert {"name", "version", "kind", "path", "sha256", "aliases", "parents"} <= set(shown)
    assert Path(shown["path"]) == folder / "registry" / "policy" / "1"


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_exits_with_75_and_registers_nothing_half(sent: signal.Signals, tmp_path: Path) -> None:
    running = Command("run", *MICRO, cwd=tmp_path)
    wait_for("base", tmp_path / "registry", running)
    running.signal(sent)
    done = running.wait(seconds=60)
    assert done.returncode == 75, done.stderr
    assert "the same command carries on" in done.stderr
    assert "policy" not in registered(tmp_path / "registry")


@pytest.mark.parametrize(
    ("words", "code", "found"),
    [
        (["run", "experiment=quickstrat"], 2, "did you mean quickstart"),
        (["run", "experiment=quickstart", "ppo.batch_size=100", "ppo.num_mini_batches=8"], 2, "ppo.num_mini_batches=8"),
        (["models", "show", "nothing"], 2, "registry"),
        (["nonsense"], 2, "nonsense"),
        (["run"], 2, "experiments: hh_harmless, hh_qwen, iterative, quickstart"),
        (["run", "experiment=hh_harmless", "data.path=missing.jsonl"], 2, "missing.jsonl"),
    ],
)
def test_mistakes_are_told_before_any_compute(words: list[str], code: int, found: str, tmp_path: Path) -> None:
    done = fresh(*words, *(["--json"] if words[0] == "run" else []), cwd=tmp_path)
    assert done.returncode == code
    assert found in done.stderr
    assert not (tmp_path / "registry").exists()
    if words[0] == "run":
        assert json.loads(done.stdout)["exit_code"] == 2


def test_an_empty_label_file_exits_with_1(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    done = rlhf("run", *MICRO, "data=hh", "data.path=empty.jsonl", "reward.judge_fraction=0.4", cwd=tmp_path)
    assert done.returncode == 1
    assert "empty.jsonl" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_version_is_that_of_the_package(tmp_path: Path) -> None:
    done = fresh("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"rlhf {version('rlhf')}\n")


def test_doctor_reports_the_machine(tmp_path: Path) -> None:
    done = rlhf("doctor", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = {finding["name"] for finding in json.loads(done.stdout)["findings"]}
    assert {"python", "torch", "cuda", "registry", "wandb mode", "sqlite"} <= names
