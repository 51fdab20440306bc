import json
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import pytest
from made_runs import change, make_run, read, stage

from rlhf.runs.journal import journal
from rlhf.runs.process import this_process
from rlhf.runs.record import RUN_FILE, Asked, State, parse_record
from sft.core import interruption
from sft.core.durable import json_digest
from sft.core.errors import DataError, Interrupted, StorageError, UsageError
from sft.core.ledger import Ledger

ABOUT = {"experiment": "e", "run_id": "e-1", "seed": 3, "registry": "registry"}
CONFIG = {"seed": 3, "hub": {"token": "hunter2"}, "url": "postgresql://ana:pw@db/x", "ppo": {"kl_coef": 0.1}}
ASKED = Asked(("hub.token=hunter2", "seed=3"), {"model": "tiny"}, "multirun/7")


def written(folder: Path) -> dict:
    return json.loads((folder / RUN_FILE).read_text())


def test_run_json_tells_of_the_run_from_its_start_to_its_end(tmp_path: Path):
    with journal(tmp_path / "deep" / "run", config=CONFIG, asked=ASKED, processes=2, **ABOUT) as kept:
        folder = kept.folder
        first = written(folder)
        assert (first["state"], first["ended"], first["stages"], first["attempt"]) == ("running", None, [], 1)
        assert first["process"] == this_process()._asdict()
        kept.stage_done(stage("sft", seconds=1.5), {"loss": [1, 2]})
        assert [done["name"] for done in written(folder)["stages"]] == ["sft"]
        assert json.loads((folder / "stages" / "sft.json").read_text()) == {"loss": [1, 2]}
    last = written(folder)
    assert last["state"] == "finished"
    assert last["ended"] >= last["started"]
    assert last["seconds"] >= first["seconds"] >= 0
    assert last["config_sha256"] == json_digest(CONFIG)
    assert (last["processes"], last["sweep"], last["choices"]) == (2, "multirun/7", {"model": "tiny"})
    assert "hunter2" not in (folder / RUN_FILE).read_text()
    assert "pw" not in last["config"]["url"]
    assert last["overrides"] == ["hub.token=[redacted]", "seed=3"]
    assert parse_record(last).as_dict() == last


@pytest.mark.parametrize(
    ("error", "state", "said"),
    [
        (
            DataError("labels.csv:\n  line 3, see postgresql://a:b@h"),
            "failed",
            "DataError: labels.csv: line 3, see postgresql://[redacted]@h",
        ),
        (Interrupted("by SIGTERM"), "interrupted", "Interrupted: by SIGTERM"),
        (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt"),
        (SystemExit(3), "failed", "SystemExit: 3"),
        (SystemExit(-1), "interrupted", "SystemExit: -1"),
    ],
)
def test_an_error_ends_the_run_with_its_line(tmp_path: Path, error: BaseException, state: str, said: str):
    with pytest.raises(type(error)), journal(tmp_path, config=CONFIG, asked=Asked(), **ABOUT):
        raise error
    assert (written(tmp_path)["state"], written(tmp_path)["error"]) == (state, said)


def test_a_signal_that_a_library_made_another_error_of_is_an_interruption(tmp_path: Path, monkeypatch):
    """The exit code is 75 then, and what the folder says must agree."""
    monkeypatch.setattr(interruption, "_stopped_by", ["SIGINT"])
    with pytest.raises(RuntimeError), journal(tmp_path, config=CONFIG, asked=Asked(), **ABOUT):
        raise RuntimeError("could not compile") from KeyboardInterrupt()
    assert written(tmp_path)["state"] == "interrupted"
    assert written(tmp_path)["error"] == "RuntimeError: could not compile"
    with pytest.raises(StorageError), journal(tmp_path, config=CONFIG, asked=Asked(), **ABOUT):
        raise StorageError("the disk is full")
    assert written(tmp_path)["state"] == "failed"


def test_a_waiting_run_stays_waiting(tmp_path: Path):
    assert read(make_run(tmp_path, state=State.WAITING)).record.state is State.WAITING
    assert written(tmp_path)["state"] == "waiting"


def test_a_full_disk_at_the_end_does_not_hide_the_error(tmp_path: Path):
    def failing() -> None:
        with journal(tmp_path, config=CONFIG, asked=Asked(), **ABOUT) as kept:
            kept.folder = tmp_path / RUN_FILE  # nothing can be written below a file
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert written(tmp_path)["state"] == "running"


KILLED = """
import sys, time
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from rlhf.runs.journal import journal
from rlhf.runs.record import Asked
about = {"experiment": "e", "run_id": "e-1", "seed": 3, "registry": "registry"}
with journal(Path(sys.argv[1]), config={"a": 1}, asked=Asked(), **about):
    print("runs", flush=True)
    time.sleep(60)
"""


def test_a_killed_run_counts_as_killed_and_can_be_carried_on(tmp_path: Path):
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=-1, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "runs\n"
        assert read(tmp_path).record.state is State.RUNNING
        with (
            pytest.raises(UsageError, match="is being written"),
            journal(tmp_path, config={"a": 1}, asked=Asked(), **ABOUT),
        ):
            pass
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert written(tmp_path)["state"] == "running"
    assert read(tmp_path).record.state is State.KILLED
    with journal(tmp_path, config={"a": 1}, asked=Asked(), **ABOUT):
        assert written(tmp_path)["attempt"] == 2
    assert read(tmp_path).record.state is State.FINISHED


def test_a_run_of_another_machine_is_not_called_killed(tmp_path: Path):
    make_run(tmp_path)
    elsewhere = this_process()._replace(host="node-7", boot_id="x", pid=1)
    change(tmp_path / RUN_FILE, state="running", process=elsewhere._asdict())
    assert read(tmp_path).record.state is State.RUNNING


def test_lines_of_another_configuration_in_the_same_folder_do_not_count(tmp_path: Path):
    def attempt(config: dict, value: float) -> list[float]:
        with journal(tmp_path, config=config, asked=Asked(), **ABOUT):
            Ledger(tmp_path / "metrics.jsonl").append("ppo", 1, {"x": value})
        return [entry.metrics["x"] for entry in read(tmp_path).ledger]

    assert attempt({"a": 1}, 1.0) == [1.0]
    assert attempt({"a": 1}, 2.0) == [1.0, 2.0]
    assert attempt({"a": 2}, 3.0) == [3.0]
    assert attempt({"a": 2}, 4.0) == [3.0, 4.0]
    assert attempt({"a": 1}, 5.0) == [5.0]


@pytest.mark.parametrize(
    "broken", [{"state": "asleep"}, {"seed": "three"}, {"process": {}}, {"stages": [{"name": "sft"}]}]
)
def test_a_damaged_record_is_refused_with_what_is_wrong(tmp_path: Path, broken: dict):
    make_run(tmp_path)
    change(tmp_path / RUN_FILE, **broken)
    with pytest.raises(DataError, match=r"run\.json .*restore it, or remove the folder"):
        read(tmp_path)


@pytest.mark.parametrize("jump", [-1.0, 0.0, 1.0], ids=["a day back", "equal times", "a day on"])
def test_a_clock_that_jumps_changes_no_count_and_no_duration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
):
    now = datetime(2026, 11, 21, 10, tzinfo=UTC)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            nonlocal told
            told += 1
            return now + told * timedelta(days=jump)

    told = 0
    monkeypatch.setattr("rlhf.runs.journal.datetime", Clock)
    for attempt in (1, 2, 3):
        with journal(tmp_path, config=CONFIG, asked=Asked(), **ABOUT):
            Ledger(tmp_path / "metrics.jsonl").append("ppo", attempt, {"x": 1.0})
        found = read(tmp_path)
        assert (found.record.attempt, found.record.state) == (attempt, State.FINISHED)
        assert 0 <= found.record.seconds < 60
        assert [entry.step for entry in found.ledger] == list(range(1, attempt + 1))
    assert told >= 6
