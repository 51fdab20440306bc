import json
import math
import os
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from sft.core.ledger import LEDGER, Ledger, read_ledger
from sft.core.progress import LineProgress, numbers_text, shown_numbers, stage_progress
from sft.core.tracking import NullTracker, RunTracker, Tracker
from sft.core.wandb_files import settled_files


def tracker(out_dir: Path, console: Console | None = None) -> RunTracker:
    return RunTracker(
        out_dir,
        run_id="r1",
        experiment="quickstart",
        mode="disabled",
        project="p",
        config={},
        console=console or Console(file=StringIO()),
    )


def test_ledger_line_is_valid_json_with_the_promised_fields(tmp_path: Path):
    ledger = Ledger(tmp_path / "run" / LEDGER)
    ledger.append("sft", 10, {"loss": 2.5, "nan": math.nan, "up": math.inf, "down": -math.inf})

    def refuse(name: str) -> float:
        raise AssertionError(f"{name} is no JSON")

    row = json.loads(ledger.path.read_text(), parse_constant=refuse)
    assert list(row) == ["seq", "time", "stage", "product", "step", "metrics"]
    assert row["metrics"] == {"loss": 2.5, "nan": "NaN", "up": "Infinity", "down": "-Infinity"}
    assert row["time"].endswith("+00:00")
    entry = read_ledger(ledger.path).entries[0]
    assert (entry.seq, entry.stage, entry.step, entry.metrics["down"]) == (0, "sft", 10, -math.inf)
    assert math.isnan(entry.metrics["nan"])


def test_opened_again_the_ledger_carries_on_counting(tmp_path: Path):
    path = tmp_path / LEDGER
    Ledger(path).append("sft", 1, {"loss": 1.0})
    again = Ledger(path)
    again.append("sft", 2, {"loss": 0.5})
    assert [entry.seq for entry in read_ledger(path).entries] == [0, 1]


def test_cut_off_at_any_byte_the_ledger_keeps_whole_lines_and_takes_new_ones(tmp_path: Path):
    path = tmp_path / LEDGER
    ledger = Ledger(path)
    for step in range(3):
        ledger.append("sft", step, {"loss": float(step), "naïve": 1.0})
    content = path.read_bytes()
    starts = [0, *(i + 1 for i, byte in enumerate(content) if byte == ord("\n"))]
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        # A line is whole with or without its line break.
        whole = sum(length >= end - 1 for end in starts[1:])
        torn = int(length not in starts and length not in [end - 1 for end in starts[1:]])
        rows = read_ledger(path)
        assert (len(rows.entries), rows.broken) == (whole, torn)
        Ledger(path).append("ppo", 7, {"kl": 1.0})
        rows = read_ledger(path)
        assert [entry.seq for entry in rows.entries] == list(range(whole + 1))
        assert rows.broken == torn


@pytest.mark.parametrize(
    "tail",
    [
        b"\0" * 64,
        b"\xff\xfe{",
        b"[1, 2]\n",
        b'{"seq": 1}\n',
        b"null\n",
        b"[" * 100_000,
        b'{"seq": Infinity, "time": "", "stage": "", "step": 0, "metrics": {}}\n',
        b'{"seq": 1, "time": "", "stage": "", "step": 0, "metrics": {}, "product": []}\n',
    ],
    ids=range(8),
)
def test_rubbish_is_counted_not_fatal(tmp_path: Path, tail: bytes):
    path = tmp_path / LEDGER
    Ledger(path).append("sft", 1, {"loss": 1.0})
    path.write_bytes(path.read_bytes() + tail)
    rows = read_ledger(path)
    assert (len(rows.entries), rows.broken) == (1, 1)


def test_a_killed_writer_leaves_every_line_it_wrote(tmp_path: Path):
    path = tmp_path / LEDGER
    script = (
        "import sys, itertools; from pathlib import Path; from sft.core.ledger import Ledger\n"
        "ledger = Ledger(Path(sys.argv[1]))\n"
        "for step in itertools.count(): ledger.append('ppo', step, {'kl': 1.0}); print(step, flush=True)"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    told = -1
    while told < 20:
        told = int(child.stdout.readline())
    child.send_signal(signal.SIGKILL)
    child.wait()
    steps = [entry.step for entry in read_ledger(path).entries]
    assert steps == list(range(len(steps)))
    assert len(steps) > told
    child.stdout.close()


def test_every_line_of_a_marked_run_begins_with_its_mark(tmp_path: Path):
    console = Console(file=StringIO(), width=60)
    marked = RunTracker(
        tmp_path, run_id="r", experiment="e", mode="disabled", project="p", config={}, console=console, mark="#2 seed=1"
    )
    with marked:
        marked.cached("sft")
        with marked.stage("ppo") as ppo:
            ppo.start(40, "iteration")
            ppo.log(40, {"objective/kl": 3.0})
            ppo.note("planned memory\n  always 1 MiB")
            ppo.alert("kl", "too far")
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert "#2 seed=1 · ppo: 40/40 iteration · kl 3" in lines
    assert len(lines) == 6
    assert [line for line in lines if not line.startswith("#2 seed=1 · ")] == []


def fail_in_a_stage(run: RunTracker) -> None:
    with run.stage("ppo") as ppo:
        ppo.log(1, {"objective/kl": 3.0})
        raise RuntimeError("boom")


def test_stage_writes_the_ledger_and_ends_its_display_after_an_error(tmp_path: Path):
    console = Console(file=StringIO(), width=200)
    with tracker(tmp_path, console) as run:
        with run.stage("sft") as sft:
            sft.start(2, "steps")
            sft.log(1, {"loss": 2.0})
            sft.log(1, {})
            sft.log(2, {"loss": 1.0})
        with pytest.raises(RuntimeError, match="boom"):
            fail_in_a_stage(run)
        run.cached("reward")
    entries = read_ledger(tmp_path / LEDGER).entries
    assert [(e.stage, e.step, e.metrics) for e in entries] == [
        ("sft", 1, {"loss": 2.0}),
        ("sft", 2, {"loss": 1.0}),
        ("ppo", 1, {"objective/kl": 3.0}),
    ]
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "sft: 2/2 steps · loss 1" in text
    assert "ppo: 1 · kl 3" in text
    assert "reward: already done" in text


def test_null_tracker_is_a_tracker():
    quiet: Tracker = NullTracker()
    quiet.start(3, "steps")
    quiet.log(1, {"loss": 1.0})
    quiet.table("samples", ["a"], [[1]])
    quiet.histograms({"a": [1.0]})
    quiet.lines("a", "A", "x", {"b": [(0, 1)]})
    quiet.alert("a", "b")
    quiet.note("nothing")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_come_first_last_and_every_ten_seconds():
    console = Console(file=StringIO(), width=200)
    clock = Clock()
    progress = LineProgress("sft", console, clock=clock)
    progress.start(1000, "steps")
    for step in range(1, 301):
        clock.now += 0.125
        progress.advance(step, {"loss": 2.0, "learning_rate": 1e-4})
    progress.close()
    progress.close()
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0] == "sft: 0/1000 steps"
    assert [line.split()[1] for line in lines] == ["0/1000", "80/1000", "160/1000", "240/1000", "300/1000"]
    assert lines[1] == "sft: 80/1000 steps · eta 0:01:55 · loss 2"  # 920 steps at 0.125 s


def test_eta_of_a_resumed_stage_counts_from_where_it_resumed():
    clock = Clock()
    console = Console(file=StringIO(), width=200)
    progress = LineProgress("ppo", console, clock=clock)
    progress.start(1000, "iterations")
    clock.now += 1
    progress.advance(900, {})
    clock.now += 10
    progress.advance(910, {})
    assert "910/1000 iterations · eta 0:01:30" in console.file.getvalue()  # type: ignore[attr-defined]


def test_bar_shows_stage_count_and_numbers_and_survives_markup():
    console = Console(file=StringIO(), force_terminal=True, width=200)
    progress = stage_progress("ppo", console)
    progress.start(60, "iterations")
    progress.advance(7, {"objective/kl": 8.41, "objective/scores": 2.5, "other": 1.0})
    progress.note("[red]not markup[/nonsense]")
    progress.close()
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "7/60 iterations" in text
    assert "reward 2.5 · kl 8.41" in text
    assert "[red]not markup[/nonsense]" in text


def test_numbers_shown_have_short_names_in_a_fixed_order():
    assert numbers_text(shown_numbers("sft", {"eval_loss": 2.0, "loss": 1.23456, "grad_norm": 9})) == (
        "loss 1.23 · eval loss 2"
    )
    assert shown_numbers("evaluation", {"val/b": 2.0, "a": 1.0, "c": 3.0, "d": 4.0}) == {"a": 1.0, "c": 3.0, "d": 4.0}


def test_the_ledger_is_whole_and_on_time_while_wandb_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """A server that takes connections and never answers costs training nothing."""
    import socket

    from sft.core import wandb_run

    monkeypatch.setattr(wandb_run, "PROBE_TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.delenv("WANDB_MODE", raising=False)
        console = Console(file=StringIO(), width=300)
        run = RunTracker(tmp_path, run_id="r", experiment="e", mode="auto", project="p", config={}, console=console)
        began = time.monotonic()
        with run:
            with run.stage("sft") as sft:
                for step in range(200):
                    sft.log(step, {"loss": 1.0})
            trained = time.monotonic() - began
    assert len(read_ledger(tmp_path / LEDGER).entries) == 200
    assert trained < 1.0
    (kept,) = settled_files(tmp_path)
    assert (kept.offline, kept.ended, len(kept.seqs)) == (True, True, 200)
    assert "W&B cannot be reached" in console.file.getvalue()  # type: ignore[attr-defined]
    assert "WANDB_DATA_DIR" not in os.environ
    assert capfd.readouterr() == ("", "")
