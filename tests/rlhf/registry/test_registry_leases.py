"""One process at a time makes a product: waiting, reuse, takeover, and a holder that wakes up too late."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest
from registries import Open, add, assert_whole, leftovers, start, wait_for, wait_until

from rlhf.registry import Registry, lease_rows, leases, workspace
from rlhf.registry.lease_rows import Lease, LeaseRows, Owner, this_process
from rlhf.registry.leases import Watch, given_up
from sft.core import durable
from sft.core.errors import Interrupted, UsageError
from sft.core.interruption import stop_at_signals

ELSEWHERE = Owner("other-machine", "another boot", 1, "17")


def train_once(opened: Open, log: Path, begun: Path | None = None, hold_s: float = 0.3) -> None:
    """Do as the pipeline does: take the workspace, look, and train only if there is nothing yet."""
    registry = opened(announce=lambda message: durable.append_line(log, f"says: {message}"))
    with registry.workspace("stage") as folder:
        if registry.find("stage") is not None:
            durable.append_line(log, "reuses")
            return
        durable.append_line(log, "trains")
        if begun is not None:
            begun.touch()
            time.sleep(hold_s)
        (folder / "weights").mkdir()
        (folder / "weights" / "model.safetensors").write_text("stage")
        registry.register(folder, name="sft", kind="sft", fingerprint="stage", metadata={}, parents=[])
        durable.append_line(log, "registers")


def test_a_second_process_waits_says_so_once_and_reuses(open_registry, memory_path):
    log, begun = memory_path / "log", memory_path / "begun"
    processes = [start(train_once, open_registry, log, begun)]
    wait_for(begun)
    processes += [start(train_once, open_registry, log), start(train_once, open_registry, log)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    lines = log.read_text().splitlines()
    assert lines[0] == "trains"
    said = (
        f"says: process {processes[0].pid} on {socket.gethostname()} is making stage: waiting for it, to use its result"
    )
    assert [line for line in lines if line.startswith("says: ")] == [said] * 2
    assert sorted(line for line in lines if line != said) == ["registers", "reuses", "reuses", "trains"]
    assert leftovers(open_registry()) == []


def test_the_workspace_of_a_killed_holder_is_taken_over_at_once(open_registry, memory_path):
    log, begun = memory_path / "log", memory_path / "begun"
    holder = start(train_once, open_registry, log, begun, 600)
    wait_for(begun)
    checkpoint = open_registry().root / ".work" / "stage" / "checkpoints" / "step-5"
    checkpoint.mkdir(parents=True)
    (checkpoint.parents[1] / "half").touch()
    os.kill(holder.pid, signal.SIGKILL)
    holder.join(30)
    registry = open_registry(announce=lambda message: durable.append_line(log, message))
    started = time.monotonic()
    with registry.workspace("stage") as folder:
        assert [path.name for path in folder.iterdir()] == ["checkpoints"]
        assert checkpoint.is_dir()
    assert time.monotonic() - started < leases.STALE_S
    owner = f"process {holder.pid} on {socket.gethostname()}"
    assert log.read_text().splitlines() == ["trains", f"{owner} has died: taking over stage"]


def test_a_corpse_that_nobody_has_buried_is_dead(tmp_path):
    registry = Registry(tmp_path)
    holder = start(train_once, lambda **given: Registry(tmp_path, **given), tmp_path / "log", tmp_path / "begun", 600)
    wait_for(tmp_path / "begun")
    with registry._database.read() as catalogue:
        (lease,) = catalogue.leases.all()
    assert lease.owner.is_alive()
    os.kill(holder.pid, signal.SIGKILL)
    wait_until(lease.owner.is_dead)  # before the parent asks for its exit code
    holder.join(30)
    assert lease.owner.is_dead()


@pytest.mark.parametrize(
    ("change", "dead", "alive"),
    [
        ({}, False, True),
        ({"started": "1"}, True, False),  # another process has its number now
        ({"pid": 2**22 + 1}, True, False),
        ({"boot": "another machine's"}, False, False),
        ({"boot": ""}, False, False),
        ({"host": "another name of this machine"}, False, True),
    ],
)
def test_who_is_known_to_be_dead_or_alive(change, dead, alive):
    owner = this_process()._replace(**change)
    assert (owner.is_dead(), owner.is_alive()) == (dead, alive)


def test_a_system_that_says_nothing_of_its_processes_knows_nobody_to_be_dead(monkeypatch):
    monkeypatch.setattr(lease_rows, "_boot", lambda: "")
    owner = this_process()
    assert not owner.is_dead()
    assert not owner._replace(pid=2**22 + 1).is_dead()


def test_a_holder_elsewhere_is_given_up_after_thirty_seconds_of_silence():
    watch, lease = Watch(), Lease(1, "f", ELSEWHERE, 5)
    assert [watch.gives_up(lease, now) for now in (100.0, 110.0, 120.0, 129.9)] == [False] * 4
    assert watch.gives_up(lease, 130.0)


def test_a_beat_or_another_token_or_a_gap_between_two_looks_starts_the_silence_anew():
    lease = Lease(1, "f", ELSEWHERE, 5)
    for second_look in (lease._replace(beat=6), lease._replace(token=2)):
        watch = Watch()
        looks = [(lease, 100.0), (lease, 109.0), (second_look, 118.0), (second_look, 127.0), (second_look, 131.0)]
        assert [watch.gives_up(*look) for look in looks] == [False] * 5
        assert [watch.gives_up(second_look, now) for now in (140.0, 147.9, 148.0)] == [False, False, True]
    watch = Watch()
    times = (100.0, 109.0, 128.0, 137.0, 146.0, 155.0)  # this process was held up for 19 s
    assert [watch.gives_up(lease, now) for now in times] == [False] * 6
    assert watch.gives_up(lease, 158.0)


def holder_elsewhere(registry: Registry, fingerprint: str) -> Lease:
    """List a lease as of another machine."""
    with registry._database.write() as catalogue:
        lease = catalogue.leases.take(fingerprint)
        values = {"host": ELSEWHERE.host, "boot": ELSEWHERE.boot}
        catalogue._connection.execute(lease_rows.LEASES.update().values(values))
        return lease


def test_a_silent_holder_elsewhere_is_taken_over_and_one_that_beats_is_not(open_registry, memory_path, monkeypatch):
    monkeypatch.setattr(leases, "STALE_S", 1.5)
    said: list[str] = []
    registry = open_registry(announce=said.append)
    lease = holder_elsewhere(registry, "stage")
    taken = threading.Event()

    def take() -> None:
        with registry.workspace("stage", stage="sft"):
            taken.set()

    waiter = threading.Thread(target=take)
    waiter.start()
    for _ in range(30):
        with registry._database.beat() as catalogue:
            assert catalogue.leases.beat(lease.token), "taken from a holder that beats"
        time.sleep(0.1)
    assert not taken.is_set()
    waiter.join(60)
    assert taken.is_set()
    with registry._database.beat() as catalogue:
        assert not catalogue.leases.beat(lease.token)
    other = f"process {os.getpid()} on other-machine"
    assert said == [
        f"sft: {other} is making stage: waiting for it, to use its result",
        f"sft: {other} has shown no sign of life for 2 s: taking over stage",
    ]


def test_clocks_that_jump_by_a_day_change_nothing(tmp_path, monkeypatch):
    """Time of day is nowhere asked: leases, versions and promotions are ordered by numbers that grow."""
    registry = Registry(tmp_path)
    lease = holder_elsewhere(registry, "stage")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 86_400)
    assert not Watch().gives_up(lease, time.monotonic())
    first = add(registry, "sft", "a")
    monkeypatch.setattr(time, "time", lambda: now - 86_400)
    add(registry, "sft", "b")
    registry.promote(first, "champion", asked_by="test", reason="first")
    assert registry.get("sft").ref == "sft:2"
    assert registry.get("sft@champion") == registry.get("sft:1")


def take_over(registry: Registry, fingerprint: str) -> None:
    """Do what another process does that gives the holder up."""
    with registry._database.write() as catalogue:
        catalogue.leases.take(fingerprint)


def test_a_holder_that_lost_its_lease_cannot_register_and_leaves_the_others_folder_alone(open_registry, monkeypatch):
    monkeypatch.setattr(leases, "BEAT_S", 600.0)  # its thread does not see it first
    registry = open_registry()

    def work() -> None:
        with registry.workspace("stage") as folder:
            (folder / "weights").mkdir()
            take_over(registry, "stage")
            registry.register(folder, name="sft", kind="sft", fingerprint="stage", metadata={}, parents=[])

    with pytest.raises(Interrupted, match=r"another process has taken over stage.*nothing of it was registered"):
        work()
    assert registry.artifacts() == []
    assert [path.name for path in (registry.root / ".work" / "stage").iterdir()] == ["weights"]
    with registry._database.read() as catalogue:
        assert len(catalogue.leases.all()) == 1


def test_the_token_is_checked_inside_the_transaction_that_registers(open_registry, monkeypatch):
    """The lease goes between the first look and the transaction: while the folder is sealed."""
    registry = open_registry()
    sealed = durable.seal

    def seal_slowly(folder: Path) -> str:
        take_over(registry, "stage")
        return sealed(folder)

    monkeypatch.setattr("rlhf.registry.store.seal", seal_slowly)
    with pytest.raises(Interrupted, match="has taken over"):
        add(registry, "sft", "stage")
    assert registry.artifacts() == []
    assert not (registry.root / "sft").exists()


def hold_until_interrupted(opened: Open, begun: Path, log: Path) -> None:
    try:
        with opened().workspace("stage"):
            begun.touch()
            for _ in range(6000):
                time.sleep(0.01)
    except Interrupted as stop:
        durable.append_line(log, str(stop))


@pytest.mark.parametrize("ctrl_c_is_ignored", [False, True])
def test_a_holder_is_stopped_as_soon_as_it_wakes_up(memory_path, monkeypatch, ctrl_c_is_ignored):
    """Stopped, given up, taken over, woken: its work ends at once, though it does nothing with the registry."""
    monkeypatch.setattr(leases, "BEAT_S", 0.1)
    registry = Registry(memory_path / "registry")
    begun, log = memory_path / "begun", memory_path / "log"
    before = [signal.signal(signal.SIGTERM, signal.default_int_handler)]
    before += [signal.signal(signal.SIGINT, signal.SIG_IGN)] if ctrl_c_is_ignored else []
    holder = start(hold_until_interrupted, lambda: Registry(registry.root), begun, log)
    signal.signal(signal.SIGTERM, before[0])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    wait_for(begun)
    os.kill(holder.pid, signal.SIGSTOP)
    take_over(registry, "stage")
    mine = registry.root / ".work" / "stage" / "of the new holder"
    mine.touch()
    os.kill(holder.pid, signal.SIGCONT)
    holder.join(30)
    assert holder.exitcode == 0
    assert "another process has taken over stage" in log.read_text()
    assert mine.exists()


def test_a_stopped_holder_is_given_up_and_what_it_makes_later_is_not_listed(open_registry, memory_path, monkeypatch):
    """Two whole processes: the one that is stopped in its training, and the one that waits, takes over, registers."""
    monkeypatch.setattr(leases, "STALE_S", 1.5)
    log, begun = memory_path / "log", memory_path / "begun"
    holder = start(train_once, open_registry, log, begun, 2.0)
    wait_for(begun)
    os.kill(holder.pid, signal.SIGSTOP)
    second = start(train_once, open_registry, log)
    second.join(60)
    assert second.exitcode == 0
    os.kill(holder.pid, signal.SIGCONT)
    holder.join(60)
    assert holder.exitcode not in (0, None)
    lines = log.read_text().splitlines()
    assert [line for line in lines if not line.startswith("says: ")] == ["trains", "trains", "registers"]
    registry = open_registry()
    assert [artifact.ref for artifact in registry.artifacts()] == ["sft:1"]
    assert_whole(registry)


def hold_briefly(opened: Open, inside: Path, count: int) -> None:
    registry = opened(announce=lambda _: None)
    for _ in range(count):
        with registry.workspace("stage"):
            descriptor = os.open(inside, os.O_CREAT | os.O_EXCL)  # fails if anybody else is inside
            os.close(descriptor)
            os.unlink(inside)


def test_a_workspace_is_never_given_to_two(open_registry, memory_path):
    open_registry()
    processes = [start(hold_briefly, open_registry, memory_path / "inside", 15) for _ in range(3)]
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]


def test_tokens_grow_though_leases_end(open_registry):
    registry = open_registry()
    tokens = []
    for _ in range(3):
        with registry.workspace("stage"), registry._database.read() as catalogue:
            tokens += [lease.token for lease in catalogue.leases.all()]
    assert tokens == sorted(set(tokens))
    assert len(tokens) == 3


def test_ctrl_c_ends_the_lease(open_registry):
    registry = open_registry()
    with pytest.raises(KeyboardInterrupt), registry.workspace("stage"):
        raise KeyboardInterrupt
    with registry._database.read() as catalogue:
        assert catalogue.leases.all() == []
    assert leftovers(registry) == []
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("lease-")] == []


def test_a_signal_while_a_lease_is_taken_leaves_none(open_registry):
    def child() -> None:
        take = LeaseRows.take

        def signalled(self: LeaseRows, fingerprint: str) -> Lease:
            os.kill(os.getpid(), signal.SIGTERM)
            return take(self, fingerprint)

        stop_at_signals()
        LeaseRows.take = signalled  # type: ignore[method-assign]
        try:
            with open_registry().workspace("stage"):
                os._exit(1)
        except KeyboardInterrupt:
            os._exit(75)

    registry = open_registry()
    process = start(child)
    process.join(60)
    assert process.exitcode == 75
    with registry._database.read() as catalogue:
        assert catalogue.leases.all() == []


def test_a_signal_before_any_line_leaves_no_lease_and_no_thread(tmp_path):
    """Before the first line of what holds a lease, the second, and so on, until none of them is left."""
    registry = Registry(tmp_path)
    exit_codes = []
    while exit_codes[-1:] != [0]:
        process = start(hold_with_a_signal, tmp_path, len(exit_codes))
        process.join(60)
        exit_codes.append(process.exitcode)
        with registry._database.read() as catalogue:
            assert catalogue.leases.all() == [], f"the signal came before line {len(exit_codes)}"
    assert {*exit_codes[:-1]} == {75}
    assert len(exit_codes) > 30


def hold_with_a_signal(root: Path, at: int) -> None:
    """Hold a lease, with SIGTERM before the `at`-th line that runs; leave with 75 if it raised and all is tidy."""
    left, traced = at, {leases.__file__, workspace.__file__}
    registry = Registry(root)

    def trace(frame: FrameType, event: str, argument: object) -> Callable[..., object] | None:
        nonlocal left
        if frame.f_code.co_filename not in traced:
            return None
        if event == "line":
            left -= 1
            if left == -1:
                os.kill(os.getpid(), signal.SIGTERM)
        return trace

    stop_at_signals()
    try:
        sys.settrace(trace)
        with registry.workspace("stage"):
            pass
    except KeyboardInterrupt:
        sys.settrace(None)
        tidy = all(not thread.name.startswith("lease-") for thread in threading.enumerate())
        os._exit(75 if tidy else 1)
    sys.settrace(None)
    os._exit(0 if left >= 0 else 2)


def test_a_folder_in_the_work_folder_that_is_not_held_cannot_be_registered(tmp_path):
    registry = Registry(tmp_path)
    folder = tmp_path / ".work" / "f"
    folder.mkdir()
    with pytest.raises(UsageError, match="nobody's workspace"):
        registry.register(folder, name="sft", kind="sft", fingerprint="f", metadata={}, parents=[])


def test_a_product_made_in_another_ones_workspace_is_under_its_lease(tmp_path):
    """As PPO registers the critic before the policy."""
    registry = Registry(tmp_path)
    given = {"kind": "x", "metadata": {}, "parents": []}
    with registry.workspace("policy") as folder:
        for part in ("critic", "model"):
            (folder / part).mkdir()
            (folder / part / "weights").touch()
        critic = registry.register(folder / "critic", name="critic", fingerprint="critic-of-policy", **given)
        policy = registry.register(folder / "model", name="policy", fingerprint="policy", **given)
    assert [critic.ref, policy.ref] == ["critic:1", "policy:1"]
    assert leftovers(registry) == []


def test_who_is_gone_is_told_from_who_is_at_work_here_or_elsewhere(open_registry, monkeypatch):
    monkeypatch.setattr(leases, "STALE_S", 1.5)
    registry = open_registry()
    silent = holder_elsewhere(registry, "silent")
    beating = holder_elsewhere(registry, "beating")
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.1):
            with registry._database.beat() as catalogue:
                catalogue.leases.beat(beating.token)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with registry.workspace("here"):
            gone = given_up(registry._database)
    finally:
        stop.set()
        thread.join()
    assert {lease.fingerprint for lease in gone} == {silent.fingerprint}


def test_a_run_at_work_is_seen_until_it_ends(open_registry):
    registry = open_registry()
    with registry.in_use(), registry._database.read() as catalogue:
        (lease,) = catalogue.leases.all()
        assert lease.fingerprint.startswith("run-")
        assert lease.owner == this_process()
    with registry._database.read() as catalogue:
        assert catalogue.leases.all() == []
