"""Files of versions that are believed only after their digests were compared with the registry's."""

from collections.abc import Iterable
from pathlib import Path

from rlhf.registry import Artifact, Registry
from rlhf.registry.difference import recorded_digests
from sft.core.durable import file_digest
from sft.core.errors import StorageError


def check_versions(registry: Registry, versions: Iterable[Artifact]) -> None:
    """Raise StorageError that names every file of these versions which is not the one that was registered."""
    there = [version for version in versions if version.removed_at is None]
    problems = registry.verify(there) if there else []
    if problems:
        raise _damaged("; ".join(problems))


def recorded_file(artifact: Artifact, name: str) -> Path | None:
    """Return a file of a version, None where it was registered without one.

    Raises:
        StorageError: it, or the manifest, is not the one that was registered.
    """
    digest = recorded_digests(artifact).get(name)
    path = artifact.path / name
    if digest is not None and (not path.is_file() or file_digest(path) != digest):
        raise _damaged(f"{path}: not the one that was registered")
    return None if digest is None else path


def _damaged(problems: str) -> StorageError:
    return StorageError(
        f"the registry is damaged, and nothing is told from such files: {problems}; `rlhf models verify` names every "
        "damaged file and says what to do"
    )
