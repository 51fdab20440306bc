"""Reward training that is killed or interrupted ends, after the same command, with the bits of one that was not."""

import json
import signal
from pathlib import Path

import pytest
import small_training as small
from kills import Job, Moment, Undisturbed, attempt, differences, kill_many, undisturbed

ADAPTERS = "adapters, stops early"


@pytest.fixture(scope="module")
def references(base_folder: Path, limits, runtime, tmp_path_factory) -> dict[str, Undisturbed]:
    base = small.with_dropout(base_folder, tmp_path_factory.mktemp("base") / "base")
    trains = {
        "whole": small.reward(base, limits, runtime),
        ADAPTERS: small.reward(base, limits, runtime, small.REWARD_ADAPTERS, small.TURNED),
    }
    return {name: undisturbed(train, tmp_path_factory.mktemp("undisturbed")) for name, train in trains.items()}


def test_the_undisturbed_runs_use_every_part_of_the_state(references):
    whole, adapters = (references[name].job for name in ("whole", ADAPTERS))
    assert json.loads((whole.folder / "result.json").read_text())["steps"] == small.REWARD_STEPS
    assert whole.steps_saved() == [10, 12]
    steps = json.loads((adapters.folder / "result.json").read_text())["steps"]
    assert steps < small.REWARD_STEPS, "stops early"
    best = adapters.checkpoints / f"step-{steps:08d}" / "best.safetensors"
    assert best.stat().st_size < 50_000, "adapters and head, not the frozen weights"


@pytest.mark.parametrize("variant", ["whole", ADAPTERS])
@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_kills_at_random_moments_change_no_bit(references, tmp_path, variant: str, kills: int):
    found = kill_many(references[variant], tmp_path, kills=kills, seed=kills)
    assert found.different == []


@pytest.mark.parametrize(
    ("variant", "moment"),
    [("whole", Moment("stepping", 7)), (ADAPTERS, Moment("stepping", 4)), ("whole", Moment("finishing", 1))],
    ids=["within the second epoch", "adapters", "after the last step"],
)
def test_a_kill_at_a_chosen_moment_changes_no_bit(references, tmp_path, variant: str, moment: Moment):
    reference = references[variant].job
    job = Job(reference.train, tmp_path)
    assert attempt(job, moment=moment) == -signal.SIGKILL
    assert attempt(job) == 0
    assert differences(job, reference) == []


def test_a_signal_ends_the_run_after_its_step_and_nothing_is_repeated(references, tmp_path):
    reference = references["whole"].job
    job = Job(reference.train, tmp_path)
    assert attempt(job, moment=Moment("stepping", 7, signal.SIGUSR1)) == 75
    assert job.steps_saved() == [6, 7]
    assert job.lines("error") == ["interrupted by SIGUSR1; the same command carries on after step 7"]
    assert attempt(job) == 0
    assert differences(job, reference) == []
    assert [int(line.split()[0]) for line in job.lines("ends")] == list(range(1, 13))
