import json
import subprocess
import sys
import threading
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from rich.console import Console

from sft.core.errors import DataError
from sft.core.ledger import Alert, LedgerEntry, read_ledger, repeated
from sft.core.tracking import RunTracker
from sft.core.wandb_identity import IDENTITY_FILE, read_identity
from sft.core.wandb_mirror import WandbMirror
from sft.core.wandb_run import Lines, MirrorSettings, Row, Table, WandbRun, open_run

CANARY = "c4n4ry5ecret"
QUIET = Console(file=StringIO())
IDENTITY = {
    "run_id": "r1",
    "project": "p",
    "entity": None,
    "group": "r1",
    "label": "e",
    "config": {},
    "config_sha256": "0",
    "attempts": [0],
    "runs": [],
}


def settings(out_dir: Path, mode: str = "offline") -> MirrorSettings:
    return MirrorSettings(
        out_dir=out_dir,
        mode=mode,
        run_id="id1",
        project="p",
        entity=None,
        group="r1",
        job_type="sft",
        name="quickstart-sft",
        config={},
        tags=(),
    )


class BrokenRun:
    dir = "nowhere"

    def define_metric(self, name: str, step_metric: str | None = None, *, summary: str | None = None) -> object:
        return None

    def log(self, data: dict[str, object], step: int | None = None, commit: bool | None = None) -> None:
        raise OSError("https://user:hidden@server is gone\nsecond line")

    def alert(self, title: str, text: str, level: str) -> None:
        raise AssertionError("never reached")

    def log_artifact(self, artifact_or_path: object) -> object:
        raise AssertionError("never reached")

    def finish(self, exit_code: int | None = None) -> None:
        raise AssertionError("never reached")


def test_a_failure_is_noted_once_and_then_the_mirror_is_quiet(tmp_path: Path):
    notes: list[str] = []
    mirror = WandbMirror(settings(tmp_path), notes.append, opener=lambda settings, mode: BrokenRun())
    for step in range(5):
        mirror.tell(Row(step, step, {"loss": 1.0}))
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
    mirror.tell(Row(0, 0, {"loss": 1.0}))
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
        mirror.tell(Row(step, step, {"loss": 1.0}))
    mirror.end(0)
    assert not mirror.wait(0.05)
    release.set()
    assert mirror.wait(5)


def records(file: Path) -> list[dict[str, Any]]:
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(file)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


RUN = f"""
import sys
from io import StringIO
from pathlib import Path
from rich.console import Console
from sft.core.tracking import RunTracker
from sft.core.wandb_run import Product
out_dir = Path(sys.argv[1])
config = {{"seed": 0, "token": "{CANARY}", "db": "postgresql://u:{CANARY}@h/x", "ppo": {{"kl_coef": 0.05}}}}
run = RunTracker(
    out_dir, run_id="r1", experiment="quickstart", label="ppo.kl_coef=0.05", mode="auto", project="p", config=config,
    about={{"hydra": {{"choices": {{"model": "tiny"}}, "overrides": ["hub.token={CANARY}"]}}}},
    tags=["git:abc", "hub.token={CANARY}"], console=Console(file=StringIO()), log_samples=True,
)
with run:
    parents = {{"base": "base:1"}}
    with run.stage("sft", "sft", tags=["data:123", "base:1"], about={{"stage": {{"parents": parents}}}}) as sft:
        sft.log(10, {{"loss": 2.5}})
        sft.histograms({{"lengths": [1.0, 1.0, 2.0, float("nan")], "none": [float("nan")]}})
        sft.log(11, {{"loss": float("nan")}})
        sft.table("samples", ["prompt", "reward"], [["<b>hi</b>", 1.0], [None, 2], ["x", float("nan")]])
        made = out_dir / "registry" / "sft" / "2"
        made.mkdir(parents=True)
        (made / "model.safetensors").write_text("the weights")
        run.registered(Product("sft:2", "sft", made, "d" * 64, "f" * 64, parents))
    try:
        with run.stage("ppo-1", "policy") as ppo:
            ppo.log(3, {{"objective/kl": 1.5}})
            ppo.lines("kl_reward", "Reward against KL", "kl", {{"proxy": [(0.0, 1.0), (2.0, 3.0)], "gold": []}})
            ppo.log(4, {{"objective/kl": 1.0}})
            for _ in range(2):
                ppo.alert("PPO: KL limit", "12 nats, see https://u:{CANARY}@h/x", "ERROR")
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


class Seen(NamedTuple):
    """What wandb's own reader finds in a file."""

    run: dict[str, Any]
    records: list[dict[str, Any]]

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [record[kind] for record in self.records if record["type"] == kind]

    @property
    def history(self) -> list[dict[str, Any]]:
        return [row["item"] for row in self.all("history")]


@pytest.fixture(scope="module")
def seen(offline_run: Path) -> dict[str, Seen]:
    """The W&B runs by stage."""
    found = [records(file) for file in sorted((offline_run / "wandb").glob("offline-run-*/*.wandb"))]
    runs = [next(record["run"] for record in every if record["type"] == "run") for every in found]
    assert len(runs) == 2
    return {run["job_type"]: Seen(run, every) for run, every in zip(runs, found, strict=True)}


def test_each_stage_is_one_run_that_says_what_it_is(seen: dict[str, Seen]):
    assert {stage: one.run["display_name"] for stage, one in seen.items()} == {
        "sft": "ppo.kl_coef=0.05 sft",
        "ppo": "ppo.kl_coef=0.05 policy round 1",
    }
    for one in seen.values():
        assert (one.run["project"], one.run["run_group"]) == ("p", "r1")
        config = one.run["config"]["update"]
        assert config["ppo"] == {"kl_coef": 0.05}
        assert config["hydra"] == {"choices": {"model": "tiny"}, "overrides": ["hub.token=[redacted]"]}
    assert seen["sft"].run["tags"] == ["git:abc", "hub.token=[redacted]", "data:123", "base:1"]
    assert seen["sft"].run["config"]["update"]["stage"] == {"parents": {"base": "base:1"}}
    codes = {stage: one.all("exit")[0].get("exit_code", 0) for stage, one in seen.items()}
    assert codes == {"sft": 0, "ppo": 1}


def test_rows_have_the_stages_own_step_and_the_ledgers_number(seen: dict[str, Seen], offline_run: Path):
    sft, ppo = seen["sft"].history, seen["ppo"].history
    assert [(row["_step"], row["sft/step"], row["sft/loss"]) for row in sft[:2]] == [(0, 10, 2.5), (1, 11, "NaN")]
    assert [(row["_step"], row["ppo/iteration"], row["objective/kl"]) for row in ppo] == [(2, 3, 1.5), (3, 4, 1.0)]
    entries = read_ledger(offline_run / "metrics.jsonl").entries
    assert [(entry.seq, entry.stage, entry.product, entry.step) for entry in entries if entry.metrics] == [
        (0, "sft", "sft", 10),
        (1, "sft", "sft", 11),
        (2, "ppo-1", "policy", 3),
        (3, "ppo-1", "policy", 4),
    ]
    axes = {metric.get("name") or metric["glob_name"]: metric for metric in seen["ppo"].all("metric")}
    assert axes["*"]["step_metric"] == axes["objective/kl"]["step_metric"] == "ppo/iteration"
    assert set(axes["objective/scores"]["summary"]) == {"max", "last"}


def test_pictures_go_with_the_row_that_they_belong_to(seen: dict[str, Seen]):
    with_histogram = seen["sft"].history[1]
    assert (with_histogram["sft/lengths._type"], with_histogram["sft/lengths.values"]) == (
        "histogram",
        [2, *62 * [0], 1],
    )
    assert not any(name.startswith("sft/none") for name in with_histogram)
    assert seen["sft"].history[2]["sft/samples.nrows"] == 3
    assert any("kl_reward_table" in name for name in seen["ppo"].history[1])
    assert '"title":"Reward against KL"' in json.dumps(seen["ppo"].records, separators=(",", ":"))


def test_an_alert_is_told_once_everywhere(seen: dict[str, Seen], offline_run: Path):
    (alert,) = seen["ppo"].all("alert")
    told = Alert("PPO: KL limit", "12 nats, see https://[redacted]@h/x", "ERROR")
    assert (alert["title"], alert["text"], alert["level"]) == told
    assert [entry.alert for entry in read_ledger(offline_run / "metrics.jsonl").entries if entry.alert] == [told]


def test_an_artifact_refers_to_the_registry_and_holds_no_file(seen: dict[str, Seen], offline_run: Path):
    artifact = next(found for found in seen["sft"].all("artifact") if found["type"] == "sft")
    assert artifact["name"] == "sft"
    (entry,) = artifact["manifest"]["contents"]
    weights = offline_run / "registry" / "sft" / "2" / "model.safetensors"
    assert (entry["ref"], entry["path"]) == (weights.as_uri(), f"2-{'d' * 64}/model.safetensors")
    assert json.loads(artifact["metadata"]) == {
        "ref": "sft:2",
        "sha256": "d" * 64,
        "fingerprint": "f" * 64,
        "parents": {"base": "base:1"},
    }
    others = [path for path in offline_run.rglob("*") if path.is_file() and "registry" not in path.parts]
    assert [path for path in others if b"the weights" in path.read_bytes()] == []


def test_no_secret_reaches_any_file(offline_run: Path):
    files = [path for path in offline_run.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert [str(path) for path in files if CANARY.encode() in path.read_bytes()] == []
    assert (offline_run / "wandb" / "artifacts").is_dir()  # staged tables lie where a later sync finds them


def test_texts_stay_here_unless_samples_are_to_be_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sent: list[object] = []
    monkeypatch.setattr(WandbMirror, "tell", lambda self, item: sent.append(item))
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
            stage.lines("plot", "Plot", "x", {"a": [(0, 1)]})
    plot = Lines("plot", "Plot", "x", {"a": [(0, 1)]})
    assert sent == [plot, Table("samples", ("a",), (("x",),)), plot]
    assert read_ledger(tmp_path / "metrics.jsonl").entries == []


def test_another_configuration_in_the_same_folder_begins_new_runs(tmp_path: Path):
    def ids(config: dict[str, object]) -> list[str]:
        run = RunTracker(
            tmp_path, run_id="r", experiment="e", mode="offline", project="p", config=config, console=QUIET
        )
        with run:
            for stage, product in (("reward", "reward"), ("reward", "judge")):
                with run.stage(stage, product) as tracker:
                    tracker.log(1, {"loss": 1.0})
        identity = read_identity(tmp_path)
        assert identity is not None
        return [mirrored.id for mirrored in identity.runs]

    first = ids({"seed": 0, "wandb": {"mode": "offline"}})
    assert len(set(first)) == 2
    assert ids({"seed": 0, "wandb": {"mode": "online"}, "resume": {"allow": ["x"]}}) == first
    other = ids({"seed": 1})
    assert len(set(first) & set(other)) == 0
    identity = read_identity(tmp_path)
    assert identity is not None
    assert identity.attempts == (4,)


@pytest.mark.parametrize(
    "damage", ['{"run_id": 1}', "[" * 100_000, json.dumps({**IDENTITY, "attempts": [None]})], ids=range(3)
)
def test_a_damaged_identity_says_what_to_do(tmp_path: Path, damage: str):
    (tmp_path / IDENTITY_FILE).write_text(json.dumps(IDENTITY))
    assert read_identity(tmp_path) is not None
    (tmp_path / IDENTITY_FILE).write_text(damage)
    with pytest.raises(DataError, match="restore it, or remove it to begin new W&B runs"):
        read_identity(tmp_path)


def test_lines_that_an_attempt_repeats_are_known():
    def line(seq: int, step: int, *names: str, product: str = "policy") -> LedgerEntry:
        return LedgerEntry(seq, "", "ppo", step, dict.fromkeys(names, 1.0), product)

    entries = [
        line(0, 1, "kl"),
        line(1, 1, "loss"),
        line(2, 2, "kl"),
        line(3, 2, "kl"),  # the same attempt says it twice: both count
        line(4, 2, "kl"),  # carries on after step 1
        line(5, 2, "loss"),
        line(6, 2, "kl", product="other"),
        line(7, 2, "loss"),
    ]
    assert repeated(entries, [0, 4]) == {4}
    assert repeated(entries, [0, 4, 7]) == {4, 7}
    assert repeated(entries, [0]) == set()


def test_a_run_lies_in_its_folder_also_where_wandbs_service_began_in_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The service outlives a run: it took `outputs/run` for a path from where it began, and the rows were lost."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        run = open_run(settings(Path("outputs")), "offline")
        run.log({"a": 1.0})
        run.finish()
        assert len(list((tmp_path / name).glob("outputs/wandb/offline-run-*/*.wandb"))) == 1
