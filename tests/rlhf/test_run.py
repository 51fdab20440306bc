"""What a run does with a stage that cannot be built, or whose product is damaged."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhf.config import ExperimentConfig
from rlhf.registry import Registry
from rlhf.run import Built, Done, Run
from rlhf.sources import Sources
from sft.core.durable import write_json
from sft.core.errors import Interrupted, StorageError
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


def by_fingerprint(run: Run) -> Done:
    return run.produce("sft", "sft", "f" * 64, [], small)


def by_reference(run: Run) -> Done:
    return run.adopt("sft", "sft:1")


def by_folder(run: Run) -> Done:
    folder = run.registry.root.parent / "elsewhere"
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    write_json(folder / "numbers.json", [1, 2])
    return run.adopt("sft", str(folder))


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("take", [by_fingerprint, by_reference, by_folder])
@pytest.mark.parametrize(
    ("damaged", "break_it", "told"),
    [
        ("numbers.json", flip_a_bit, "changed since it was registered"),
        ("numbers.json", Path.unlink, "missing"),
        ("stage.json", Path.unlink, "missing"),
        ("MANIFEST.json", flip_a_bit, "not the one that was registered"),
    ],
)
def test_a_run_uses_nothing_damaged_and_the_command_that_it_names_frees_the_way(
    run: Run, take: Callable[[Run], Done], damaged: str, break_it: Callable[[Path], None], told: str
):
    first = by_folder(run) if take is by_folder else by_fingerprint(run)
    path = first.path / damaged
    break_it(path)
    run.checked.clear()  # another run
    with pytest.raises(StorageError, match=rf"sft:1 is damaged: {path}: {told}. .*models discard sft:1 ") as error:
        take(run)
    assert error.value.exit_code == 74
    assert run.registry.discard("sft:1", remove=True).removed
    if take is not by_reference:
        again = take(run)
        assert (again.artifact.ref, again.artifact.sha256) == ("sft:2", first.artifact.sha256)


def test_what_a_run_has_found_intact_is_not_read_again(run: Run):
    flip_a_bit(by_fingerprint(run).path / "numbers.json")
    run.checked.add("sft:1")
    assert by_fingerprint(run).cached
    assert by_reference(run).cached
