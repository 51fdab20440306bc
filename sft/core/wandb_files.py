"""Reads W&B's own files on disk (`*.wandb`): which rows of the ledger they hold.

The format is LevelDB's log: blocks of 32 KiB, in them records of checksum, length, kind and data, after a header of 7
bytes. A kill leaves the last record unfinished, or holes of zeros; what is behind the first broken record is not read.
Source: https://github.com/google/leveldb/blob/main/doc/log_format.md
"""

import json
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sft.core.durable import write_bytes
from sft.core.errors import DataError

SETTLED_S = 5.0
"""A file without the run's end is no longer written this long after it was last changed; a full block takes less."""
_MAGIC = b":W&B"
_HEADER, _BLOCK, _RECORD = 7, 32768, 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


@dataclass(frozen=True)
class MirrorFile:
    """One of W&B's folders of a run, `offline-run-TIME-ID` or `run-TIME-ID`."""

    folder: Path
    file: Path
    run_id: str
    """W&B's id; "" where not even that was written."""
    seqs: frozenset[int]
    """The lines of the ledger whose rows it holds."""
    ended: bool
    """Whether W&B wrote the run's end."""
    whole: int
    """Bytes up to the end of the last whole record."""

    @property
    def offline(self) -> bool:
        """Whether nothing of it was sent while it was written."""
        return self.folder.name.startswith("offline-")

    @property
    def sent(self) -> bool:
        """Whether `wandb sync` says that the server has all of it."""
        return self.file.with_suffix(".wandb.synced").exists()


def mirror_files(out_dir: Path) -> list[MirrorFile]:
    """Return W&B's folders of a run in the order in which they were begun."""
    files = sorted((out_dir / "wandb").glob("*run-*/*.wandb"), key=lambda file: file.parent.name.split("run-")[1])
    return [_read(file) for file in files if not file.parent.is_symlink()]


def settled_files(out_dir: Path) -> list[MirrorFile]:
    """Return W&B's folders of a run that has ended: its service writes on for a moment after the process is gone.

    A file from the future was written under another clock, and is no longer.
    """
    while True:
        files = mirror_files(out_dir)
        if all(file.ended or abs(time.time() - file.file.stat().st_mtime) > SETTLED_S for file in files):
            return files
        time.sleep(0.2)


def _read(file: Path) -> MirrorFile:
    from wandb.proto import wandb_internal_pb2

    run_id, ended, whole = "", False, 0
    seqs: set[int] = set()
    for data, end in records(file.read_bytes(), file):
        whole = end
        record = wandb_internal_pb2.Record.FromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run_id = record.run.run_id
        elif kind == "exit":
            ended = True
        elif kind == "history":
            row = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            # Rows of the ledger alone carry the stage's own step; W&B's step is then the ledger's line.
            if any(name.endswith(("/step", "/iteration")) for name in row):
                seqs.add(int(json.loads(row["_step"])))
    return MirrorFile(file.parent, file, run_id, frozenset(seqs), ended, whole)


def cut_torn(file: MirrorFile) -> None:
    """Cut off the record that a kill left unfinished, which `wandb sync` stumbles over; the file as it was stays
    beside it, as `*.wandb.torn`."""
    content = file.file.read_bytes()
    if file.whole < len(content):
        write_bytes(file.file.with_suffix(".wandb.torn"), content)
        write_bytes(file.file, content[: file.whole])


def records(content: bytes, file: Path) -> Iterator[tuple[bytes, int]]:
    """Yield the whole records of a file's content, up to the first broken one, each with the place where it ends.

    Raises:
        DataError: the content does not begin as W&B's files do.
    """
    if content[:4] != _MAGIC[: len(content)]:
        raise DataError(f"{file} is no file of W&B's; remove its folder")
    place, parts = _HEADER, b""
    while place + _RECORD <= len(content):
        if _BLOCK - place % _BLOCK < _RECORD:
            place += _BLOCK - place % _BLOCK
            continue
        checksum, length, kind = struct.unpack_from("<IHB", content, place)
        data = content[place + _RECORD : place + _RECORD + length]
        if kind not in (_FULL, _FIRST, _MIDDLE, _LAST) or len(data) < length:
            return
        if zlib.crc32(bytes([kind]) + data) != checksum:
            return
        place += _RECORD + length
        parts = data if kind in (_FULL, _FIRST) else parts + data
        if kind in (_FULL, _LAST):
            yield parts, place
