"""Kills between labels and registry, and both commands at once. Children are forked: importing anew takes seconds."""

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from labels_and_registry import NAME, Place, place_in
from sqlalchemy import Engine, event

from rlhf.labelling import datasets
from rlhf.labelling.datasets import DATASET, ERASURE, register_export
from rlhf.labelling.erasure import erase_annotator
from rlhf.labels.exporting.export import ExportRequest
from rlhf.labels.exporting.export_rows import ExportFormat
from rlhf.labels.removal import erased_before
from rlhf.labels.store import LabelStore
from rlhf.registry import Artifact, Registry
from sft.core.durable import broken_files
from sft.core.errors import DataError

FORK = multiprocessing.get_context("fork")
REQUEST = ExportRequest("p", ExportFormat.CSV)


def start(target: Callable[..., None], *args: object) -> BaseProcess:
    process = FORK.Process(target=target, args=args)
    process.start()
    return process


def place_at(folder: Path) -> Place:
    return Place(folder, LabelStore(f"sqlite:///{folder / 'labels.sqlite'}"), Registry(folder / "registry"))


def die_before(number: int) -> Callable[..., None]:
    """Kill this process before its `number`-th commit, rename, replacement or removal, or call of what is returned."""
    left = number

    def count(*_: object) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    for owner, name in [(os, "rename"), (os, "replace"), (os, "rmdir"), (os, "unlink")]:
        original = getattr(owner, name)

        def before(*args, original=original, **kwargs):
            count()
            return original(*args, **kwargs)

        setattr(owner, name, before)
    event.listen(Engine, "commit", count)
    return count


def export(folder: Path) -> Artifact:
    place = place_at(folder)
    return register_export(place.store, place.registry, REQUEST, output=folder / "copy").dataset


def erase(folder: Path) -> list[str]:
    place = place_at(folder)
    return erase_annotator(place.store, place.registry, "p", NAME).affected.datasets


def killed(command: Callable[[Path], object], folder: Path, number: int) -> None:
    count = die_before(number)
    command(folder)
    count()


def exports(place: Place) -> list[Artifact]:
    return [artifact for artifact in place.registry.artifacts() if artifact.kind == DATASET]


def is_gone(place: Place) -> bool:
    with place.store.reading("p") as labels:
        return erased_before(labels.connection, labels.project, NAME) is not None


def is_marked(place: Place, dataset: Artifact) -> bool:
    lineage = place.registry.lineage(dataset.ref)
    return any(lineage.kinds[edge.child_ref] == ERASURE for edge in lineage.descendants)


def assert_whole(place: Place) -> None:
    """Every listed version is intact and known to the labels; of a person who is gone it has a mark."""
    assert [problem for artifact in place.registry.artifacts() for problem in broken_files(artifact.path)] == []
    with place.store.reading("p") as labels:
        for dataset in exports(place):
            assert labels.export(dataset.sha256).event_ids == [(1, 5)]
    if is_gone(place):
        assert all(is_marked(place, dataset) for dataset in exports(place))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return place_in(tmp_path_factory.mktemp("labels")).folder


@pytest.mark.parametrize(("command", "first", "least"), [(export, (), 10), (erase, (export,), 6)])
def test_a_kill_before_any_change_leaves_what_the_same_command_carries_on(template, tmp_path, command, first, least):
    done = []
    for number in range(100):
        folder = tmp_path / str(number)
        shutil.copytree(template, folder)
        for earlier in first:
            earlier(folder)
        child = start(killed, command, folder, number)
        child.join(30)
        place = place_at(folder)
        assert_whole(place)
        done.append(is_gone(place) if command is erase else len(exports(place)) == 1)
        result = command(folder)
        assert_whole(place)
        assert [dataset.ref for dataset in exports(place)] == ["labels-p:1"]
        assert is_gone(place) if command is erase else broken_files(folder / "copy") == []
        assert result == (["labels-p:1"] if command is erase else place.registry.get("labels-p"))
        assert len(place.registry.artifacts()) == (2 if command is erase else 1)
        assert list((folder / "registry/.work").iterdir()) == []
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
    assert child.exitcode == 0, "the crash points never ended"
    assert number > least, f"only {number} crash points: the hooks missed some"
    assert done == sorted(done)
    assert True in done[:-1], "no kill came after the work was done"


def erased_around(monkeypatch: pytest.MonkeyPatch, folder: Path, *, after: bool) -> None:
    """Let the person be erased right before or right after an export is remembered."""
    original = datasets.remember

    def remember(*args):
        if not after:
            erase(folder)
        original(*args)
        if after:
            erase(folder)

    monkeypatch.setattr(datasets, "remember", remember)


@pytest.mark.parametrize("after", [False, True])
def test_who_is_erased_while_an_export_is_made_is_in_no_version(template, tmp_path, monkeypatch, after):
    folder = shutil.copytree(template, tmp_path / "here")
    erased_around(monkeypatch, folder, after=after)
    with pytest.raises(DataError, match="1 of 5 labels of this export have been erased; run the same command again"):
        export(folder)
    assert exports(place_at(folder)) == []
    assert not (folder / "copy").exists()
    monkeypatch.undo()
    assert export(folder).metadata["event_ids"] == [[2, 5]]


def erase_once(now: Event, folder: Path) -> None:
    now.wait(30)
    erase(folder)


def test_an_erasure_waits_for_the_version_that_is_being_registered(template, tmp_path, monkeypatch):
    folder = shutil.copytree(template, tmp_path / "here")
    now = FORK.Event()
    erasure = start(erase_once, now, folder)  # forked here, while no database is open
    original = Registry.register

    def register(*args, **given):
        now.set()
        erasure.join(0.5)
        assert erasure.is_alive()
        return original(*args, **given)

    monkeypatch.setattr(Registry, "register", register)
    dataset = export(folder)
    erasure.join(30)
    assert erasure.exitcode == 0
    monkeypatch.undo()
    place = place_at(folder)
    assert is_gone(place)
    assert is_marked(place, dataset)
    assert erase(folder) == ["labels-p:1"]
