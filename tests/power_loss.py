"""Disks as a power loss may leave them at every moment of saving a checkpoint.

The model of the disk is the weakest that POSIX allows: until a file is synced its content may be missing, cut or whole;
until a folder is synced any of its listings since the last sync may be the one that survives, each folder for itself.
"""

import itertools
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from sft.core.checkpoint import CheckpointStore

MOST_COMBINATIONS = 16
"""Of surviving listings at one moment; more are sampled."""

Listing = dict[str, int]
"""Name -> inode."""


class Image(NamedTuple):
    """What may survive at one moment: for each folder its listings, for each file its contents."""

    root: int
    listings: dict[int, list[Listing]]
    contents: dict[int, list[bytes]]

    def combinations(self, chance: random.Random) -> Iterator["Disk"]:
        """Yield disks: every combination of listings, or a sample, each with three ways to lose contents."""
        folders = list(self.listings)
        number = 1
        for folder in folders:
            number *= len(self.listings[folder])
        every = itertools.product(*(range(len(self.listings[folder])) for folder in folders))
        ends = [tuple(0 for _ in folders), tuple(len(self.listings[folder]) - 1 for folder in folders)]
        sample = (tuple(chance.randrange(len(self.listings[f])) for f in folders) for _ in range(MOST_COMBINATIONS))
        for choice in every if number <= MOST_COMBINATIONS else itertools.chain(ends, sample):
            listings = {f: self.listings[f][index] for f, index in zip(folders, choice, strict=True)}
            for lost in ("most", "least", "some"):
                yield Disk(
                    self.root, listings, {inode: _survivor(c, lost, chance) for inode, c in self.contents.items()}
                )


def _survivor(contents: list[bytes], lost: str, chance: random.Random) -> bytes:
    if lost == "most":
        return contents[0]
    return contents[-1] if lost == "least" else chance.choice(contents)


class Disk(NamedTuple):
    """One outcome of a power loss."""

    root: int
    listings: dict[int, Listing]
    contents: dict[int, bytes]

    def write(self, folder: Path) -> None:
        self._write(self.root, folder)

    def _write(self, inode: int, path: Path) -> None:
        if inode in self.listings:
            path.mkdir(parents=True)
            for name, child in self.listings[inode].items():
                self._write(child, path / name)
        elif inode in self.contents:
            path.write_bytes(self.contents[inode])


class Watch:
    """Follows a folder on the real disk, and takes an image after every call that changes or syncs it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.listings: dict[int, list[Listing]] = {}
        self.contents: dict[int, list[bytes]] = {}
        self.images: list[Image] = []
        self._held: dict[int, int] = {}
        self.look()
        self.listings = {inode: versions[-1:] for inode, versions in self.listings.items()}
        self.contents = {inode: versions[-1:] for inode, versions in self.contents.items()}

    def _inode(self, path: Path) -> int:
        """Return a file's or folder's inode, and hold it open so that the number is not given to another one."""
        inode = path.stat().st_ino
        if inode not in self._held:
            self._held[inode] = os.open(path, os.O_RDONLY)
        return inode

    def close(self) -> None:
        for descriptor in self._held.values():
            os.close(descriptor)

    def look(self) -> None:
        """Take down what changed."""
        for folder in [self.root, *(path for path in self.root.rglob("*") if path.is_dir())]:
            listing = {path.name: self._inode(path) for path in folder.iterdir()}
            versions = self.listings.setdefault(folder.stat().st_ino, [{}])
            if versions[-1] != listing:
                versions.append(listing)
        for path in self.root.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                versions_of = self.contents.setdefault(path.stat().st_ino, [b""])
                if versions_of[-1] != content:
                    versions_of += [content[: len(content) // 2], content]

    def synced(self, descriptor: int) -> None:
        """Let only the present version of a file or folder survive."""
        self.look()
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        inode = path.stat().st_ino
        for versions in (self.listings.get(inode), self.contents.get(inode)):
            if versions:
                del versions[:-1]
        self.snapshot()

    def snapshot(self) -> None:
        self.look()
        listings = {inode: list(versions) for inode, versions in self.listings.items()}
        contents = {inode: list(versions) for inode, versions in self.contents.items()}
        self.images.append(Image(self.root.stat().st_ino, listings, contents))


def record(root: Path) -> list[Image]:
    """Save steps 1 and 2, then return the images of all moments of saving step 3."""
    store = CheckpointStore(root, fingerprint="run")
    for step in (1, 2):
        save(store, step)
    watch = Watch(root)
    fsync = os.fsync

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        watch.synced(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", synced)
        for name in ("mkdir", "rename", "replace", "rmdir", "unlink"):
            original = getattr(os, name)

            def after(*args, original=original, **kwargs):
                original(*args, **kwargs)
                watch.snapshot()

            patch.setattr(os, name, after)
        save(store, 3)
    watch.close()
    return watch.images


def save(store: CheckpointStore, step: int) -> None:
    weights = {"weight": torch.full((8,), float(step))}
    store.save(step, {"model": weights, "optimizer": weights}, {"iteration": step})


def outcomes(images: list[Image], folder: Path, seed: int = 0) -> list[int | None]:
    """Return the step of the newest whole checkpoint of every disk of every moment; None where there is none."""
    chance = random.Random(seed)
    found: list[int | None] = []
    for image in images:
        for disk in image.combinations(chance):
            place = folder / str(len(found))
            disk.write(place)
            store = CheckpointStore(place, fingerprint="run")
            latest = store.latest()
            found.append(None if latest is None else latest.step)
            if latest is not None:
                loaded = store.read(latest)
                assert loaded.state == {"iteration": latest.step}
                for group in ("model", "optimizer"):
                    assert loaded.tensors[group]["weight"].unique().tolist() == [latest.step]
    return found
