"""Carrying on a run from its run.json: which configuration, which folder, what is refused. Nothing is trained."""

import json
import logging
from pathlib import Path

import pytest
from made_runs import change

from rlhf import schema
from rlhf.config import ExperimentConfig
from rlhf.launch import launch
from rlhf.resume import Accept, resume
from rlhf.runs.journal import journal
from rlhf.runs.launched import asked_of_hydra
from rlhf.runs.process import this_process
from rlhf.runs.record import Asked, State
from sft.core.durable import write_json
from sft.core.errors import DataError, Interrupted, StorageError, UsageError

NOTHING = Accept()
EXPERIMENT = "# @package _global_\ndefaults:\n  - override /model: tiny\nseed: 5\nppo: {kl_coef: 0.2}\n"


class Runs:
    """Begins runs that end in some state, and carries them on; what is computed is a note of the configuration."""

    def __init__(self) -> None:
        self.computed: list[tuple[Path, int, float, Asked]] = []
        self.said: list[str] = []
        self.fails: dict[Path, Exception] = {}

    def begin(self, *words: str, state: State = State.INTERRUPTED) -> None:
        def task(config: ExperimentConfig, name: str, folder: Path, overrides: list[str]) -> dict[str, object]:
            self._write(folder, config, name, asked_of_hydra(overrides), state)
            return {}

        launch([*words], task)

    def _write(self, folder: Path, config: ExperimentConfig, name: str, asked: Asked, state: State) -> None:
        about = {"experiment": name, "run_id": f"id-of-{folder.name}", "seed": config.seed, "registry": "registry"}
        with journal(folder, config=schema.to_tree(config), asked=asked, **about) as kept:  # type: ignore[arg-type]
            kept.end(state)

    def resume(self, *named: str | Path, accept: Accept = NOTHING, processes: int = 1) -> list:
        def task(
            asked: Asked, config: ExperimentConfig, name: str, folder: Path, overrides: list[str]
        ) -> dict[str, object]:
            if folder in self.fails:
                raise self.fails[folder]
            self.computed.append((folder, config.seed, config.ppo.kl_coef, asked))
            self._write(folder, config, name, asked, State.FINISHED)
            return {"experiment": name, "cwd": str(Path.cwd())}

        return resume(list(map(str, named)), [Path("outputs")], accept, task, self.said.append, processes=processes)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield Runs()
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def own_files(tmp_path: Path) -> Path:
    """Return a folder with a user's experiment."""
    folder = tmp_path / "mine"
    (folder / "experiment").mkdir(parents=True)
    (folder / "experiment" / "own.yaml").write_text(EXPERIMENT)
    return folder


@pytest.mark.parametrize("state", [State.INTERRUPTED, State.FAILED, State.WAITING])
def test_the_same_configuration_in_the_same_folder(runs: Runs, tmp_path: Path, state: State):
    runs.begin("experiment=quickstart", "seed=3", "ppo.kl_coef=0.07", "hydra.run.dir=one", state=state)
    asked = json.loads(Path("one/run.json").read_text())
    assert runs.resume("one") == [{"experiment": "quickstart", "cwd": str(tmp_path)}]
    ((folder, seed, kl_coef, passed),) = runs.computed
    assert (folder, seed, kl_coef) == (tmp_path / "one", 3, 0.07)
    assert list(passed.overrides) == asked["overrides"]
    kept = json.loads(Path("one/run.json").read_text())
    of_this_attempt = ("attempt", "state", "started", "ended", "seconds", "error", "ledger_from")
    assert kept.keys() == asked.keys()
    assert [name for name in kept if kept[name] != asked[name] and name not in of_this_attempt] == []
    assert (kept["attempt"], kept["state"]) == (2, "finished")
    assert runs.said == [f"id-of-one in one was {state}: carrying on"]


def test_a_killed_run_found_by_its_id(runs: Runs):
    runs.begin("seed=4", "hydra.run.dir=outputs/four")
    gone = {**this_process()._asdict(), "started": 1}
    change(Path("outputs/four/run.json"), state="running", process=gone)
    runs.resume("id-of")
    assert [computed[1] for computed in runs.computed] == [4]
    assert "was killed" in runs.said[0]


def test_a_finished_run_computes_nothing_and_gives_its_results(runs: Runs):
    runs.begin("hydra.run.dir=done", state=State.FINISHED)
    write_json(Path("done/results.json"), {"run_id": "id-of-done", "evaluation": {"win_rate": 0.5}})
    (result,) = runs.resume("done")
    assert result["evaluation"] == {"win_rate": 0.5}
    assert runs.computed == []
    assert runs.said == ["id-of-done in done is finished: nothing to do"]


def test_a_running_run_is_refused(runs: Runs):
    runs.begin("hydra.run.dir=busy")
    change(Path("busy/run.json"), state="running")  # of this process, which lives
    with pytest.raises(UsageError, match=r"is being written by process .* stop it first"):
        runs.resume("busy")


def test_points_of_a_sweep_carry_on_in_their_own_folders(runs: Runs, tmp_path: Path):
    runs.begin("-m", "seed=0,1,2", "hydra.sweep.dir=many")
    change(Path("many/1/run.json"), state="finished")
    runs.resume("many")
    assert [(folder, seed) for folder, seed, _, _ in runs.computed] == [
        (tmp_path / "many/0", 0),
        (tmp_path / "many/2", 2),
    ]
    assert {asked.sweep for *_, asked in runs.computed} == {"many"}
    assert json.loads(Path("many/2/run.json").read_text())["sweep"] == "many"


def test_a_sweep_that_the_yaml_files_ask_for(runs: Runs, own_files: Path, tmp_path: Path):
    swept = "hydra: {mode: MULTIRUN, sweeper: {params: {seed: '7,8'}}, sweep: {dir: many}}\n"
    (own_files / "experiment" / "own.yaml").write_text(EXPERIMENT + swept)
    runs.begin("--config-dir", "mine", "experiment=own")
    runs.resume("many/1")
    assert [(folder, seed) for folder, seed, *_ in runs.computed] == [(tmp_path / "many/1", 8)]


def test_one_failing_run_leaves_the_others_to_run(runs: Runs, tmp_path: Path):
    runs.begin("-m", "seed=0,1", "hydra.sweep.dir=many")
    runs.fails = {tmp_path / "many/0": DataError("broken row")}
    with pytest.raises(DataError, match="broken row"):
        runs.resume("many")
    assert [seed for _, seed, *_ in runs.computed] == [1]


@pytest.mark.parametrize("error", [Interrupted("interrupted by SIGTERM"), StorageError("disk full")])
def test_after_an_interruption_or_a_full_disk_no_other_run_starts(runs: Runs, tmp_path: Path, error: Exception):
    runs.begin("-m", "seed=0,1", "hydra.sweep.dir=many")
    runs.fails = {tmp_path / "many/0": error}
    with pytest.raises(type(error)):
        runs.resume("many")
    assert runs.computed == []


def test_nothing_computes_where_one_of_the_named_is_refused(runs: Runs):
    runs.begin("hydra.run.dir=good")
    runs.begin("hydra.run.dir=busy")
    change(Path("busy/run.json"), state="running")
    with pytest.raises(UsageError):
        runs.resume("good", "busy")
    assert runs.computed == []


def test_the_users_own_files_are_found_again_from_elsewhere(
    runs: Runs, own_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    runs.begin("--config-dir", "mine", "experiment=own", "hydra.run.dir=one")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert runs.resume("../one") == [{"experiment": "own", "cwd": str(tmp_path)}]
    assert [(seed, kl_coef) for _, seed, kl_coef, _ in runs.computed] == [(5, 0.2)]
    assert Path.cwd() == elsewhere


def test_a_root_configuration_of_the_users_own(runs: Runs, own_files: Path):
    (own_files / "mine.yaml").write_text("defaults:\n  - config\n  - _self_\nseed: 9\n")
    runs.begin("--config-dir", "mine", "--config-name", "mine", "hydra.run.dir=one")
    runs.resume("one")
    assert [seed for _, seed, *_ in runs.computed] == [9]


def test_changed_files_are_named_and_the_user_chooses(runs: Runs, own_files: Path):
    for name in ("one", "two"):
        runs.begin("--config-dir", "mine", "experiment=own", f"hydra.run.dir={name}")
    (own_files / "experiment" / "own.yaml").write_text(EXPERIMENT.replace("0.2", "0.9"))
    with pytest.raises(UsageError, match=r"ppo\.kl_coef: 0\.2 then, 0\.9 now") as refused:
        runs.resume("one")
    assert "seed" not in str(refused.value)
    runs.resume("one", accept=Accept(changes=True))
    runs.resume("two", accept=Accept(recorded=True))
    assert [kl_coef for _, _, kl_coef, _ in runs.computed] == [0.9, 0.2]


def test_files_that_are_gone_leave_the_recorded_configuration(runs: Runs, own_files: Path):
    runs.begin("--config-dir", "mine", "experiment=own", "hydra.run.dir=one")
    (own_files / "experiment" / "own.yaml").unlink()
    with pytest.raises(UsageError, match="add --recorded"):
        runs.resume("one")
    assert runs.resume("one", accept=Accept(recorded=True))[0]["experiment"] == "own"
    assert [(seed, kl_coef) for _, seed, kl_coef, _ in runs.computed] == [(5, 0.2)]


def test_a_word_of_the_user_may_change_what_it_names_and_nothing_else(runs: Runs, own_files: Path):
    runs.begin("--config-dir", "mine", "experiment=own", "seed=1", "hydra.run.dir=one")
    (own_files / "experiment" / "own.yaml").write_text(EXPERIMENT.replace("0.2", "0.9"))
    with pytest.raises(UsageError, match=r"ppo\.kl_coef") as refused:
        runs.resume("one", accept=Accept(words=("seed=2",)))
    assert "seed" not in str(refused.value)
    (own_files / "experiment" / "own.yaml").write_text(EXPERIMENT)
    runs.resume("one", accept=Accept(words=("seed=2", "resume.allow=[threads]")))
    assert [(seed, asked.overrides[-2:]) for _, seed, _, asked in runs.computed] == [
        (2, ("seed=2", "resume.allow=[threads]"))
    ]


def test_a_word_that_was_redacted_must_be_given_again(runs: Runs):
    url = "registry.url=postgresql://me@host/models"
    runs.begin(url, "hydra.run.dir=one")
    with pytest.raises(UsageError, match=r"--set registry\.url="):
        runs.resume("one")
    with pytest.raises(UsageError, match=r"registry\.url cannot be taken"):
        runs.resume("one", accept=Accept(recorded=True))
    runs.resume("one", accept=Accept(words=(url,)))
    assert len(runs.computed) == 1


def test_a_trial_of_a_search_is_left_to_the_search(runs: Runs):
    runs.begin("hydra.run.dir=trial")
    found = json.loads(Path("trial/run.json").read_text())["config"]
    change(Path("trial/run.json"), config={**found, "search": {**found["search"], "trial": 0}})
    with pytest.raises(UsageError, match="run the search's command again"):
        runs.resume("trial")


def test_a_run_from_python_carries_on_as_recorded(runs: Runs, tmp_path: Path):
    config = ExperimentConfig(seed=6)
    runs._write(tmp_path / "python", config, "default", Asked(), State.FAILED)
    with pytest.raises(UsageError, match=r"started from Python.*--recorded"):
        runs.resume("python")
    runs.resume("python", accept=Accept(recorded=True))
    assert [seed for _, seed, *_ in runs.computed] == [6]


def test_other_numbers_of_processes_are_refused_with_the_command(runs: Runs):
    runs.begin("hydra.run.dir=one")
    with pytest.raises(UsageError, match="`rlhf resume one`"):
        runs.resume("one", processes=2)
    change(Path("one/run.json"), processes=2)
    with pytest.raises(UsageError, match="`torchrun --nproc-per-node 2 -m rlhf resume one`"):
        runs.resume("one")


def test_a_launch_folder_that_is_gone(runs: Runs):
    runs.begin("hydra.run.dir=one")
    change(Path("one/run.json"), cwd="/no/such/folder")
    with pytest.raises(UsageError, match="started in /no/such/folder"):
        runs.resume("one")
    runs.resume("one", accept=Accept(changes=True))
    assert len(runs.computed) == 1


def test_a_file_of_an_older_program(runs: Runs):
    runs.begin("seed=2", "hydra.run.dir=old")
    fields = json.loads(Path("old/run.json").read_text())
    for new in ("cwd", "config_dir", "config_name"):
        del fields[new]
    Path("old/run.json").write_text(json.dumps(fields))
    runs.resume("old")
    assert [seed for _, seed, *_ in runs.computed] == [2]


def test_a_folder_with_signs_that_hydra_reads(runs: Runs, tmp_path: Path):
    name = "it's, a=strange [one]"
    runs._write(tmp_path / name, ExperimentConfig(), "default", Asked(choices={"model": "tiny"}), State.FAILED)
    runs.resume(name)
    assert [folder for folder, *_ in runs.computed] == [tmp_path / name]


def test_a_damaged_record_is_an_error_in_the_end(runs: Runs):
    runs.begin("-m", "seed=0,1", "hydra.sweep.dir=many")
    Path("many/0/run.json").write_text("{")
    with pytest.raises(DataError, match="1 runs cannot be read"):
        runs.resume("many")
    assert [seed for _, seed, *_ in runs.computed] == [1]
    assert "many/0/run.json" in runs.said[0]
