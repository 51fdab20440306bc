"""Whether the files of a version are those that were registered, and what to do where they are not."""

import shlex
from pathlib import Path

from rlhf.registry.artifact import Artifact
from sft.core.durable import MANIFEST, broken_files, file_digest, storage_errors


def damage(artifact: Artifact) -> list[str]:
    """Return what is wrong with the files of a version, one line each, naming the file.

    A manifest that is not the registered one is all that is named: what it says of the files counts for nothing.
    """
    manifest = artifact.path / MANIFEST
    with storage_errors(artifact.path, "read"):
        if manifest.is_file() and file_digest(manifest) != artifact.sha256:
            return [f"{manifest}: not the one that was registered"]
        return broken_files(artifact.path)


def remedy(artifact: Artifact, root: Path, url: str | None) -> str:
    """Return the ways on from a damaged version of the registry in `root`, for an error's message."""
    where = ["--registry", str(root), *([] if url is None else ["--registry-url", url])]
    give_up = shlex.join(["rlhf", "models", "discard", artifact.ref, *where, "--yes"])
    return (
        f"Restore it from a copy, or give this version up: `{give_up}` removes what is left of it, and what made it "
        "makes it again"
    )
