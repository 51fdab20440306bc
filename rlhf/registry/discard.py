"""`rlhf models discard`: a damaged version is given up, so that its fingerprint can be made again.

As with `gc`, the row stays. The folder goes before the commit: after a kill in between the version is listed and still
damaged, and the same command ends it.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf.registry.artifact import Artifact, Ref
from rlhf.registry.damage import damage
from rlhf.registry.leases import given_up
from rlhf.registry.resolve import check_there, resolve
from rlhf.registry.sweep import move_to_trash, remove_path
from sft.core.errors import UsageError

if TYPE_CHECKING:
    from rlhf.registry.database import Database


@dataclass(frozen=True)
class Discarded:
    """A damaged version, and whether it is gone."""

    ref: str
    problems: list[str]
    """What is wrong with its files, one line each."""
    aliases: tuple[str, ...]
    """That pointed at it."""
    removed: bool

    def as_dict(self) -> dict[str, object]:
        """Return the fields as JSON values."""
        return {**vars(self), "aliases": list(self.aliases)}


def discard(root: Path, database: "Database", artifact: Artifact, *, remove: bool) -> Discarded:
    """Find what is wrong with a damaged version, and remove it, with its aliases, if `remove`.

    Raises:
        UsageError: nothing is wrong with it, or a process is at work and may be about to use it.
    """
    problems = damage(artifact)
    if not problems:
        raise UsageError(f"{artifact.ref} is intact: nothing was removed; `rlhf models gc` finds what is of no use")
    if not remove:
        return Discarded(artifact.ref, problems, artifact.aliases, removed=False)
    gone = given_up(database)
    with database.write() as catalogue:
        busy = sorted({str(lease.owner) for lease in catalogue.leases.all() if lease not in gone})
        if busy:
            raise UsageError(f"{', '.join(busy)} is at work and may use {artifact.ref}; try again when it has ended")
        now = check_there(resolve(catalogue, Ref(artifact.name, artifact.version)))
        for alias in now.aliases:
            catalogue.drop_alias(now, alias)
        catalogue.mark_removed(now, datetime.now(UTC).isoformat(timespec="seconds"))
        rest = move_to_trash(root, now.path) if now.path.exists() else None
    if rest is not None:
        remove_path(rest)
    return Discarded(now.ref, problems, now.aliases, removed=True)
