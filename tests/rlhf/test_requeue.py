"""A sweep as jobs of submitit, on its local executor: a job that is told to end is run again and carries on."""

import json
import logging
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from rlhf.config import ExperimentConfig
from rlhf.launch import launch
from sft.core.interruption import Interruption

SUBMITIT = ["-m", "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=1", "hydra.sweep.dir=sweep"]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # the job finds `train` there
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def train(config: ExperimentConfig, name: str, folder: Path, overrides: list[str]) -> dict[str, object]:
    """Count to ten, one count a step, saving after each; what was counted before is not counted again."""
    saved = folder / "count.txt"
    count = int(saved.read_text()) if saved.exists() else 0
    with (folder / "attempts.txt").open("a") as attempts:
        attempts.write(f"{os.getpid()} {count}\n")
    with Interruption() as interruption:
        while count < 10:
            time.sleep(0.2)
            count += 1
            saved.write_text(str(count))
            interruption.raise_if_requested(f"step {count}")
    return {"seed": config.seed, "count": count}


def interrupt(folder: Path, number: signal.Signals, *, after: int) -> None:
    """Send a signal to the job that writes a folder once it has counted so far."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (folder / "count.txt").exists() and int((folder / "count.txt").read_text() or 0) >= after:
            pid = int((folder / "attempts.txt").read_text().splitlines()[-1].split()[0])
            os.kill(pid, number)
            return
        time.sleep(0.02)


def test_a_job_that_is_told_to_end_is_run_again_and_carries_on():
    folder = Path("sweep/0").absolute()
    sender = threading.Thread(target=interrupt, args=(folder, signal.SIGUSR2), kwargs={"after": 4})
    sender.start()
    results = launch([*SUBMITIT, "seed=7,8"], train)
    sender.join()
    assert results == [{"seed": 7, "count": 10}, {"seed": 8, "count": 10}]
    attempts = [line.split() for line in (folder / "attempts.txt").read_text().splitlines()]
    assert len(attempts) == 2
    assert attempts[0][0] != attempts[1][0]
    assert [attempts[0][1], int(attempts[1][1]) >= 4] == ["0", True], "the second begins where the first had saved"
    assert len((folder.parent / "1" / "attempts.txt").read_text().splitlines()) == 1


def test_sigterm_is_left_to_the_scheduler():
    folder = Path("sweep/0").absolute()
    sender = threading.Thread(target=interrupt, args=(folder, signal.SIGTERM), kwargs={"after": 3})
    sender.start()
    assert launch([*SUBMITIT, "seed=7"], train) == [{"seed": 7, "count": 10}]
    sender.join()
    assert len((folder / "attempts.txt").read_text().splitlines()) == 1


def test_the_results_are_json_and_the_command_says_where_they_and_the_logs_lie(capsys: pytest.CaptureFixture[str]):
    assert json.loads(json.dumps(launch([*SUBMITIT, "seed=1"], train))) == [{"seed": 1, "count": 10}]
    said = capsys.readouterr().err
    assert "results: sweep/*/results.json" in said
    assert "sweep/.submitit/*/*_log.out" in said
    assert len(list(Path().glob("sweep/.submitit/*/*_log.out"))) == 1
