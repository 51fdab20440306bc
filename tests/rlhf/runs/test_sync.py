"""A run that is killed and carries on, its W&B folders as wandb's own reader sees them, and a server they go to."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from made_runs import make_run, read
from typer.testing import CliRunner
from wandb_server import wandb_server

from rlhf.runs.commands import app
from rlhf.runs.sync import described, not_sent, sync, sync_all, wandb_sync
from sft.core.errors import UsageError
from sft.core.ledger import LEDGER, read_ledger
from sft.core.wandb_files import mirror_files, settled_files
from sft.core.wandb_identity import read_identity

ATTEMPT = """
import os, signal, sys, time
from io import StringIO
from pathlib import Path
from rich.console import Console
from rlhf.runs.journal import journal
from rlhf.runs.record import Asked
from sft.core.tracking import RunTracker

folder, first, last, kill = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "kill"
about = {"experiment": "e", "run_id": f"run-from-{first}", "seed": 0, "registry": "registry"}
with journal(folder, config={"ppo": {"kl_coef": 0.1}}, asked=Asked(), **about) as kept:
    tracker = RunTracker(
        folder, run_id=kept.record.run_id, experiment="e", mode="auto", project="p",
        config={"ppo": {"kl_coef": 0.1}}, console=Console(file=StringIO()),
    )
    with tracker, tracker.stage("ppo", "policy") as ppo:
        for step in range(first, last):
            ppo.log(step, {"objective/kl": step / 2} | {f"many/{number}": 1.0 for number in range(40)})
            if kill and step == last // 2:
                time.sleep(3)  # W&B writes a block of 32 KiB when it is full, and loses the last one
        if kill:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def attempt(folder: Path, first: int, last: int, how: str = "end") -> int:
    """Make a process of a run log iterations; return its exit code."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("WANDB_")},
        "HOME": str(folder.parent),
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    command = [sys.executable, "-c", ATTEMPT, str(folder), str(first), str(last), how]
    return subprocess.run(command, env=environment, check=False, timeout=60).returncode


def rows(folder: Path) -> list[dict[str, Any]]:
    """Return the history of one of W&B's folders as its own reader shows it."""
    (file,) = folder.glob("*.wandb")
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(file)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    records = [json.loads(line) for line in lines if line.startswith("{")]
    return [record["history"]["item"] for record in records if record["type"] == "history"]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose first attempt is killed after iteration 39, and whose second repeats 36 to 39 and ends with 49."""
    folder = tmp_path_factory.mktemp("sync") / "run"
    assert attempt(folder, 0, 40, "kill") == -signal.SIGKILL
    assert attempt(folder, 36, 50) == 0
    return folder


@pytest.fixture
def run(killed: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    copy = tmp_path / "outputs" / "run"
    shutil.copytree(killed, copy, symlinks=True)
    return copy


def test_our_reader_sees_what_wandbs_own_sees(killed: Path):
    files = mirror_files(killed)
    assert len(files) == 2
    assert len({file.run_id for file in files}) == 1
    for file in files:
        own = rows(file.folder)
        assert {row["_step"] for row in own} == file.seqs
        assert all(row["ppo/iteration"] == row["objective/kl"] * 2 for row in own)
    assert [file.ended for file in files] == [False, True]


def test_an_attempt_that_carries_on_repeats_no_step(killed: Path):
    first, second = mirror_files(killed)
    assert min(second.seqs) > max(first.seqs)
    iterations = [row["ppo/iteration"] for row in rows(second.folder)]
    assert iterations == list(range(40, 50))  # the ledger has 36 to 39 twice, W&B once


def test_the_rehearsal_names_exactly_the_lost_steps(run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(run.parents[1])
    before = sorted(run.rglob("*"))
    held = {row["ppo/iteration"] for file in mirror_files(run) for row in rows(file.folder)}
    result = CliRunner().invoke(app, ["sync", "--dry-run", "--json"])
    assert result.exit_code == 0, result.output
    (told,) = json.loads(result.stdout)["runs"]
    lost = [step for part in told["lost"] for step in part["steps"]]
    assert lost == [step for step in range(50) if step not in held]
    assert 39 in lost
    assert len(told["sent"]) == 2
    assert sorted(run.rglob("*")) == before


def test_every_row_arrives_once_and_in_order_and_a_second_time_nothing_does(run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(run.parents[1])
    with wandb_server(monkeypatch) as server:
        first = CliRunner().invoke(app, ["sync", "--json"])
        assert first.exit_code == 0, first.output
        ((run_id, lines),) = server.lines.items()
        assert [row["ppo/iteration"] for row in lines] == list(range(50))
        steps = server.steps(run_id)
        assert steps == sorted(set(steps))
        assert server.runs[run_id]["groupName"] == "run-from-0"
        assert server.runs[run_id]["displayName"] == "e policy"
        identity = read_identity(run)
        assert identity is not None
        assert set(steps) == {entry.seq for entry in identity.mirrored(read_ledger(run / LEDGER).entries)}
        times = [row["_timestamp"] for row in lines]
        assert max(times) - min(times) > 2  # those of the ledger, not of the back-fill
        arrived = len(server.content)
        again = CliRunner().invoke(app, ["sync"])
        assert (again.exit_code, again.stdout) == (0, "outputs/run: 0 sent, 3 sent before\n")
        assert len(server.content) == arrived


def test_without_a_key_it_says_so_and_changes_nothing(run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(run.parent))
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    before = sorted(run.rglob("*"))
    with pytest.raises(UsageError, match="set WANDB_API_KEY or run `wandb login`"):
        sync(read(run))
    assert sorted(run.rglob("*")) == before


def test_a_server_that_never_answers_leaves_all_for_the_next_time(run: Path, monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.delenv("WANDB_MODE", raising=False)
        done = sync(read(run), timeout_s=1)
    assert done.sent == ()
    assert "timed out" in done.failed[0]
    assert done.waiting == 3
    with wandb_server(monkeypatch) as server:
        done = sync(read(run))
        assert (len(done.sent), done.lost, done.failed) == (3, (), ())  # the rows were back-filled the first time
        assert [row["ppo/iteration"] for row in next(iter(server.lines.values()))] == list(range(50))


def test_once_the_server_is_silent_no_further_run_is_tried(run: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(run, run.with_name("second"), symlinks=True)
    make_run(run.with_name("third"), config={"wandb": {"mode": "disabled"}})
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    tried: list[Path] = []

    def send(folder: Path, mirrored: Sequence[Path], timeout_s: float) -> str:
        tried.append(folder)
        raise ConnectionError("nobody there")

    first, second, third = sync_all([read(run.with_name(name)) for name in ("run", "second", "third")], send=send)
    assert tried == [run]
    # each run has the folders of its two attempts, and rows lost between them that become a third one
    assert (first.waiting, second.waiting, third.waiting) == (3, 3, 0)
    assert all("nobody there" in line for line in first.failed)
    assert (second.sent, second.lost, second.failed) == ((), (), ())
    assert not_sent([first, second, third]).startswith("W&B does not answer: 6 folders of 2 runs wait;")
    assert "0 sent, 0 sent before, 3 waiting" in described(second, rehearsed=False)
    assert not_sent([third]) == ""


def test_the_command_says_at_the_end_how_many_wait(run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(run.parents[1])
    with socket.create_server(("127.0.0.1", 0)) as closed:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    done = CliRunner().invoke(app, ["sync"])
    assert done.exit_code == 1
    assert "Connection refused" in done.stdout
    assert "3 folders of 1 run wait; look at the network and WANDB_BASE_URL" in done.stderr


def test_a_run_without_wandb_says_why_there_is_nothing(tmp_path: Path):
    off = sync(read(make_run(tmp_path / "off", config={"wandb": {"mode": "disabled"}})))
    assert described(off, rehearsed=False).endswith(
        "skipped, W&B was off (wandb=disabled), so there is nothing to send"
    )
    auto = sync(read(make_run(tmp_path / "auto", config={"wandb": {"mode": "auto"}})))
    assert "it was off (WANDB_MODE=disabled), or no stage had begun" in described(auto, rehearsed=False)


def test_a_run_in_progress_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from rlhf.runs.journal import journal
    from rlhf.runs.record import Asked

    folder = tmp_path / "run"
    with journal(folder, experiment="e", run_id="r", config={}, seed=0, registry="registry", asked=Asked()):
        done = sync(read(folder))
    assert done.skipped is not None
    assert "running" in done.skipped


def test_one_damaged_run_keeps_no_other_from_being_sent(run: Path, monkeypatch: pytest.MonkeyPatch):
    damaged = shutil.copytree(run, run.with_name("a-damaged"), symlinks=True)
    (damaged / "wandb.json").write_text("{")
    monkeypatch.chdir(run.parents[1])
    with wandb_server(monkeypatch):
        done = CliRunner().invoke(app, ["sync"])
    assert done.exit_code == 1
    assert "outputs/a-damaged: 0 sent" in done.stdout
    assert "wandb.json cannot be read" in done.stdout
    assert "outputs/run: 3 sent" in done.stdout, done.stdout


def test_ctrl_c_ends_the_sender_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Else it would go on sending what the next call sends again."""
    began: list[subprocess.Popen[str]] = []

    class Interrupted(subprocess.Popen[str]):
        def communicate(self, *args: object, **options: object) -> tuple[str, str]:
            began.append(self)
            raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with wandb_server(monkeypatch), pytest.raises(KeyboardInterrupt):
        wandb_sync(tmp_path, [tmp_path], 60)
    assert began[0].returncode == -signal.SIGKILL


def test_a_sender_that_takes_too_long_counts_as_a_server_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    began: list[subprocess.Popen[str]] = []

    class Slow(subprocess.Popen[str]):
        def communicate(self, *args: object, **options: object) -> tuple[str, str]:
            began.append(self)
            raise subprocess.TimeoutExpired("wandb", 60)

    monkeypatch.setattr(subprocess, "Popen", Slow)
    with wandb_server(monkeypatch), pytest.raises(ConnectionError, match="no answer of W&B in 60 s"):
        wandb_sync(tmp_path, [tmp_path], 60)
    assert began[0].returncode == -signal.SIGKILL


def test_a_file_of_tomorrow_does_not_hold_up_for_ever(run: Path, monkeypatch: pytest.MonkeyPatch):
    """Another machine's clock may be ahead."""
    first, _ = mirror_files(run)
    ahead = time.time() + 86400
    os.utime(first.file, (ahead, ahead))

    def sleep(seconds: float) -> None:
        raise AssertionError("nobody writes it any more")

    monkeypatch.setattr(time, "sleep", sleep)
    assert len(settled_files(run)) == 2
