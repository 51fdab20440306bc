"""All durable writes: a file or a folder appears whole, or not at all.

A file is written beside its place, synced, and renamed. A folder is sealed by a manifest (sha256 and size of every
file, written last) and renamed into place, so that the existence of `MANIFEST.json` means "complete".
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from sft.core.errors import DataError, StorageError

MANIFEST = "MANIFEST.json"


@contextmanager
def storage_errors(path: Path, doing: str = "write") -> Iterator[None]:
    """Turn what the disk refuses inside the block into a StorageError: "cannot `doing` `path`"."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(
            f"cannot {doing} {path}: {error.strerror}; free space or fix permissions, then run the same command again"
        ) from error


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename inside it survives a power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def make_folder(folder: Path) -> None:
    """Make a folder and its parents so that each survives a power loss; nothing happens where it exists."""
    with storage_errors(folder):
        if not folder.is_dir():
            make_folder(folder.parent)
            folder.mkdir(exist_ok=True)
            sync_folder(folder.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file atomically, creating its folder. Raises StorageError when the disk refuses."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: object) -> None:
    """Write a whole JSON file atomically; numbers that JSON lacks (NaN, inf) are refused with ValueError."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> None:
    """Write a whole JSON-lines file atomically."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def append_line(path: Path, line: str) -> None:
    """Append one line with a single write, and fail loudly if the disk took only a part of it."""
    content = (line + "\n").encode()
    with storage_errors(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            written = os.write(descriptor, content)
        finally:
            os.close(descriptor)
    if written != len(content):
        raise StorageError(f"{path}: the disk took {written} of {len(content)} bytes; free space and run again")


def file_digest(path: Path) -> str:
    """Return a file's sha256 as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_digest(text: str) -> str:
    """Return a text's sha256 as hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def json_digest(value: object) -> str:
    """Return the sha256 of a JSON value, independent of key order."""
    return text_digest(json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False))


def folder_digest(folder: Path) -> str:
    """Return one sha256 over the names and contents of all files below a folder."""
    return json_digest({name: file_digest(folder / name) for name in _files(folder)})


def _files(folder: Path) -> list[str]:
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name != MANIFEST)


def seal(folder: Path, about: Mapping[str, object] | None = None) -> str:
    """Sync every file of a folder and write its manifest last; return the manifest's sha256.

    `about` are JSON values that the manifest holds besides, under a digest of their own: `read_about` gives them back.
    """
    with storage_errors(folder):
        files = {}
        for name in _files(folder):
            _sync_file(folder / name)
            files[name] = {"sha256": file_digest(folder / name), "size": (folder / name).stat().st_size}
        for inner in sorted(path for path in folder.rglob("*") if path.is_dir()):
            sync_folder(inner)
        facts = {} if about is None else {"about": dict(about), "about_sha256": json_digest(dict(about))}
        write_json(folder / MANIFEST, {"files": files, **facts})
    return file_digest(folder / MANIFEST)


def publish(folder: Path, target: Path) -> None:
    """Move a sealed folder to its final place with one rename; a leftover at the target is removed first."""
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            shutil.rmtree(target)
        os.rename(folder, target)
        sync_folder(target.parent)


class _Recorded(NamedTuple):
    """What a manifest says of one file."""

    sha256: str
    size: int


class _Manifest(NamedTuple):
    files: dict[str, _Recorded]
    about: dict[str, object]


def _read_manifest(path: Path) -> _Manifest:
    """Return a manifest. Raises ValueError, KeyError, TypeError or AttributeError if it is damaged."""
    content = json.loads(path.read_text(encoding="utf-8"))
    files = {str(name): _Recorded(str(e["sha256"]), int(e["size"])) for name, e in content["files"].items()}
    if content.keys() == {"files"}:
        return _Manifest(files, {})
    if content.keys() != {"files", "about", "about_sha256"} or json_digest(content["about"]) != content["about_sha256"]:
        raise ValueError("not what `seal` wrote")
    return _Manifest(files, dict(content["about"]))


def read_about(folder: Path) -> dict[str, object]:
    """Return what `seal` was told about a folder; nothing of its files is checked.

    Raises:
        DataError: The manifest is missing or damaged.
    """
    try:
        return _read_manifest(folder / MANIFEST).about
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder / MANIFEST}: missing or damaged; remove {folder} or restore it") from error


def broken_files(folder: Path) -> list[str]:
    """Return what is wrong with a sealed folder, one line per file; an empty list means intact."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return [f"{manifest}: missing"]
    try:
        recorded = _read_manifest(manifest).files
    except (ValueError, KeyError, TypeError, AttributeError):
        return [f"{manifest}: damaged"]
    present = set(_files(folder))
    problems = [f"{folder / name}: missing" for name in sorted(recorded.keys() - present)]
    problems += [f"{folder / name}: not in the manifest" for name in sorted(present - recorded.keys())]
    problems += [
        f"{folder / name}: changed since it was registered"
        for name in sorted(present & recorded.keys())
        if recorded[name] != (file_digest(folder / name), (folder / name).stat().st_size)
    ]
    return problems
