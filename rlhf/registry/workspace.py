"""The folder in which one process makes one product: `ROOT/.work/FINGERPRINT`, under a lease.

A holder that showed no sign of life and wakes up finds its lease gone: its registration is refused inside the
transaction, its thread stops its work at once, and what it had open for writing in the folder is unlinked by then.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rlhf.registry.artifact import CHECKPOINTS, WORK
from rlhf.registry.database import Database
from rlhf.registry.leases import Held, holding, interrupter, lost
from rlhf.registry.sweep import remove_path, trash
from sft.core.durable import storage_errors, sync_folder
from sft.core.errors import Pruned, StorageError


@contextmanager
def open_workspace(
    root: Path, database: Database, fingerprint: str, announce: Callable[[str], None]
) -> Iterator[tuple[Path, Held]]:
    """Give a folder, empty but for its checkpoints, and the lease on it; after success nothing stays, nor of a trial
    that was pruned.

    Raises:
        Interrupted: another process has taken the lease, in place of whatever the block raised.
    """
    with holding(database, fingerprint, announce, interrupter()) as held:
        folder = root / WORK / fingerprint
        try:
            with storage_errors(folder, "use"):
                folder.mkdir(exist_ok=True)
                _clear(folder)  # what a killed run left
            yield folder, held
        except BaseException as error:
            if _is_lost(held):
                raise lost(held.lease) from error
            if isinstance(error, Pruned):
                remove_path(folder)
            elif folder.is_dir():  # registration may have moved it away
                _clear(folder)
                if not any(folder.iterdir()):
                    remove_path(folder)
            raise
        if not _is_lost(held):
            remove_path(folder)


def place(root: Path, folder: Path, target: Path) -> Path | None:
    """Rename a folder into place, as the last thing before the commit; return where a leftover there went.

    The leftover is a killed run's, and is removed after the commit alone. A rename never replaces a folder that has
    come there meanwhile.
    """
    with storage_errors(target, "use"):
        target.parent.mkdir(exist_ok=True)
        sync_folder(root)
        leftover = trash(root) if target.exists() else None
        if leftover is not None:
            os.rename(target, leftover)
        os.rename(folder, target)
        sync_folder(target.parent)
    return leftover


def _is_lost(held: Held) -> bool:
    """Beat once more, so that nobody takes the lease while the folder is tidied."""
    with suppress(StorageError):  # then the thread's last word counts
        held.beat()
    return held.is_lost


def _clear(folder: Path) -> None:
    """Empty a workspace, but for its checkpoints."""
    for path in folder.iterdir():
        if path.name != CHECKPOINTS:
            remove_path(path)
