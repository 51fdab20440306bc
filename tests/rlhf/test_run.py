"""What a run does with a stage that cannot be built."""

import multiprocessing
import os
import signal
import sys
from pathlib import Path

import pytest

from rlhf.config import ExperimentConfig
from rlhf.registry import Registry
from rlhf.run import Built, Run
from rlhf.sources import Sources
from sft.core.durable import write_json
from sft.core.errors import Interrupted
from sft.core.interruption import stop_at_signals
from sft.core.out_of_memory import OutOfMemory
from sft.core.tracking import RunTracker, Tracker


@pytest.fixture
def run(tmp_path: Path) -> Run:
    config = ExperimentConfig()
    tracker = RunTracker(tmp_path, run_id="r", experiment="e", mode="disabled", project="p", config={})
    return Run(config, Registry(tmp_path / "registry"), tracker, Sources(config, tmp_path))


def too_large(folder: Path, tracker: Tracker) -> Built:
    raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")


def small(folder: Path, tracker: Tracker) -> Built:
    write_json(folder / "numbers.json", [1, 2])
    return Built(folder, {"metrics": {}}, 3)


@pytest.mark.parametrize(
    ("stage", "remedy"),
    [("ppo", "lower ppo.micro_batch_tokens and ppo.generation_batch_size"), ("evaluation", "give this process more")],
)
def test_a_stage_that_runs_out_of_memory_says_what_to_lower_and_with_more_it_is_made(run: Run, stage: str, remedy: str):
    with pytest.raises(OutOfMemory, match=remedy) as error:
        run.produce(stage, stage, "f" * 64, [], too_large)
    assert "the same command then carries on" in str(error.value)
    assert run.registry.artifacts() == []
    done = run.produce(stage, stage, "f" * 64, [], small)
    assert (done.artifact.ref, done.cached, done.steps) == (f"{stage}:1", False, 3)
    again = run.produce(stage, stage, "f" * 64, [], too_large)
    assert (again.artifact.ref, again.cached, again.steps) == (f"{stage}:1", True, 0)


def test_a_signal_that_a_stage_swallowed_ends_the_run_before_the_next(run: Run):
    """A child is sent SIGTERM within a stage that swallows what comes of it."""

    def swallows(folder: Path, tracker: Tracker) -> Built:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except BaseException:
            return small(folder, tracker)
        raise AssertionError

    def child() -> None:
        stop_at_signals()
        try:
            run.produce("labels", "labels", "1" * 64, [], swallows)
            run.produce("reward", "reward", "2" * 64, [], small)
        except Interrupted as error:
            sys.exit(error.exit_code)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == 75
    assert [artifact.ref for artifact in run.registry.artifacts()] == ["labels:1"]
