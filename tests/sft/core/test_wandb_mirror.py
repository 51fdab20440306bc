import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from sft.core.tracking import RunTracker, read_ledger
from sft.core.wandb_mirror import (
    REDACTED,
    MirrorSettings,
    WandbMirror,
    WandbRun,
    looks_secret,
    redact,
    redact_text,
    resolve_mode,
)

CANARY = "c4n4ry5ecret"


@pytest.mark.parametrize("key", ["password", "hub.token", "HF_TOKEN", "api_key", "wandb.api-key", "client_secret"])
def test_secret_keys(key: str):
    assert looks_secret(key)


@pytest.mark.parametrize(
    "key", ["max_tokens", "pad_token", "model.pad_token", "eos_token_id", "tokenizer", "max_prompt_tokens", "seed"]
)
def test_harmless_keys(key: str):
    assert not looks_secret(key)


def test_redaction_reaches_nested_values_urls_and_overrides():
    config = {
        "seed": 0,
        "model": {"pad_token": "<pad>", "token": CANARY, "max_tokens": 5},
        "registry": {"url": f"postgresql://rlhf:{CANARY}@db.example/registry"},
        "overrides": [
            f"+hub.token={CANARY}",
            "ppo.kl_coef=0.1",
            ("nested", f"https://x.example/?api_key={CANARY}&a=1"),
        ],
        "password": None,
        "path": Path("/data/x"),
    }
    assert redact(config) == {
        "seed": 0,
        "model": {"pad_token": "<pad>", "token": REDACTED, "max_tokens": 5},
        "registry": {"url": f"postgresql://{REDACTED}@db.example/registry"},
        "overrides": [
            f"+hub.token={REDACTED}",
            "ppo.kl_coef=0.1",
            ["nested", f"https://x.example/?api_key={REDACTED}&a=1"],
        ],
        "password": None,
        "path": "/data/x",
    }
    assert redact_text("https://hub.example/a@b") == "https://hub.example/a@b"  # an @ in a path is no login


def test_mode_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert resolve_mode("auto", {}) == "offline"
    assert resolve_mode("auto", {"WANDB_API_KEY": "k"}) == "online"
    assert resolve_mode("auto", {"WANDB_API_KEY": "k", "WANDB_MODE": "offline"}) == "offline"
    assert resolve_mode("auto", {"WANDB_MODE": "disabled"}) == "disabled"
    assert resolve_mode("disabled", {"WANDB_API_KEY": "k"}) == "disabled"
    login = tmp_path / "login"
    login.write_text("machine wandb.example login user password abc\n")
    login.chmod(0o600)
    there = {"NETRC": str(login), "WANDB_BASE_URL": "https://wandb.example"}
    assert resolve_mode("auto", there) == "online"
    assert resolve_mode("auto", {"NETRC": str(login)}) == "offline"
    login.write_text("machine wandb.example log")
    assert resolve_mode("auto", there) == "offline"


def settings(out_dir: Path, mode: str = "offline") -> MirrorSettings:
    return MirrorSettings(
        out_dir=out_dir,
        mode=mode,
        project="p",
        entity=None,
        group="r1",
        job_type="sft",
        name="quickstart-sft",
        config={},
        tags=(),
    )


class BrokenRun:
    def define_metric(self, name: str, step_metric: str | None = None) -> object:
        return None

    def log(self, data: Mapping[str, object]) -> None:
        raise OSError("https://user:hidden@server is gone\nsecond line")

    def finish(self, exit_code: int | None = None) -> None:
        raise AssertionError("never reached")


def test_a_failure_is_noted_once_and_then_the_mirror_is_quiet(tmp_path: Path):
    notes: list[str] = []
    mirror = WandbMirror(settings(tmp_path), notes.append, opener=lambda settings, mode: BrokenRun())
    for step in range(5):
        mirror.log(step, {"loss": 1.0})
    mirror.end(0)
    assert mirror.wait(5)
    assert len(notes) == 1
    assert "OSError" in notes[0]
    assert "hidden" not in notes[0]
    assert "second line" not in notes[0]


def test_an_unreachable_server_means_an_offline_run(tmp_path: Path):
    opened: list[str] = []

    def opener(settings: MirrorSettings, mode: str) -> WandbRun:
        opened.append(mode)
        if mode == "online":
            raise TimeoutError("no answer")
        return BrokenRun()

    notes: list[str] = []
    mirror = WandbMirror(settings(tmp_path, "online"), notes.append, opener=opener)
    mirror.log(0, {"loss": 1.0})
    assert mirror.wait(5)
    assert opened == ["online", "offline"]
    assert "kept offline" in notes[0]


def test_a_hanging_wandb_holds_up_nobody(tmp_path: Path):
    release = threading.Event()

    def opener(settings: MirrorSettings, mode: str) -> WandbRun:
        release.wait(30)
        return BrokenRun()

    mirror = WandbMirror(settings(tmp_path), lambda note: None, opener=opener)
    for step in range(1000):
        mirror.log(step, {"loss": 1.0})
    mirror.end(0)
    assert not mirror.wait(0.05)
    release.set()
    assert mirror.wait(5)


def records(file: Path) -> list[dict[str, object]]:
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(file)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


RUN = f"""
import sys
from io import StringIO
from pathlib import Path
from rich.console import Console
from sft.core.tracking import RunTracker
config = {{"seed": 0, "token": "{CANARY}", "db": "postgresql://u:{CANARY}@h/x", "ppo": {{"kl_coef": 0.05}}}}
run = RunTracker(
    Path(sys.argv[1]), run_id="r1", experiment="quickstart", mode="auto", project="p", config=config,
    tags=["git-abc", "hub.token={CANARY}"], console=Console(file=StringIO()),
)
with run:
    with run.stage("sft") as sft:
        sft.log(10, {{"loss": 2.5}})
        sft.log(5, {{"loss": float("nan")}})
        sft.table("samples", ["prompt", "reward"], [["<b>hi</b>", 1.0], [None, 2], ["x", float("nan")]])
    try:
        with run.stage("ppo") as ppo:
            ppo.log(3, {{"objective/kl": 1.5}})
            raise RuntimeError("boom")
    except RuntimeError:
        pass
"""


@pytest.fixture(scope="module")
def offline_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real offline run, in a process of its own with secrets in its arguments and environment."""
    home, out_dir = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("run")
    environment = {
        "HOME": str(home),
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(Path(__file__).parents[3]),
        "HF_TOKEN": CANARY,
        "DATABASE_PASSWORD": CANARY,
    }
    command = [sys.executable, "-c", RUN, str(out_dir), f"hub.token={CANARY}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return out_dir


def test_each_stage_is_one_run_with_group_job_type_and_history(offline_run: Path):
    files = sorted((offline_run / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2
    by_stage = {}
    for file in files:
        found = records(file)
        run = next(record["run"] for record in found if record["type"] == "run")
        assert isinstance(run, dict)
        assert (run["project"], run["run_group"], run["config"]["update"]["ppo"]) == ("p", "r1", {"kl_coef": 0.05})
        assert run["display_name"] == f"quickstart-{run['job_type']}"
        by_stage[run["job_type"]] = found
    sft = [r["history"]["item"] for r in by_stage["sft"] if r["type"] == "history"]  # type: ignore[index]
    assert [(row["sft/step"], row["sft/loss"]) for row in sft[:2]] == [(10, 2.5), (5, "NaN")]
    assert sft[2]["sft/samples.nrows"] == 3
    ppo = [r["history"]["item"] for r in by_stage["ppo"] if r["type"] == "history"]  # type: ignore[index]
    assert [(row["ppo/iteration"], row["objective/kl"]) for row in ppo] == [(3, 1.5)]
    axes = [r["metric"] for r in by_stage["ppo"] if r["type"] == "metric"]
    assert {"ppo/iteration"} == {axis.get("step_metric") for axis in axes if "glob_name" in axis}  # type: ignore[attr-defined]
    codes = {stage: next(r["exit"] for r in found if r["type"] == "exit") for stage, found in by_stage.items()}
    assert {stage: code.get("exit_code", 0) for stage, code in codes.items()} == {"sft": 0, "ppo": 1}  # type: ignore[attr-defined]


def test_no_secret_reaches_any_file(offline_run: Path):
    files = [path for path in offline_run.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert [str(path) for path in files if CANARY.encode() in path.read_bytes()] == []
    assert (offline_run / "wandb" / "artifacts").is_dir()  # staged tables lie where a later sync finds them


def test_texts_stay_here_when_samples_are_not_to_be_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sent: list[str] = []
    monkeypatch.setattr(WandbMirror, "table", lambda self, name, columns, rows: sent.append(name))
    for log_samples in (False, True):
        run = RunTracker(
            tmp_path,
            run_id="r",
            experiment="e",
            mode="disabled",
            project="p",
            config={},
            console=Console(file=StringIO()),
            log_samples=log_samples,
        )
        with run, run.stage("evaluation") as stage:
            stage.table("samples", ["a"], [["x"]])
    assert sent == ["samples"]
    assert read_ledger(tmp_path / "metrics.jsonl").entries == []
