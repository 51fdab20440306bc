"""Registry: folders under `ROOT/NAME/VERSION` and what the database knows of them.

A folder is sealed, then renamed into place inside the transaction that lists it: a kill at any moment leaves it listed
and whole, or not listed. `ROOT/.work/FINGERPRINT` is where a stage works until then.
"""

import fcntl
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rlhf.registry.artifact import (
    DATABASE_FILE,
    LATEST,
    Artifact,
    Parent,
    Ref,
    check_fingerprint,
    check_name,
    check_word,
    parse_ref,
)
from rlhf.registry.lineage import Lineage, trace
from sft.core.durable import MANIFEST, publish, seal, sync_folder
from sft.core.errors import DataError, StorageError, UsageError

if TYPE_CHECKING:
    from rlhf.registry.database import Catalogue

_WORK = ".work"
CHECKPOINTS = "checkpoints"
"""The part of a workspace that outlives a run that did not finish."""
_SHOWN_NAMES = 20


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


class Registry:
    """Versions of everything that runs made, under one folder; safe for several processes at once."""

    def __init__(self, root: Path, *, create: bool = True, announce: Callable[[str], None] = _say) -> None:
        """Open the registry in `root`, making it if `create`.

        Args:
            root: Folder of the registry, on a local disk (locks and SQLite do not work on network ones).
            create: Whether a missing registry is made; else it is a UsageError.
            announce: Takes the one line said when `workspace` has to wait for another process.

        Raises:
            UsageError: There is no registry and `create` is false.
            StorageError: The disk refuses, or the database is locked, damaged or of a newer program.
        """
        from rlhf.registry.database import Database  # here, so that `rlhf --help` does not load SQLAlchemy

        self.root = root.absolute()
        self._announce = announce
        self._database = Database(self.root)
        if create:
            with _disk_errors(self.root):
                (self.root / _WORK).mkdir(parents=True, exist_ok=True)
                self._database.create()
        elif not (self.root / DATABASE_FILE).is_file():
            raise UsageError(
                f"there is no registry in {root}: a run makes one (rlhf run experiment=quickstart), "
                "or name an existing one with --registry DIR"
            )
        self._database.check()

    def find(self, fingerprint: str) -> Artifact | None:
        """Return the artifact with this fingerprint, or None.

        Raises StorageError if it is registered but its folder is gone.
        """
        with self._database.read() as catalogue:
            found = catalogue.find(fingerprint)
        if found is not None and not (found.path / MANIFEST).is_file():
            raise StorageError(f"{found.ref} is registered, but {found.path} is gone or incomplete; restore it")
        return found

    def get(self, ref: str) -> Artifact:
        """Return what NAME (the latest version), NAME:VERSION or NAME@ALIAS stands for.

        Raises UsageError that names what exists instead.
        """
        asked = parse_ref(ref)
        with self._database.read() as catalogue:
            return _resolve(catalogue, asked)

    def artifacts(self, name: str | None = None) -> list[Artifact]:
        """Return all artifacts by name and version, or the versions of one name. Raises UsageError if unknown."""
        with self._database.read() as catalogue:
            if name is None:
                return catalogue.artifacts()
            return catalogue.named(name) or _no_such_name(catalogue, name)

    def register(
        self,
        folder: Path,
        *,
        name: str,
        kind: str,
        fingerprint: str,
        metadata: Mapping[str, object],
        parents: Sequence[tuple[str, Artifact]],
    ) -> Artifact:
        """Seal a finished folder and move it to the next version of `name`.

        If the fingerprint is registered already (under any name), return that artifact and remove `folder`.

        Args:
            folder: On the same file system as the registry, best the one that `workspace` gave.
            name: What the versions belong to; kind and roles obey the same rule: [a-z0-9][a-z0-9._-]{0,63}.
            kind: What it is, such as "sft".
            fingerprint: Digest of everything that decided the content.
            metadata: JSON values; what a stage reports under "metrics".
            parents: (role, artifact of this registry) of everything it was made from.

        Raises:
            UsageError: A name that is not allowed, a missing folder, a parent of another registry.
            DataError: Metadata that is not JSON (NaN and infinity are not).
            StorageError: The disk or the database refuses; then nothing is listed.
        """
        check_fingerprint(fingerprint)
        check_name(name)
        check_word("kind", kind)
        for role, _ in parents:
            check_word("role", role)
        content = _as_json(name, metadata)
        self._check_folder(folder)
        sha256 = seal(folder)
        with self._database.write() as catalogue:
            existing = catalogue.find(fingerprint)
            if existing is None:
                version = catalogue.last_version(name) + 1
                artifact = Artifact(
                    name=name,
                    version=version,
                    kind=kind,
                    path=self.root / name / str(version),
                    sha256=sha256,
                    fingerprint=fingerprint,
                    created_at=datetime.now(UTC).isoformat(timespec="seconds"),
                    metadata=content,
                    parents=tuple(Parent(role, parent.ref) for role, parent in parents),
                )
                catalogue.add(artifact, parents)
                self._publish(folder, artifact.path)
                return artifact
        _remove(folder)
        return existing

    def set_alias(self, artifact: Artifact, alias: str) -> Artifact:
        """Point `alias` at an artifact, away from any other version of its name; return the artifact as it is now."""
        _check_alias(alias)
        with self._database.write() as catalogue:
            catalogue.set_alias(artifact, alias)
            return _resolve(catalogue, Ref(artifact.name, artifact.version))

    def drop_alias(self, artifact: Artifact, alias: str) -> Artifact:
        """Remove `alias` if it points at this artifact; return the artifact as it is now."""
        _check_alias(alias)
        with self._database.write() as catalogue:
            catalogue.drop_alias(artifact, alias)
            return _resolve(catalogue, Ref(artifact.name, artifact.version))

    def lineage(self, ref: str) -> Lineage:
        """Return everything that `ref` was made from and everything made from it. Raises UsageError if unknown."""
        asked = parse_ref(ref)
        with self._database.read() as catalogue:
            return trace(_resolve(catalogue, asked).ref, catalogue.edges(), catalogue.kinds())

    @contextmanager
    def workspace(self, fingerprint: str) -> Iterator[Path]:
        """Give a folder to make one artifact in, to one process at a time.

        It is empty but for `checkpoints/`, which a run that was killed, interrupted or broken off leaves to the next
        one with this fingerprint. A second process that asks for the same fingerprint waits; it must then look with
        `find` whether there is anything left to do. After success nothing stays.
        """
        check_fingerprint(fingerprint)
        folder = self.root / _WORK / fingerprint
        with self._lock(folder.with_name(f"{fingerprint}.lock")):
            with _disk_errors(folder):
                folder.mkdir(exist_ok=True)
            _clear(folder)  # what a killed run left
            try:
                yield folder
            except BaseException:
                if folder.is_dir():  # registration may have moved it away
                    _clear(folder)
                    if not any(folder.iterdir()):
                        _remove(folder)
                raise
            _remove(folder)

    @contextmanager
    def _lock(self, path: Path) -> Iterator[None]:
        descriptor = _wait_for_lock(path, self._announce)
        try:
            yield
        finally:
            try:
                path.unlink(missing_ok=True)  # while it is locked, so that nobody else's lock is removed
            finally:
                os.close(descriptor)

    def _publish(self, folder: Path, target: Path) -> None:
        """Rename the folder into place, as the last thing before the commit: a leftover there is a killed run's."""
        with _disk_errors(target):
            target.parent.mkdir(exist_ok=True)
            sync_folder(self.root)
            publish(folder, target)

    def _check_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UsageError(f"{folder} is not a folder; give the folder of a finished stage")
        place, root = folder.resolve(), self.root.resolve()
        if place.is_relative_to(root) and (root / _WORK) not in place.parents:
            raise UsageError(f"{folder} lies in the registry already; register a copy of it")


def _resolve(catalogue: "Catalogue", ref: Ref) -> Artifact:
    last = catalogue.last_version(ref.name)
    if not last:
        return _no_such_name(catalogue, ref.name)
    if ref.alias is None or ref.alias == LATEST:
        version = ref.version or last
    else:
        aliases = catalogue.aliases(ref.name)
        if ref.alias not in aliases:
            shown = ", ".join(f"{alias} (version {number})" for alias, number in {**aliases, LATEST: last}.items())
            raise UsageError(f"{ref.name} has no alias {ref.alias!r}; it has: {shown}")
        version = aliases[ref.alias]
    found = catalogue.version(ref.name, version)
    if found is None:
        raise UsageError(f"{ref.name} has no version {version}; it has 1 to {last}")
    return found


def _no_such_name(catalogue: "Catalogue", name: str) -> NoReturn:
    names = catalogue.names()
    close = get_close_matches(name, names)
    guess = f"; did you mean {' or '.join(close)}?" if close else ";"
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    holds = f"holds {', '.join(names[:_SHOWN_NAMES])}{more}" if names else "is empty"
    raise UsageError(f"nothing is registered as {name!r}{guess} the registry {holds}")


def _check_alias(alias: str) -> None:
    check_word("alias", alias)
    if alias == LATEST:
        raise UsageError(f"alias {LATEST!r} always means the highest version; choose another alias")


def _as_json(name: str, metadata: Mapping[str, object]) -> dict[str, object]:
    """Return the metadata as the database will give it back: keys are strings, tuples are lists."""
    try:
        stored: dict[str, object] = json.loads(json.dumps(dict(metadata), allow_nan=False))
        return stored
    except (TypeError, ValueError) as error:
        raise DataError(
            f"the metadata of {name} cannot be stored as JSON: {error}; use plain values, and null for unknown numbers"
        ) from error


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(
            f"cannot use {path}: {error.strerror}; free space or fix permissions, then run the same command again"
        ) from error


def _clear(folder: Path) -> None:
    """Empty a workspace, but for its checkpoints."""
    for path in folder.iterdir():
        if path.name != CHECKPOINTS:
            _remove(path)


def _remove(path: Path) -> None:
    with _disk_errors(path):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _wait_for_lock(path: Path, announce: Callable[[str], None]) -> int:
    """Return the open descriptor of a lock file that is locked and still the one at `path`."""
    announced = False
    while True:
        with _disk_errors(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not _try_lock(descriptor):
                if not announced:
                    announce(f"another process is making {path.stem[:12]}: waiting for it, to use its result")
                announced = True
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            # The holder removes the file before it lets go: then this lock is on a file that nobody else will see.
            if _is_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
