"""Several processes at once, and kills. Children are forked, since importing anew for each would take minutes."""

import itertools
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

from rlhf.registry import Registry
from rlhf.registry import database as _database  # noqa: F401  (loaded here, so that no child has to)
from sft.core import durable
from sft.core.durable import broken_files

FORK = multiprocessing.get_context("fork")


def start(target: Callable[..., None], *args: object) -> BaseProcess:
    process = FORK.Process(target=target, args=args)
    process.start()
    return process


def register(registry: Registry, name: str, fingerprint: str) -> str:
    with registry.workspace(fingerprint) as folder:
        found = registry.find(fingerprint)
        if found is None:
            for part in range(3):
                (folder / f"part-{part}").write_text(f"{fingerprint} {part}" * 200)
            given = {"name": name, "kind": "sft", "fingerprint": fingerprint, "metadata": {}, "parents": []}
            found = registry.register(folder, **given)
        return found.ref


def assert_whole(registry: Registry) -> None:
    """Every listed artifact has an intact folder, and versions have no gap."""
    artifacts = registry.artifacts()
    assert [problem for artifact in artifacts for problem in broken_files(artifact.path)] == []
    for name in {artifact.name for artifact in artifacts}:
        versions = [artifact.version for artifact in artifacts if artifact.name == name]
        assert versions == list(range(1, len(versions) + 1))
    for artifact in artifacts:
        assert (artifact.path / "part-0").read_text() == f"{artifact.fingerprint} 0" * 200
        assert artifact.sha256 == durable.file_digest(artifact.path / durable.MANIFEST)


def register_many(root: Path, writer: int, count: int) -> None:
    registry = Registry(root)
    for i in range(count):
        register(registry, "shared", f"f-{writer}-{i}")


def test_four_processes_with_25_registers_each_give_100_dense_versions(tmp_path):
    """The registry does not exist at first, so the four also race to make it."""
    processes = [start(register_many, tmp_path / "r", writer, 25) for writer in range(4)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    registry = Registry(tmp_path / "r", create=False)
    assert len(registry.artifacts()) == 100
    assert_whole(registry)


def flip_alias(root: Path, writer: int, count: int) -> None:
    registry = Registry(root)
    for i in range(count):
        registry.set_alias(registry.get(f"shared:{1 + (writer + i) % 4}"), "champion")


def test_an_alias_moved_by_several_processes_points_at_one_version(tmp_path):
    register_many(tmp_path, 0, 4)
    processes = [start(flip_alias, tmp_path, writer, 25) for writer in range(3)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    registry = Registry(tmp_path)
    champions = [artifact for artifact in registry.artifacts() if "champion" in artifact.aliases]
    assert champions == [registry.get("shared@champion")]


class CrashPoint:
    """Kills this process at the n-th call that changes the disk or the database."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self) -> None:
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1


def register_with_crash(root: Path, at: int) -> None:
    """Register "victim"; die before the `at`-th of: fsync, rename, mkdir, removal, SQL statement or commit."""
    from sqlalchemy import Engine, event

    crash = CrashPoint(at)
    registry = Registry(root)
    for owner, name in [(os, "fsync"), (os, "rename"), (os, "replace"), (os, "mkdir"), (os, "rmdir"), (os, "unlink")]:
        original = getattr(owner, name)

        def before(*args, original=original, **kwargs):
            crash()
            return original(*args, **kwargs)

        setattr(owner, name, before)
    for moment in ("before_cursor_execute", "commit"):
        event.listen(Engine, moment, lambda *_: crash())
    register(registry, "sft", "victim")


def test_a_kill_before_any_single_change_leaves_an_artifact_whole_or_unlisted(tmp_path):
    """Every crash point in turn, until one lies behind the end; after each the same command carries on."""
    listed_after_kill = []
    for at in range(200):
        root = tmp_path / str(at)
        register(Registry(root), "sft", "first")
        child = start(register_with_crash, root, at)
        child.join(30)
        registry = Registry(root, create=False)
        assert_whole(registry)
        listed_after_kill.append(registry.find("victim") is not None)
        assert register(Registry(root), "sft", "victim") == "sft:2"
        assert register(Registry(root), "sft", "third") == "sft:3"
        assert_whole(registry)
        assert list((root / ".work").iterdir()) == []
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
    assert child.exitcode == 0, "the crash points never ended"
    assert at > 20, f"only {at} crash points: the hooks missed some"
    changes = sum(a != b for a, b in itertools.pairwise(listed_after_kill))
    assert changes == 1, "once a crash is late enough for the commit, so are all later ones"


def register_until_killed(root: Path, done: Path, writer: int) -> None:
    registry = Registry(root)
    for i in itertools.count():
        fingerprint = f"f-{writer}-{i}"
        ref = register(registry, "sft", fingerprint)
        durable.append_line(done, f"{fingerprint} {ref}")


def test_kills_at_random_moments_with_two_writers_lose_nothing_that_was_done(tmp_path):
    chance = random.Random(0)
    root, done = tmp_path / "r", tmp_path / "done"
    for round_ in range(12):
        writers = [start(register_until_killed, root, done, 2 * round_ + i) for i in range(2)]
        wait_for(root / "sft" / str(2 * round_ + 1))
        for writer in writers:
            time.sleep(chance.uniform(0, 0.05))
            os.kill(writer.pid, signal.SIGKILL)
        for writer in writers:
            writer.join(30)
            assert writer.exitcode == -signal.SIGKILL
    registry = Registry(root)
    assert_whole(registry)
    listed = {f"{artifact.fingerprint} {artifact.ref}" for artifact in registry.artifacts()}
    assert set(done.read_text().splitlines()) <= listed


def train_once(root: Path, log: Path, begun: Path | None = None) -> None:
    """Do as the pipeline does: take the workspace, look, and train only if there is nothing yet."""
    registry = Registry(root, announce=lambda message: durable.append_line(log, f"waits: {message}"))
    with registry.workspace("stage") as folder:
        if registry.find("stage") is not None:
            durable.append_line(log, "reuses")
            return
        durable.append_line(log, "trains")
        if begun is not None:
            begun.touch()
            time.sleep(0.3)
        (folder / "part-0").write_text("stage 0" * 200)
        registry.register(folder, name="sft", kind="sft", fingerprint="stage", metadata={}, parents=[])


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.005)


def test_a_second_process_waits_says_so_once_and_reuses(tmp_path):
    root, log, begun = tmp_path / "r", tmp_path / "log", tmp_path / "begun"
    processes = [start(train_once, root, log, begun)]
    wait_for(begun)
    processes += [start(train_once, root, log), start(train_once, root, log)]
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    lines = log.read_text().splitlines()
    assert lines[0] == "trains"
    waits = [line for line in lines if line.startswith("waits: ")]
    assert waits == ["waits: another process is making stage: waiting for it, to use its result"] * 2
    assert sorted(set(lines) - set(waits)) == ["reuses", "trains"]
    assert lines.count("reuses") == 2
    assert list((root / ".work").iterdir()) == []


def test_a_killed_holder_hands_its_workspace_on(tmp_path):
    root, log, begun = tmp_path / "r", tmp_path / "log", tmp_path / "begun"
    holder = start(train_once, root, log, begun)
    wait_for(begun)
    next_one = start(train_once, root, log)
    os.kill(holder.pid, signal.SIGKILL)
    holder.join(30)
    next_one.join(30)
    assert next_one.exitcode == 0
    assert log.read_text().splitlines().count("trains") == 2
    assert_whole(Registry(root))


def hold_briefly(root: Path, inside: Path, count: int) -> None:
    registry = Registry(root, announce=lambda _: None)
    for _ in range(count):
        with registry.workspace("stage"):
            descriptor = os.open(inside, os.O_CREAT | os.O_EXCL)  # fails if anybody else is inside
            os.close(descriptor)
            os.unlink(inside)


def test_a_workspace_is_never_given_to_two_though_its_lock_file_comes_and_goes(tmp_path):
    Registry(tmp_path / "r")
    processes = [start(hold_briefly, tmp_path / "r", tmp_path / "inside", 150) for _ in range(4)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
