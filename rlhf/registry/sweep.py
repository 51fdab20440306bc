"""`rlhf models gc`: what in the registry's folder is of no use any more, and its removal.

What goes is renamed into `.work` first and removed there, so that a kill leaves it whole or out of sight, and the next
sweep finds the rest. Whatever is none of ours stays.
"""

import os
import re
import secrets
import shutil
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rlhf.registry.artifact import DATABASE_FILE, WORK, Artifact
from rlhf.registry.garbage import unreferenced
from rlhf.registry.lease_rows import Lease
from rlhf.registry.leases import given_up
from sft.core.durable import MANIFEST, storage_errors, sync_folder

if TYPE_CHECKING:
    from rlhf.registry.catalogue import Catalogue
    from rlhf.registry.database import Database

_TRASH = ".trash-"
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


class Useless(NamedTuple):
    """Something that may go."""

    what: str
    """A reference, or a path below the registry's folder."""
    why: str
    size: int
    """Bytes of its files."""


class Swept(NamedTuple):
    """What a sweep found, and whether it is gone."""

    removed: bool
    found: list[Useless]
    busy: list[str]
    """Processes at work: no version goes while they are."""
    not_ours: list[str]
    """Paths in the registry's folder that no registry made."""

    def as_dict(self) -> dict[str, object]:
        """Return the fields as JSON values, with the bytes of all that was found."""
        found = [useless._asdict() for useless in self.found]
        return {**self._asdict(), "found": found, "bytes": sum(useless.size for useless in self.found)}


class _Plan(NamedTuple):
    versions: list[Artifact]
    unlisted: list[Path]
    workspaces: list[Path]
    strangers: list[Path]


def sweep(root: Path, database: "Database", *, remove: bool) -> Swept:
    """Find what may go: versions that nothing refers to, folders that are not listed, workspaces that nobody holds.

    Args:
        root: the registry's folder.
        database: the registry's.
        remove: whether it goes; else nothing changes.
    """
    if not remove:
        with database.read() as catalogue:
            at_work = [lease for lease in catalogue.leases.all() if not lease.owner.is_dead()]
            plan = _plan(root, catalogue, at_work)
        return _report(root, plan, at_work, removed=False)
    gone = given_up(database)
    with database.write() as catalogue:
        leases = catalogue.leases.all()
        at_work = [lease for lease in leases if lease not in gone]
        plan = _plan(root, catalogue, at_work)
        report = _report(root, plan, at_work, removed=True)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        for artifact in plan.versions:
            catalogue.mark_removed(artifact, now)
        for lease in gone.intersection(leases):
            catalogue.leases.end(lease.token)
        put_away = [move_to_trash(root, path) for path in (*plan.unlisted, *plan.workspaces)]
    put_away += [move_to_trash(root, artifact.path) for artifact in plan.versions if artifact.path.exists()]
    for path in put_away:
        remove_path(path)
    return report


def remove_path(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it; nothing happens where there is none."""
    with storage_errors(path, "remove"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def trash(root: Path) -> Path:
    """Return a new name below `.work` for what is about to be removed."""
    return root / WORK / f"{_TRASH}{secrets.token_hex(8)}"


def move_to_trash(root: Path, path: Path) -> Path:
    """Rename what is to be removed out of sight, and return where it is; a name without versions loses its folder."""
    place = trash(root)
    with storage_errors(path, "remove"):
        os.rename(path, place)
        sync_folder(path.parent)
        if path.parent.parent == root and path.parent.name != WORK and not any(path.parent.iterdir()):
            path.parent.rmdir()
    return place


def _plan(root: Path, catalogue: "Catalogue", at_work: Sequence[Lease]) -> _Plan:
    """Return what may go. While anybody is at work, no version does: it may be what they are about to use."""
    artifacts = catalogue.artifacts()
    listed = {artifact.path for artifact in artifacts}
    held = {lease.fingerprint for lease in at_work}
    return _Plan(
        [] if at_work else unreferenced(artifacts, catalogue.promotions()),
        [path for path in _version_folders(root) if path not in listed],
        sorted(path for path in (root / WORK).glob("*") if path.name not in held),
        [path for path in _strangers(root) if path not in listed],
    )


def _version_folders(root: Path) -> list[Path]:
    """Return every sealed folder in a place for versions, listed or not."""
    places = (path for name in sorted(root.iterdir()) if _is_name(name) for path in sorted(name.iterdir()))
    return [path for path in places if _VERSION.fullmatch(path.name) and (path / MANIFEST).is_file()]


def _strangers(root: Path) -> list[Path]:
    """Return what lies where no registry puts anything."""
    found = [path for path in sorted(root.iterdir()) if not (_is_name(path) or _is_own(path))]
    places = [path for name in sorted(root.iterdir()) if _is_name(name) for path in sorted(name.iterdir())]
    sealed = set(_version_folders(root))
    return found + [path for path in places if path not in sealed]


def _is_name(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and path.name != WORK


def _is_own(path: Path) -> bool:
    return path.name == WORK or path.name.startswith(DATABASE_FILE)


def _report(root: Path, plan: _Plan, at_work: Iterable[Lease], *, removed: bool) -> Swept:
    found = [Useless(artifact.ref, "nothing refers to it", _size(artifact.path)) for artifact in plan.versions]
    for paths, why in ((plan.unlisted, "is not listed"), (plan.workspaces, "nobody works in it")):
        found += [Useless(str(path.relative_to(root)), why, _size(path)) for path in paths]
    strangers = [str(path.relative_to(root)) for path in plan.strangers]
    return Swept(removed, found, sorted({str(lease.owner) for lease in at_work}), strangers)


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() and not path.is_symlink() else iter((path,))
    return sum(file.lstat().st_size for file in files if file.is_file() and not file.is_symlink())
