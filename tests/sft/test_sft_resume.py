"""SFT that is killed, interrupted or damaged ends, after the same command, with the bits of one that was not."""

import dataclasses
import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import small_training as small
import torch
from kills import Job, Moment, Train, Undisturbed, attempt, differences, kill_many, undisturbed

from sft.config import SFTConfig


@pytest.fixture(scope="module")
def base(base_folder: Path, tmp_path_factory) -> Path:
    return small.with_dropout(base_folder, tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(scope="module")
def make_train(base: Path, limits, runtime) -> Callable[..., Train]:
    def made(config: SFTConfig = small.SFT, **changes) -> Train:
        return small.sft(base, limits, changes.pop("runtime", runtime), config, **changes)

    return made


@pytest.fixture(scope="module")
def references(make_train, tmp_path_factory) -> dict[str, Undisturbed]:
    variants = {"whole": make_train(), "stops early": make_train(small.SFT_EARLY, validation=small.WRONG)}
    return {name: undisturbed(train, tmp_path_factory.mktemp("undisturbed")) for name, train in variants.items()}


def test_the_undisturbed_runs_use_every_part_of_the_state(references):
    whole, early = (references[name].job for name in ("whole", "stops early"))
    result = json.loads((whole.folder / "result.json").read_text())
    assert result["steps"] == small.SFT_STEPS
    assert whole.steps_saved() == [6, 8]
    stopped = json.loads((early.folder / "result.json").read_text())
    looks = [point["validation"] for point in stopped["loss"] if point["validation"] is not None][:-1]
    assert stopped["steps"] == 2 * len(looks) == 2 * (looks.index(min(looks)) + 3) < 60
    assert stopped["metrics"]["eval_loss"] == pytest.approx(min(looks), rel=1e-5)
    state = json.loads((early.checkpoints / f"step-{stopped['steps']:08d}" / "state.json").read_text())
    assert state["finished"]
    assert state["selection"] == {"loss": min(looks), "step": stopped["steps"] - 4, "looks_without": 2}
    assert state["scheduler"]["last_epoch"] == stopped["steps"]


# SIGKILL


@pytest.mark.parametrize("variant", ["whole", "stops early"])
@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_kills_at_random_moments_change_no_bit(references, tmp_path, variant: str, kills: int):
    found = kill_many(references[variant], tmp_path, kills=kills, seed=kills)
    assert found.different == []


@pytest.mark.parametrize(
    ("variant", "moment"),
    [
        ("whole", Moment("stepping", 2)),
        ("whole", Moment("stepping", 6)),
        ("whole", Moment("stepping", 7)),
        ("whole", Moment("syncing", 12)),
        ("stops early", Moment("finishing", 1)),
    ],
    ids=["before the first checkpoint", "within the second epoch", "after its end", "in a save", "after the last step"],
)
def test_a_kill_at_a_chosen_moment_changes_no_bit(references, tmp_path, variant: str, moment: Moment):
    reference = references[variant].job
    job = Job(reference.train, tmp_path)
    assert attempt(job, moment=moment) == -signal.SIGKILL
    assert attempt(job) == 0
    assert differences(job, reference) == []


def test_a_checkpoint_between_two_logs_has_its_loss_told_before(make_train, tmp_path):
    """So that no loss is half counted: logs are due after steps 2, 4, 6, 8, and step 5 is saved."""
    train = make_train(dataclasses.replace(small.SFT, eval_steps=10, save_steps=5))
    whole = undisturbed(train, tmp_path / "whole").job
    assert [int(line.split()[0]) for line in whole.lines("ends")] == [2, 4, 5, 6, 8]
    job = Job(train, tmp_path / "killed")
    assert attempt(job, moment=Moment("stepping", 7)) == -signal.SIGKILL
    assert attempt(job) == 0
    assert differences(job, whole) == []


def test_a_run_that_carries_on_says_so_and_begins_its_bar_there(make_train, tmp_path):
    job = Job(make_train(), tmp_path)
    assert attempt(job, moment=Moment("stepping", 6)) == -signal.SIGKILL
    assert attempt(job) == 0
    assert job.lines("start") == ["8 step", "8 step"]
    assert job.lines("note") == ["carries on after step 4 of 8"]
    assert job.lines("resumed") == ['4 {"resumed": 1.0}']
    assert [int(line.split()[0]) for line in job.lines("ends")] == [1, 2, 3, 4, 5, 5, 6, 7, 8]
    assert job.lines("ends")[4] == job.lines("ends")[5], "the repeated step tells the same numbers"


# Signals


@pytest.mark.parametrize(
    ("moment", "last"),
    [
        (Moment("stepping", 5, signal.SIGTERM), 5),
        (Moment("looking", 1, signal.SIGINT), 3),
        (Moment("syncing", 3, signal.SIGUSR2), 2),
    ],
    ids=["in a step that is not saved", "while it looks at the validation loss", "while it saves"],
)
def test_a_signal_ends_the_run_after_the_step_that_it_came_in(references, tmp_path, moment: Moment, last: int):
    job = Job(references["whole"].job.train, tmp_path)
    assert attempt(job, moment=moment) == 75
    assert job.steps_saved()[-1] == last
    (told,) = job.lines("error")
    assert told == f"interrupted by {moment.number.name}; the same command carries on after step {last}"
    assert list((job.folder / "model").iterdir()) == []
    assert attempt(job) == 0
    assert differences(job, references["whole"].job) == []
    assert [int(line.split()[0]) for line in job.lines("ends")] == [1, 2, 3, 4, 5, 6, 7, 8]


# Damaged checkpoints, another environment, another setting


@pytest.fixture(scope="module")
def stopped(references, tmp_path_factory) -> Job:
    """Return a run that was killed in step 8, with checkpoints of steps 4 and 6."""
    job = Job(references["whole"].job.train, tmp_path_factory.mktemp("stopped"))
    assert attempt(job, moment=Moment("stepping", 8)) == -signal.SIGKILL
    assert job.steps_saved() == [4, 6]
    return job


@pytest.fixture
def killed(stopped: Job, tmp_path: Path) -> Job:
    """Return a copy of that run."""
    shutil.copytree(stopped.folder, tmp_path / "killed")
    return stopped._replace(folder=tmp_path / "killed")


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "name", "told"),
    [
        (flip_a_bit, "model.safetensors", "changed since it was registered"),
        (Path.unlink, "optimizer.safetensors", "missing"),
        (Path.unlink, "random-of-epoch.safetensors", "missing"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(references, killed: Job, damage, name, told):
    damage(killed.checkpoints / "step-00000006" / name)
    assert attempt(killed) == 0
    (refused,) = killed.refused()
    assert re.search(rf"step-00000006 is damaged and not used \(.*{name}: {told}", refused)
    assert "carries on after step 4 of 8" in killed.lines("note")
    assert differences(killed, references["whole"].job) == []


def test_no_file_of_a_checkpoint_is_a_pickle(stopped: Job):
    found = {path.name for path in (stopped.checkpoints / "step-00000006").iterdir()}
    assert {path.suffix for path in map(Path, found)} == {".json", ".safetensors"}
    assert {"model.safetensors", "optimizer.safetensors", "random.safetensors", "state.json"} <= found


def test_another_number_of_threads_is_refused_with_both_values_unless_it_is_allowed(killed: Job):
    def pretend() -> None:
        torch.get_num_threads = lambda: 2  # with two, a forked child may crash

    assert attempt(killed, hook=pretend) == 2
    (told,) = killed.lines("error")
    assert "lacks threads, in which checkpoint" in told
    assert "step-00000006 (1) differs from this process (2)" in told
    assert "accept other bits with resume.allow=[threads]" in told
    assert killed.steps_saved() == [4, 6]
    assert attempt(killed._replace(allow=("threads",)), hook=pretend) == 0
    assert "carries on after step 6 of 8" in killed.lines("note")


def test_another_version_of_a_library_is_refused(killed: Job):
    def pretend() -> None:
        from sft.core import checkpoint

        checkpoint.version = lambda name: "0.1"

    assert attempt(killed, hook=pretend) == 2
    (told,) = killed.lines("error")
    assert "(0.1)" in told
    assert "resume.allow=[accelerate,transformers,trl]" in told


def test_checkpoints_may_come_more_often_in_the_next_attempt(references, make_train, killed: Job):
    often = killed._replace(train=make_train(dataclasses.replace(small.SFT, save_steps=1)))
    assert attempt(often, moment=Moment("moving", 2)) == -signal.SIGKILL
    assert often.steps_saved() == [4, 6, 7]
    assert attempt(often) == 0
    assert differences(often, references["whole"].job) == []
