"""What Hydra runs is what the door checked; errors come out as they are; standard output stays ours."""

import logging
from pathlib import Path

import pytest
from joblib.externals.loky import get_reusable_executor
from omegaconf import OmegaConf

from rlhf.config import ExperimentConfig
from rlhf.launch import launch
from rlhf.preflight import check
from sft.core.errors import DataError, Interrupted, StorageError, UsageError

OK = {"done": True}


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    get_reusable_executor().shutdown()  # joblib's processes would keep this folder as theirs


class Recorder:
    """A task that remembers its calls and raises what it is told to."""

    def __init__(self, errors: dict[int, Exception] | None = None) -> None:
        self.calls: list[tuple[ExperimentConfig, str, Path, list[str]]] = []
        self.errors = errors or {}

    def __call__(self, config: ExperimentConfig, name: str, folder: Path, overrides: list[str]) -> dict[str, object]:
        self.calls.append((config, name, folder, overrides))
        logging.getLogger("test").info("at work on seed %d", config.seed)
        if config.seed in self.errors:
            raise self.errors[config.seed]
        return {"seed": config.seed}


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["experiment=quickstart", "sft.from=sft:2", "~bias.groups.nonbinary", "simulation.planted_group=men"],
        ["-m", "experiment=quickstart", "ppo.kl_coef=0.02,0.05", "wandb=offline,disabled"],
        ["-m", "seed=range(1,4)", "ppo.lam=choice(0.9,0.95)", "ppo.gamma='${ppo.lam}'", "data.format=auto,hh"],
    ],
)
def test_runs_exactly_what_was_checked(words: list[str]):
    points = check(words)
    task = Recorder()
    results = launch(words, task)
    assert [call[0] for call in task.calls] == [point.config for point in points]
    assert [call[1] for call in task.calls] == [point.experiment for point in points]
    assert [call[3] for call in task.calls] == [point.overrides for point in points]
    assert len(results) == len(points)


def test_one_run_writes_to_its_folder_and_not_to_standard_output(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    task = Recorder()
    assert launch(["hydra.run.dir=here", "seed=3"], task) == [{"seed": 3}]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "at work on seed 3" in captured.err
    assert task.calls[0][2] == tmp_path / "here"
    assert "at work on seed 3" in (tmp_path / "here" / "rlhf.log").read_text()
    assert OmegaConf.load(tmp_path / "here" / ".hydra" / "config.yaml").seed == 3
    assert Path.cwd() == tmp_path


def test_a_sweep_has_one_folder_per_point(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    task = Recorder()
    assert launch(["-m", "hydra.sweep.dir=all", "seed=1,2"], task) == [{"seed": 1}, {"seed": 2}]
    assert [call[2] for call in task.calls] == [tmp_path / "all" / "0", tmp_path / "all" / "1"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("error", [DataError("bad rows"), Interrupted("stop"), StorageError("full"), KeyError("x")])
def test_an_error_comes_out_as_it_is(error: Exception, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(type(error)) as caught:
        launch([], Recorder({0: error}))
    assert caught.value is error
    assert "Error executing job" not in capsys.readouterr().err  # Hydra's own line


def test_a_failed_point_does_not_stop_the_others(capsys: pytest.CaptureFixture[str]):
    task = Recorder({1: DataError("bad rows"), 2: DataError("worse rows")})
    with pytest.raises(DataError, match="bad rows"):
        launch(["-m", "seed=0,1,2,3"], task)
    assert [call[0].seed for call in task.calls] == [0, 1, 2, 3]
    said = capsys.readouterr().err
    assert [said.count(words) for words in ("bad rows", "worse rows", "Error executing job")] == [1, 1, 0]


@pytest.mark.parametrize("error", [Interrupted("stop"), StorageError("full")])
def test_an_interruption_stops_the_sweep(error: Exception):
    task = Recorder({1: error})
    with pytest.raises(type(error)):
        launch(["-m", "seed=0,1,2"], task)
    assert [call[0].seed for call in task.calls] == [0, 1]


JOBLIB = ["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]


def test_points_in_several_processes_come_back_in_order():
    assert launch([*JOBLIB, "seed=5,1,3"], Recorder()) == [{"seed": 5}, {"seed": 1}, {"seed": 3}]


@pytest.mark.parametrize("error", [DataError("bad rows"), Interrupted("stop"), StorageError("full"), KeyError("x")])
def test_an_error_in_another_process_comes_out_as_it_is(error: Exception):
    with pytest.raises(type(error)) as caught:
        launch([*JOBLIB, "seed=0,1"], Recorder({1: error}))
    assert str(caught.value) == str(error)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--cfg", "job", "experiment=quickstart"], "kl_coef: 0.1"),
        (["--help"], "experiment: hh_harmless, hh_qwen, iterative, quickstart"),
        (["--info", "defaults"], "rlhf_schema"),
        (["--version"], "Hydra 1.3"),
    ],
)
def test_looking_prints_and_runs_nothing(words: list[str], shown: str, capsys: pytest.CaptureFixture[str]):
    task = Recorder()
    assert launch(words, task) == []
    assert shown in capsys.readouterr().out
    assert task.calls == []


def test_options_that_exclude_each_other():
    with pytest.raises(UsageError, match="Only one of"):
        launch(["--cfg", "job", "--multirun"], Recorder())


def test_options_may_stand_between_overrides():
    assert launch(["seed=1,2", "-m", "ppo.gamma=1"], Recorder()) == [{"seed": 1}, {"seed": 2}]
