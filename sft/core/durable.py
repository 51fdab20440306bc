"""All durable writes: a file or a folder appears whole, or not at all.

A file is written beside its place, synced, and renamed. A folder is sealed by a manifest (sha256 and size of every
file, written last) and renamed into place, so that the existence of `MANIFEST.json` means "complete".
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sft.core.errors import StorageError

MANIFEST = "MANIFEST.json"


@contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror}; free space or fix permissions, then run the same command again"
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


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file atomically, creating its folder. Raises StorageError when the disk refuses."""
    with _storage_errors(path):
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
    with _storage_errors(path):
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


def seal(folder: Path) -> str:
    """Sync every file of a folder and write its manifest last; return the manifest's sha256."""
    with _storage_errors(folder):
        files = {}
        for name in _files(folder):
            _sync_file(folder / name)
            files[name] = {"sha256": file_digest(folder / name), "size": (folder / name).stat().st_size}
        for inner in sorted(path for path in folder.rglob("*") if path.is_dir()):
            sync_folder(inner)
        write_json(folder / MANIFEST, {"files": files})
    return file_digest(folder / MANIFEST)


def publish(folder: Path, target: Path) -> None:
    """Move a sealed folder to its final place with one rename; a leftover at the target is removed first."""
    with _storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            shutil.rmtree(target)
        os.rename(folder, target)
        sync_folder(target.parent)


def broken_files(folder: Path) -> list[str]:
    """Return what is wrong with a sealed folder, one line per file; an empty list means intact."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return [f"{manifest}: missing"]
    try:
        recorded = {
            str(name): str(entry["sha256"]) for name, entry in json.loads(manifest.read_text())["files"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return [f"{manifest}: damaged"]
    present = set(_files(folder))
    problems = [f"{folder / name}: missing" for name in sorted(recorded.keys() - present)]
    problems += [f"{folder / name}: not in the manifest" for name in sorted(present - recorded.keys())]
    problems += [
        f"{folder / name}: changed since it was registered"
        for name in sorted(present & recorded.keys())
        if file_digest(folder / name) != recorded[name]
    ]
    return problems
