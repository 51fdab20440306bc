"""Several processes at once, and kills. Children are forked, since importing anew for each would take minutes.

The registry lies in memory: a kill loses nothing that was written, synced or not.
"""

import itertools
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from registries import Open, add, assert_whole, leftovers, start, wait_for, wait_until

from rlhf.registry import Registry
from sft.core import durable


def create_and_flip(opened: Open, writer: int, count: int, done: Path | None = None) -> None:
    """Register and move an alias, `count` times; what was acknowledged is written down."""
    registry = opened()
    for i in range(count):
        made = add(registry, "shared", f"f-{writer}-{i}")
        registry.set_alias(made, "champion")
        if done is not None:
            durable.append_line(done, f"{made.fingerprint} {made.ref}")


def assert_one_champion(registry: Registry) -> None:
    champions = [artifact for artifact in registry.artifacts() if "champion" in artifact.aliases]
    assert champions == [registry.get("shared@champion")]


def test_several_writers_at_once_give_dense_versions_and_one_champion(open_registry):
    """The registry does not exist at first, so the writers also race to make it."""
    processes = [start(create_and_flip, open_registry, writer, 12) for writer in range(4)]
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 4
    registry = open_registry()
    assert len(registry.artifacts()) == 48
    assert_whole(registry)
    assert_one_champion(registry)
    assert leftovers(registry) == []


def killed_at_random(opened: Open, done: Path, *, writers: int, kills: int, seed: int) -> int:
    """Keep so many writers at work, and kill one after each few writes; return how many were acknowledged."""
    chance = random.Random(seed)
    opened()
    number = itertools.count()
    working = [start(create_and_flip, opened, next(number), 10**6, done) for _ in range(writers)]
    wait_for(done)
    for kill in range(kills):
        wait_until(lambda kill=kill: acknowledged(done) > kill)
        time.sleep(chance.uniform(0, 0.1))
        victim = working.pop(chance.randrange(writers))
        os.kill(victim.pid, signal.SIGKILL)
        victim.join(60)
        assert victim.exitcode == -signal.SIGKILL
        working.append(start(create_and_flip, opened, next(number), 10**6, done))
    for process in working:
        os.kill(process.pid, signal.SIGKILL)
        process.join(60)
    return acknowledged(done)


def acknowledged(done: Path) -> int:
    return len(done.read_text().splitlines())


def assert_nothing_lost(registry: Registry, done: Path) -> None:
    listed = {f"{artifact.fingerprint} {artifact.ref}" for artifact in registry.artifacts()}
    assert set(done.read_text().splitlines()) <= listed
    assert_whole(registry)
    assert_one_champion(registry)


def test_kills_at_random_moments_lose_nothing_that_was_done(open_registry, memory_path):
    done = memory_path / "done"
    killed_at_random(open_registry, done, writers=3, kills=12, seed=0)
    registry = open_registry()
    assert_nothing_lost(registry, done)
    registry.sweep(remove=True)
    assert leftovers(registry) == []
    assert_nothing_lost_but_what_nothing_refers_to(registry, done)


def assert_nothing_lost_but_what_nothing_refers_to(registry: Registry, done: Path) -> None:
    listed = {f"{artifact.fingerprint} {artifact.ref}" for artifact in registry.artifacts(removed=True)}
    assert set(done.read_text().splitlines()) <= listed
    assert_whole(registry)


@pytest.mark.slow
def test_eight_writers_with_a_hundred_creates_each(open_registry):
    processes = [start(create_and_flip, open_registry, writer, 100) for writer in range(8)]
    for process in processes:
        process.join(900)
    assert [process.exitcode for process in processes] == [0] * 8
    registry = open_registry()
    assert len(registry.artifacts()) == 800
    assert_whole(registry)
    assert_one_champion(registry)


@pytest.mark.slow
def test_a_hundred_kills_of_eight_writers(open_registry, memory_path):
    done = memory_path / "done"
    assert killed_at_random(open_registry, done, writers=8, kills=100, seed=1) >= 100
    assert_nothing_lost(open_registry(), done)


class CrashPoint:
    """Kills this process at the n-th call that changes the disk or the database."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self) -> None:
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1


def register_with_crash(opened: Open, at: int) -> None:
    """Register "victim"; die before the `at`-th of: fsync, rename, mkdir, removal, SQL statement or commit."""
    from sqlalchemy import Engine, event

    crash = CrashPoint(at)
    registry = opened()
    for owner, name in [(os, "fsync"), (os, "rename"), (os, "replace"), (os, "mkdir"), (os, "rmdir"), (os, "unlink")]:
        original = getattr(owner, name)

        def before(*args, original=original, **kwargs):
            crash()
            return original(*args, **kwargs)

        setattr(owner, name, before)
    for moment in ("before_cursor_execute", "commit"):
        event.listen(Engine, moment, lambda *_: crash())
    add(registry, "sft", "victim")


def test_a_kill_before_any_single_change_leaves_an_artifact_whole_or_unlisted(memory_path):
    """Every crash point in turn, until one lies behind the end; after each the same command carries on."""
    listed_after_kill = []
    add(Registry(memory_path / "first"), "sft", "first")
    for at in range(200):
        root = memory_path / str(at)
        shutil.copytree(memory_path / "first", root)
        child = start(register_with_crash, lambda root=root: Registry(root), at)
        child.join(30)
        registry = Registry(root, create=False, announce=lambda _: None)
        assert_whole(registry)
        listed_after_kill.append(registry.find("victim") is not None)
        assert add(registry, "sft", "victim").ref == "sft:2"
        assert_whole(registry)
        assert [name for name in leftovers(registry) if not name.startswith(".trash-")] == []
        registry.sweep(remove=True)
        assert leftovers(registry) == []
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
    assert child.exitcode == 0, "the crash points never ended"
    assert at > 30, f"only {at} crash points: the hooks missed some"
    changes = sum(a != b for a, b in itertools.pairwise(listed_after_kill))
    assert changes == 1, "once a crash is late enough for the commit, so are all later ones"


def promote_until_killed(opened: Open, done: Path) -> None:
    registry = opened()
    versions = registry.artifacts("sft")
    for i in itertools.count():
        promoted = registry.promote(versions[i % 3], "champion", asked_by="test", reason=f"turn {i}")
        durable.append_line(done, f"turn {i} {promoted.ref}")


def test_a_killed_promotion_is_recorded_with_its_alias_or_not_at_all(open_registry, memory_path):
    registry = open_registry()
    for number in range(3):
        add(registry, "sft", f"f{number}")
    chance = random.Random(0)
    for round_ in range(8):
        done = memory_path / f"done-{round_}"
        child = start(promote_until_killed, open_registry, done)
        wait_until(done.exists)
        time.sleep(chance.uniform(0, 0.05))
        os.kill(child.pid, signal.SIGKILL)
        child.join(30)
        promotions = [f"{promotion.reason} {promotion.ref}" for promotion in registry.promotions()]
        assert set(done.read_text().splitlines()) <= set(promotions)
        assert registry.get("sft@champion").ref == registry.promotions()[-1].ref
