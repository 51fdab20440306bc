"""Numbers that are no numbers, memory that runs out, disks that are full: told, and the next attempt carries on."""

import itertools
import json
import os
import re
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import small_training as small
import torch
from kills import Hook, Job, Train, Undisturbed, attempt, before_call, differences, undisturbed
from safetensors.torch import load_file
from trl import RewardTrainer, SFTTrainer

Change = Callable[[torch.Tensor], torch.Tensor]


@pytest.fixture(scope="module")
def sft(base_folder: Path, limits, runtime) -> Train:
    return small.sft(base_folder, limits, runtime)


@pytest.fixture(scope="module")
def reference(sft: Train, tmp_path_factory) -> Undisturbed:
    return undisturbed(sft, tmp_path_factory.mktemp("undisturbed"))


def changed_loss(number: int, change: Change, trainer: type = SFTTrainer) -> Hook:
    """Return a hook that changes the loss of the n-th micro-batch of training."""

    def hook() -> None:
        compute_loss = trainer.compute_loss
        calls = itertools.count(1)

        def changed(self, model, inputs, *args, **kwargs):
            loss = compute_loss(self, model, inputs, *args, **kwargs)
            return change(loss) if model.training and next(calls) == number else loss

        trainer.compute_loss = changed

    return hook


def infinite_gradient(loss: torch.Tensor) -> torch.Tensor:
    """Return the same loss with a gradient that is not finite."""
    return loss + (torch.zeros((), requires_grad=True) * loss).sqrt()


def no_number_after(step: int) -> Hook:
    """Return a hook by which an optimiser's step ends in NaN."""

    def hook() -> None:
        def spoil() -> None:
            for group in optimizers[0].param_groups:
                group["lr"] = float("nan")

        optimizers: list[torch.optim.Optimizer] = []
        initialise = torch.optim.AdamW.__init__

        def noted(self, *args, **kwargs):
            initialise(self, *args, **kwargs)
            optimizers.append(self)

        torch.optim.AdamW.__init__ = noted
        before_call(torch.optim.AdamW, "step", step, spoil)

    return hook


# No numbers

FIFTH_STEP = 3 + 3 + 2 + 3 + 2
"""A micro-batch in the middle of step 5, where an epoch has 3 + 3 + 2."""


@pytest.mark.parametrize(
    ("hook", "told", "step", "saved"),
    [
        (changed_loss(FIFTH_STEP, lambda loss: loss * float("nan")), "training loss became nan", 5, [2, 4]),
        (changed_loss(FIFTH_STEP, lambda loss: loss + float("inf")), "training loss became inf", 5, [2, 4]),
        (changed_loss(FIFTH_STEP, infinite_gradient), "the gradient's norm became nan", 5, [2, 4]),
        (changed_loss(FIFTH_STEP, lambda loss: loss * 1e30), "the gradient's norm became inf", 5, [2, 4]),
        (no_number_after(6), r"the validation loss became nan", 6, [2, 4]),
        (no_number_after(4), r"weights became NaN or infinite \(.* and more\)", 4, [2]),
    ],
    ids=["loss nan", "loss inf", "gradient nan", "norm inf", "seen by validation", "seen in saving"],
)
def test_no_number_stops_the_run_at_once_and_is_never_saved(
    reference, sft, tmp_path, hook: Hook, told: str, step: int, saved: list[int]
):
    job = Job(sft, tmp_path)
    assert attempt(job, hook=hook) == 1
    (error,) = job.lines("error")
    assert f" at step {step}; lower the learning rate" in error
    assert re.search(told, error), error
    assert job.steps_saved() == saved
    for path in job.checkpoints.glob("step-*/*.safetensors"):
        assert all(tensor.float().isfinite().all() for tensor in load_file(path).values()), path
    if "validation" not in told:
        dump = json.loads((job.checkpoints / f"diverged-step-{step:08d}.json").read_text())
        assert str(job.checkpoints / f"diverged-step-{step:08d}.json") in error
        assert dump["step"] == step
        assert len(dump["losses"]) == 3
        assert len(dump["batch"]) == 9
        for row in dump["batch"]:
            (number,) = row["rows"]
            assert small.DEMONSTRATIONS[number].answer in row["text"]
    assert attempt(job) == 0
    assert differences(job, reference.job) == []


def test_the_batch_of_a_reward_model_is_told_by_its_comparisons(base_folder, limits, runtime, tmp_path):
    job = Job(small.reward(base_folder, limits, runtime), tmp_path)
    assert attempt(job, hook=changed_loss(2, lambda loss: loss * float("nan"), RewardTrainer)) == 1
    dump = json.loads((job.checkpoints / "diverged-step-00000002.json").read_text())
    assert dump["losses"] == ["nan"]
    assert len(dump["batch"]) == 2 * 6
    for place, row in enumerate(dump["batch"]):
        (number,) = row["rows"]
        comparison = small.COMPARISONS[number]
        assert (comparison.chosen if place < 6 else comparison.rejected) in row["text"]


# Memory


def out_of_gpu_memory(_: torch.Tensor) -> torch.Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore.")


def out_of_python_memory(_: torch.Tensor) -> torch.Tensor:
    raise MemoryError


def out_of_cpu_memory(_: torch.Tensor) -> torch.Tensor:
    return torch.empty(2**58)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (out_of_gpu_memory, "out of memory (CUDA out of memory. Tried to allocate 2.00 GiB.); halve "),
        (out_of_python_memory, "out of memory; halve "),
        (out_of_cpu_memory, "can't allocate memory"),
    ],
)
def test_memory_that_runs_out_is_told_with_a_remedy_and_the_run_carries_on(
    reference, sft, tmp_path, change: Change, told: str
):
    job = Job(sft, tmp_path)
    assert attempt(job, hook=changed_loss(FIFTH_STEP, change)) == 1
    (error,) = job.lines("error")
    assert told in error
    assert "halve per_device_train_batch_size=3 and double gradient_accumulation_steps=3" in error
    assert error.endswith("the same command then carries on after the last checkpoint")
    assert attempt(job) == 0
    assert differences(job, reference.job) == []
    assert "carries on after step 4 of 8" in job.lines("note")


def too_large(loss: torch.Tensor) -> torch.Tensor:
    return loss + 0 * torch.ones(2**27).sum()


def too_long(loss: torch.Tensor) -> torch.Tensor:
    return loss + 0 * len(bytearray(2**29))


@pytest.mark.parametrize("change", [too_large, too_long])
def test_where_the_system_refuses_memory_the_same_command_with_more_of_it_carries_on(
    reference, sft, tmp_path, change: Change
):
    """A step wants half a GiB, and may have a quarter (RLIMIT_AS); then it may have all."""

    def limited() -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, resource.RLIM_INFINITY))
        wants_more()

    wants_more = changed_loss(FIFTH_STEP, change)
    job = Job(sft, tmp_path)
    assert attempt(job, hook=limited) == 1
    (error,) = job.lines("error")
    assert error.startswith("out of memory")
    assert "give more memory" in error
    assert job.steps_saved() == [2, 4]
    assert attempt(job, hook=wants_more) == 0
    assert differences(job, reference.job) == []


# Disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a folder in which checkpoints lie on a disk of 3 MB."""
    disk = tmp_path / "checkpoints"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    yield tmp_path
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_told_the_last_checkpoint_stays_and_space_mends_it(reference, sft, small_disk: Path):
    job = Job(sft, small_disk)
    size = sum(path.stat().st_size for path in (reference.job.checkpoints / "step-00000006").iterdir())
    ballast = job.checkpoints / "ballast"
    ballast.write_bytes(bytes(3 * 2**20 - 2 * size - size // 2))
    assert attempt(job) == 74
    (error,) = job.lines("error")
    assert "No space left on device" in error
    assert "free space or fix permissions, then run the same command again" in error
    assert job.steps_saved() == [2, 4]
    before = job.digests()
    assert attempt(job) == 74, "and again as long as the disk is full"
    assert job.digests() == before
    assert not list(job.checkpoints.glob(".tmp-*"))
    ballast.unlink()
    assert attempt(job) == 0
    assert differences(job, reference.job) == []


def test_a_disk_that_takes_no_model_is_told_and_training_is_not_repeated(reference, sft, tmp_path):
    """The checkpoints are there, and the model in the end does not fit."""
    job = Job(sft, tmp_path)

    def full() -> None:
        from transformers import PreTrainedModel

        def save_pretrained(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        PreTrainedModel.save_pretrained = save_pretrained

    assert attempt(job, hook=full) == 74
    assert "No space left on device" in job.lines("error")[0]
    assert attempt(job) == 0
    assert [int(line.split()[0]) for line in job.lines("ends")] == list(range(1, 9))
    assert differences(job, reference.job) == []
