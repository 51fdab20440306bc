"""Checkpoints against bit flips, kills, full disks and power loss; optimisers against an uninterrupted run."""

import json
import logging
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from sft.core import checkpoint as checkpoint_module
from sft.core import durable
from sft.core.checkpoint import (
    Checkpoint,
    CheckpointStore,
    environment,
    optimizer_tensors,
    restore_optimizer,
)
from sft.core.errors import ConfigError, DataError, StorageError, UsageError

FORK = multiprocessing.get_context("fork")
FILES = ("MANIFEST.json", "critic.safetensors", "policy.safetensors", "state.json")


def open_store(root: Path, *, fingerprint: str = "run", keep: int = 2) -> CheckpointStore:
    return CheckpointStore(root, fingerprint=fingerprint, keep=keep)


def content(step: int, size: int = 8) -> dict[str, dict[str, torch.Tensor]]:
    return {"policy": {"weight": torch.full((size,), float(step))}, "critic": {"bias": torch.tensor(step)}}


def save(store: CheckpointStore, *steps: int) -> None:
    for step in steps:
        store.save(step, content(step), {"iteration": step})


def names(root: Path) -> list[str]:
    return sorted(os.listdir(root))


def assert_whole(store: CheckpointStore, checkpoint: Checkpoint) -> None:
    loaded = store.read(checkpoint)
    assert loaded.step == checkpoint.step == loaded.state["iteration"]
    assert loaded.tensors["policy"]["weight"].unique().tolist() == [checkpoint.step]
    assert loaded.tensors["critic"]["bias"].item() == checkpoint.step


def latest_step(store: CheckpointStore) -> int | None:
    found = store.latest()
    if found is not None:
        assert_whole(store, found)
    return None if found is None else found.step


# What is saved comes back


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


DTYPES = [
    torch.float64,
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_bit_of_a_tensor_comes_back(tmp_path: Path, dtype: torch.dtype):
    raw = torch.randint(0, 256, (48, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole = raw.bool() if dtype is torch.bool else raw.view(dtype)  # NaNs of all kinds among them
    square = whole[:, :1].reshape(6, 8)
    given = {
        "whole": whole,
        "same memory": whole,
        "transposed": square.t(),
        "overlapping": whole[1:],
        "strided": whole[::3],
        "scalar": whole[3, 0],
        "empty": whole[:0],
        "other": torch.zeros(0, dtype=dtype),
    }
    store = open_store(tmp_path)
    store.save(1, {"group": given, "nothing": {}}, {})
    loaded = store.read(Checkpoint(1, tmp_path / "step-00000001")).tensors
    assert loaded["nothing"] == {}
    assert loaded["group"].keys() == given.keys()
    for name, tensor in given.items():
        back = loaded["group"][name]
        assert (back.dtype, back.shape, bits(back)) == (tensor.dtype, tensor.shape, bits(tensor)), name


def test_gradients_are_left_behind_and_what_is_given_is_not_changed(tmp_path: Path):
    weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    store = open_store(tmp_path)
    store.save(1, {"policy": {"weight": weight, "tied": weight}}, {})
    loaded = store.read(Checkpoint(1, tmp_path / "step-00000001")).tensors["policy"]
    loaded["weight"].zero_()
    assert torch.equal(loaded["tied"], weight)
    assert not loaded["tied"].requires_grad
    assert loaded["tied"].data_ptr() % 64 == 0, "aligned like memory that was never saved"


def test_state_comes_back_exactly(tmp_path: Path):
    chance = random.Random(0)
    floats = [chance.uniform(-1, 1) * 10.0 ** chance.randint(-300, 300) for _ in range(200)]
    state: dict[str, object] = {
        "floats": [*floats, 0.1 + 0.2, 5e-324, -0.0],
        "python": list(chance.getstate()[1]),
        "large": 2**127 - 1,
        "nested": {"ü": [None, True, "x", {"a": []}]},
    }
    store = open_store(tmp_path)
    store.save(1, {}, state)
    back = store.read(Checkpoint(1, tmp_path / "step-00000001")).state
    assert back == state
    assert repr(back["floats"]) == repr(state["floats"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "cannot be stored as JSON"),
        (float("inf"), "cannot be stored as JSON"),
        (torch.zeros(1), "cannot be stored as JSON"),
        ((1, 2), "would come back changed from JSON: x"),
        ({1: 2}, "would come back changed from JSON: x"),
        ([{None: 1}], "would come back changed from JSON: x"),
    ],
)
def test_state_that_json_would_change_is_refused(tmp_path: Path, value: object, message: str):
    store = open_store(tmp_path)
    with pytest.raises(DataError, match=message):
        store.save(1, content(1), {"good": 1, "x": value})
    assert names(tmp_path) == []


# Which one is used


def test_an_empty_store_has_no_checkpoint(tmp_path: Path):
    store = open_store(tmp_path / "new" / "folder")
    assert store.latest() is None
    assert store.refused == []


def test_the_highest_step_is_the_latest_whatever_the_clock_said(tmp_path: Path):
    store = open_store(tmp_path, keep=9)
    save(store, 9, 10, 100_000_000, 99_999_999)
    for age, name in enumerate(reversed(names(tmp_path))):
        os.utime(tmp_path / name, (age * 1000, age * 1000))
    assert latest_step(store) == 100_000_000


def test_the_newest_are_kept_and_the_others_go(tmp_path: Path):
    store = open_store(tmp_path, keep=3)
    save(store, 1, 2, 3, 4, 5)
    assert names(tmp_path) == ["step-00000003", "step-00000004", "step-00000005"]


def test_a_damaged_one_does_not_count_as_kept(tmp_path: Path):
    save(open_store(tmp_path), 1, 2)
    (tmp_path / "step-00000002" / "state.json").write_text("{}")
    store = open_store(tmp_path)
    save(store, 3)
    assert names(tmp_path) == ["step-00000001", "step-00000002", "step-00000003"]
    save(store, 4)
    assert names(tmp_path) == ["step-00000003", "step-00000004"]


def test_older_ones_go_only_when_the_new_one_is_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = open_store(tmp_path, keep=1)
    save(store, 1)
    publish = checkpoint_module.publish

    def look(folder: Path, target: Path) -> None:
        assert latest_step(open_store_without_sweep(tmp_path)) == 1
        publish(folder, target)

    monkeypatch.setattr(checkpoint_module, "publish", look)
    save(store, 2)
    assert names(tmp_path) == ["step-00000002"]


def open_store_without_sweep(root: Path) -> CheckpointStore:
    """Return a store on a copy, as another process would see it."""
    copy = Path(f"{root}-copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(root, copy)
    return open_store(copy)


def test_a_step_saved_again_is_replaced_and_a_later_one_stays(tmp_path: Path):
    store = open_store(tmp_path, keep=1)
    save(store, 5, 3)
    store.save(3, content(3), {"iteration": 3, "second": True})
    assert store.read(Checkpoint(3, tmp_path / "step-00000003")).state == {"iteration": 3, "second": True}
    assert names(tmp_path) == ["step-00000003", "step-00000005"]


def test_leftovers_of_killed_saves_are_removed_on_opening_and_other_files_ignored(tmp_path: Path):
    save(open_store(tmp_path), 1)
    (tmp_path / ".tmp-step-00000002").mkdir()
    (tmp_path / ".tmp-step-00000002" / "policy.safetensors").write_bytes(b"half")
    (tmp_path / "step-9").mkdir()
    (tmp_path / "notes.txt").touch()
    store = open_store(tmp_path)
    assert latest_step(store) == 1
    assert store.refused == []
    assert names(tmp_path) == ["notes.txt", "step-00000001", "step-9"]


# Damage


@pytest.fixture
def two(tmp_path: Path) -> Path:
    save(open_store(tmp_path), 1, 2)
    assert names(tmp_path / "step-00000002") == list(FILES)
    return tmp_path


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_anywhere_is_found_told_and_the_checkpoint_before_is_used(two: Path, name: str):
    path = two / "step-00000002" / name
    count = 8 * path.stat().st_size
    intact = path.read_bytes()
    flips = random.Random(name).sample(range(count), min(count, 100))
    for bit in flips:
        flip(path, bit)
        store = open_store(two)
        found = store.latest()
        assert found is not None
        assert found.step == 1, f"bit {bit}"
        assert len(store.refused) == 1
        assert f"checkpoint step-00000002 is damaged and not used ({two}/step-00000002/" in store.refused[0]
        path.write_bytes(intact)
    assert latest_step(open_store(two)) == 2


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found(two: Path, name: str, caplog: pytest.LogCaptureFixture):
    (two / "step-00000002" / name).unlink()
    store = open_store(two)
    with caplog.at_level(logging.WARNING):
        assert latest_step(store) == 1
    problem = f"{two}/step-00000002/{name}: missing"
    assert store.refused == [
        f"checkpoint step-00000002 is damaged and not used ({problem}); an older one takes its place"
    ]
    assert caplog.messages == store.refused


def test_an_extra_file_and_another_name_are_found(two: Path):
    (two / "step-00000002" / "extra.safetensors").touch()
    shutil.copytree(two / "step-00000001", two / "step-00000003")
    store = open_store(two)
    assert latest_step(store) == 1
    assert [message.split("(")[1].split(")")[0] for message in store.refused] == [
        f"{two}/step-00000003: renamed, it holds step 1",
        f"{two}/step-00000002/extra.safetensors: not in the manifest",
    ]


def test_all_damaged_is_none_and_a_second_look_starts_anew(two: Path):
    for step in ("step-00000001", "step-00000002"):
        (two / step / "state.json").unlink()
    store = open_store(two)
    for _ in range(2):
        assert store.latest() is None
        assert len(store.refused) == 2


def test_read_does_not_trust_the_time_since_latest(two: Path):
    store = open_store(two)
    found = store.latest()
    assert found is not None
    flip(found.folder / "policy.safetensors", 800)
    with pytest.raises(StorageError, match=r"step-00000002 is damaged .*policy.safetensors: .*run the same command"):
        store.read(found)
    assert latest_step(store) == 1


def test_the_place_of_a_damaged_one_is_taken_by_a_new_one(two: Path):
    (two / "step-00000002" / "state.json").unlink()
    store = open_store(two)
    save(store, 2)
    assert latest_step(store) == 2
    assert store.refused == []


# Another run, another environment


def test_a_checkpoint_of_another_run_is_refused_and_never_removed(tmp_path: Path):
    save(open_store(tmp_path, fingerprint="a" * 64), 2, 3)
    store = open_store(tmp_path, fingerprint="b" * 64, keep=1)
    assert store.latest() is None
    assert [message.split(" and ")[0] for message in store.refused] == [
        f"checkpoint {tmp_path}/step-{step} is of another run (fingerprint aaaaaaaaaaaa, this run has bbbbbbbbbbbb)"
        for step in ("00000003", "00000002")
    ]
    assert "move it away, or restore the settings" in store.refused[0]
    save(store, 1)
    with pytest.raises(UsageError, match="step-00000002 is of another run"):
        save(store, 2)
    save(store, 4)
    assert names(tmp_path) == ["step-00000002", "step-00000003", "step-00000004"]
    assert latest_step(open_store(tmp_path, fingerprint="a" * 64)) == 3


@pytest.fixture
def more_threads() -> Iterator[int]:
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    yield threads
    torch.set_num_threads(threads)


def test_another_environment_is_a_configuration_error_with_a_remedy(
    two: Path, more_threads: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    with pytest.raises(ConfigError) as error:
        open_store(two).latest()
    assert error.value.exit_code == 2
    capability, threads = error.value.problems
    assert threads.rule == (
        f"lacks threads, in which checkpoint {two}/step-00000002 ({more_threads}) differs from this process "
        f"({more_threads + 1}), so that results would differ in their last bits"
    )
    assert capability.rule.startswith("lacks cpu_capability, in which ")
    assert threads.remedy == "restore it, or accept other bits with resume.allow=[cpu_capability,threads]"


def test_only_what_is_not_allowed_is_refused(two: Path, more_threads: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    with pytest.raises(ConfigError) as error:
        CheckpointStore(two, fingerprint="run", allow=["cpu_capability"]).latest()
    (problem,) = error.value.problems
    assert (problem.field, problem.value) == ("resume.allow", ["cpu_capability"])
    assert problem.rule.startswith("lacks threads, ")


def test_an_allowed_difference_is_accepted_and_told(two: Path, more_threads: int, caplog: pytest.LogCaptureFixture):
    found = CheckpointStore(two, fingerprint="run", allow=["threads"]).latest()
    assert found is not None
    assert found.step == 2
    assert caplog.messages == [f"{two}/step-00000002 was made elsewhere; bits will differ: threads"]


def test_an_environment_that_changes_between_checkpoints_is_judged_by_the_newest(two: Path, more_threads: int):
    store = CheckpointStore(two, fingerprint="run", allow=["threads"])
    save(store, 3)
    assert latest_step(open_store(two)) == 3


def test_the_environment_names_what_decides_bits():
    here = environment()
    assert here.keys() == {"torch", "threads", "cpu_capability", "device", "world_size"}
    assert here["torch"] == torch.__version__
    assert here["threads"] == torch.get_num_threads()
    assert here["world_size"] == 1
    assert here["device"]


# Kills, full disks, power loss


def start(target, *args: object) -> BaseProcess:
    process = FORK.Process(target=target, args=args)
    process.start()
    return process


def save_forever(root: Path, begun: Path, size: int) -> None:
    store = open_store(root)
    found = store.latest()
    step = 0 if found is None else found.step
    begun.touch()
    while True:
        step += 1
        store.save(step, content(step, size), {"iteration": step})
        durable.append_line(root.with_name("saved"), str(step))


@pytest.mark.parametrize("keep", [1, 2])
def test_after_a_kill_at_any_moment_of_saving_the_latest_is_whole_and_not_older_than_what_was_saved(
    tmp_path: Path, keep: int, monkeypatch: pytest.MonkeyPatch
):
    root, begun, saved = tmp_path / "store", tmp_path / "begun", tmp_path / "saved"
    chance = random.Random(keep)
    monkeypatch.setattr(f"{__name__}.open_store", lambda root: CheckpointStore(root, fingerprint="run", keep=keep))
    in_a_save = known = 0
    for kill in range(30):
        begun.unlink(missing_ok=True)
        child = start(save_forever, root, begun, 30_000)
        while not begun.exists():
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.03))
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join(30)
        assert child.exitcode == -signal.SIGKILL
        in_a_save += any(name.startswith(".tmp-") for name in names(root))
        known = max(known, int(saved.read_text().split()[-1]) if saved.exists() else 0)
        store = CheckpointStore(root, fingerprint="run")
        found = latest_step(store) or 0
        assert found in (known, known + 1), f"kill {kill}"
        known = found
        assert store.refused == []
        assert not any(name.startswith(".tmp-") for name in names(root))
    assert in_a_save >= 10, "too few kills hit a save"


def save_with_crash(root: Path, step: int, at: int) -> None:
    """Save a step; die before the `at`-th call that changes the disk."""
    left = at

    def crash() -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    store = open_store(root)
    for name in ("fsync", "rename", "replace", "mkdir", "rmdir", "unlink"):
        original = getattr(os, name)

        def before(*args, original=original, **kwargs):
            crash()
            return original(*args, **kwargs)

        setattr(os, name, before)
    save(store, step)


def test_a_kill_before_any_single_change_leaves_the_old_or_the_new_one(tmp_path: Path):
    steps = kill_before_every_change(tmp_path, 3)
    assert steps == sorted(steps)
    assert min(steps.count(2), steps.count(3)) > 5, "the hooks missed some"


def test_a_kill_while_a_step_is_saved_again_leaves_it_or_the_one_before(tmp_path: Path):
    assert set(kill_before_every_change(tmp_path, 2)) == {1, 2}


def kill_before_every_change(tmp_path: Path, step: int) -> list[int]:
    """Return the latest step after each kill while `step` was saved into a store that held 1 and 2."""
    steps = []
    for at in range(100):
        root = tmp_path / str(at)
        save(open_store(root), 1, 2)
        child = start(save_with_crash, root, step, at)
        child.join(30)
        store = open_store(root)
        steps.append(latest_step(store) or 0)
        assert store.refused == []
        save(store, step)
        assert names(root) == [f"step-0000000{step - 1}", f"step-0000000{step}"]
        if child.exitcode == 0:
            return steps
        assert child.exitcode == -signal.SIGKILL
    pytest.fail("the changes never ended")


def save_on_full_disk(root: Path, limit: int, size: int) -> None:
    store = open_store(root)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    remedy = "File too large.*; free space or fix permissions, then run the same command again"
    with pytest.raises(StorageError, match=remedy) as error:
        store.save(2, content(2, size), {"iteration": 2, "notes": "x" * 50_000})
    os._exit(error.value.exit_code)


@pytest.mark.parametrize(("limit", "size"), [(0, 8), (70_000, 20_000), (40_000, 8)], ids=["all", "tensors", "state"])
def test_a_disk_that_takes_no_more_is_told_and_the_last_one_stays(tmp_path: Path, limit: int, size: int):
    save(open_store(tmp_path), 1)
    child = start(save_on_full_disk, tmp_path, limit, size)
    child.join(30)
    assert child.exitcode == 74
    assert names(tmp_path) == ["step-00000001"]
    assert latest_step(open_store(tmp_path)) == 1


def test_a_full_disk_is_told_the_last_one_stays_and_space_mends_it(tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    try:
        store = open_store(disk)
        save(store, 1)
        (disk / "other").write_bytes(bytes(900_000))
        for size in (50_000, 20_000):  # the tensors do not fit; they do, and the state does not
            with pytest.raises(StorageError, match="No space left on device") as error:
                store.save(2, content(2, size), {"iteration": 2, "notes": "x" * 50_000})
            assert error.value.exit_code == 74
            assert names(disk) == ["other", "step-00000001"]
            assert latest_step(open_store(disk)) == 1
        (disk / "other").unlink()
        store.save(2, content(2, 50_000), {"iteration": 2})
        assert latest_step(open_store(disk)) == 2
    finally:
        subprocess.run(["umount", str(disk)], check=True)


class Disk:
    """Images of what a power loss may leave: every name is there, and what was not synced since it changed is empty.

    That names can be lost instead is what the test of the order of calls is for.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.synced: dict[int, bytes] = {}
        self.images: list[dict[Path, bytes]] = []

    def fsync(self, descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_file():
            self.synced[path.stat().st_ino] = path.read_bytes()
        self.snapshot()

    def snapshot(self) -> None:
        files = [path for path in self.root.rglob("*") if path.is_file()]
        self.images.append({path.relative_to(self.root): self._surviving(path) for path in files})

    def _surviving(self, path: Path) -> bytes:
        data = path.read_bytes()
        return data if self.synced.get(path.stat().st_ino) == data else b""

    @staticmethod
    def restore(image: dict[Path, bytes], root: Path) -> None:
        for name, data in image.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)


def test_a_power_loss_that_drops_unsynced_contents_leaves_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = tmp_path / "store"
    disk = Disk(root)
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (fsync(fd), disk.fsync(fd)))
    for name in ("rename", "replace", "rmdir", "unlink"):
        original = getattr(os, name)

        def after(*args, original=original, **kwargs):
            original(*args, **kwargs)
            disk.snapshot()

        monkeypatch.setattr(os, name, after)
    store = open_store(root)
    save(store, 1, 2)
    before = len(disk.images)
    save(store, 3)
    monkeypatch.undo()
    steps = []
    for number, image in enumerate(disk.images[before:]):
        disk.restore(image, tmp_path / str(number))
        reopened = open_store(tmp_path / str(number))
        steps.append(latest_step(reopened) or 0)
        assert reopened.refused == []
    assert steps == sorted(steps)
    assert min(steps.count(2), steps.count(3)) > 5, "the hooks missed some"


def test_the_folder_is_synced_after_the_rename_and_before_older_ones_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = open_store(tmp_path)
    save(store, 1, 2)
    calls: list[str] = []
    fsync, rename = os.fsync, os.rename

    def noted_fsync(descriptor: int) -> None:
        calls.append(f"sync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        fsync(descriptor)

    def noted_rename(source: Path, target: Path) -> None:
        calls.append(f"rename to {Path(target).name}")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "rename", noted_rename)
    save(store, 3)
    place = calls.index("rename to step-00000003")
    assert calls[place:] == [
        "rename to step-00000003",
        f"sync {tmp_path.name}",
        "rename to .tmp-removed-step-00000001",
    ]
    assert calls[place - 1] == "sync .tmp-step-00000003", "the manifest's name"
    for name in ("policy.safetensors", "critic.safetensors", "state.json"):
        assert f"sync {name}" in calls[:place]


# Optimisers


class Trained:
    """A small model, its optimiser, and data that depend on the step alone."""

    def __init__(self, **options: object) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3))
        self.unused = torch.nn.Parameter(torch.zeros(2))
        first, second = self.model[0], self.model[2]
        groups = [
            {"params": [*second.parameters(), self.unused], "lr": 3e-3, "initial_lr": 3e-3},
            {"params": list(first.parameters()), "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.85, 0.97), **options)
        self.names = ["2.weight", "2.bias", "unused", "0.weight", "0.bias"]

    def train(self, steps: range) -> None:
        for step in steps:
            x = torch.randn(11, 5, generator=torch.Generator().manual_seed(step))
            loss = self.model(x).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.param_groups[0]["lr"] = 3e-3 / (1 + step)
            self.optimizer.step()


@pytest.mark.parametrize(
    "options", [{"foreach": False}, {"foreach": True}, {"fused": True}, {"amsgrad": True}], ids=str
)
@pytest.mark.parametrize("cut", [0, 5])
def test_an_optimiser_from_a_checkpoint_goes_on_bit_by_bit(tmp_path: Path, options: dict[str, bool], cut: int):
    whole = Trained(**options)
    whole.train(range(10))

    first = Trained(**options)
    first.train(range(cut))
    tensors, state = optimizer_tensors(first.optimizer, first.names)
    assert (cut == 0) == (tensors == {})
    assert not any(name.endswith("unused") for name in tensors)
    store = open_store(tmp_path)
    store.save(cut, {"policy": first.model.state_dict(), "policy-optimizer": tensors}, {"optimizer": state})

    found = store.latest()
    assert found is not None
    loaded = store.read(found)
    second = Trained(**options)
    second.train(range(50, 52))  # what it held before must not matter
    second.model.load_state_dict(loaded.tensors["policy"])
    saved_state = loaded.state["optimizer"]
    assert isinstance(saved_state, dict)
    restore_optimizer(second.optimizer, second.names, loaded.tensors["policy-optimizer"], saved_state)
    assert second.optimizer.param_groups[0]["betas"] == (0.85, 0.97)
    given = {name: tensor.clone() for name, tensor in loaded.tensors["policy-optimizer"].items()}
    second.train(range(cut, 10))

    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name
    ours, theirs = (optimizer_tensors(trained.optimizer, trained.names) for trained in (whole, second))
    assert ours.tensors.keys() == theirs.tensors.keys()
    assert all(torch.equal(tensor, theirs.tensors[name]) for name, tensor in ours.tensors.items())
    assert ours.state == theirs.state
    assert all(torch.equal(t, given[n]) for n, t in loaded.tensors["policy-optimizer"].items()), (
        "changed what was given"
    )


def test_an_optimiser_is_stored_by_the_names_of_its_parameters():
    trained = Trained()
    trained.train(range(1))
    tensors, state = optimizer_tensors(trained.optimizer, trained.names)
    assert torch.equal(tensors["exp_avg.0.weight"], trained.optimizer.state[trained.model[0].weight]["exp_avg"])
    assert torch.equal(tensors["exp_avg_sq.2.bias"], trained.optimizer.state[trained.model[2].bias]["exp_avg_sq"])
    assert tensors["step.0.bias"].shape == ()
    groups = json.loads(json.dumps(state))["param_groups"]
    assert [group["params"] for group in groups] == [["2.weight", "2.bias", "unused"], ["0.weight", "0.bias"]]
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0]


@pytest.mark.parametrize(
    ("names_here", "message"),
    [
        (["2.weight", "2.bias", "new", "0.weight", "0.bias"], "only in this run: new; only in the checkpoint: unused;"),
        (["2.bias", "2.weight", "unused", "0.weight", "0.bias"], "the same parameters in another order"),
    ],
)
def test_an_optimiser_of_other_parameters_is_refused(names_here: list[str], message: str):
    trained = Trained()
    tensors, state = optimizer_tensors(trained.optimizer, trained.names)
    with pytest.raises(DataError, match=message):
        restore_optimizer(trained.optimizer, names_here, tensors, state)
