"""Models that came in from a folder, and the versions that hold the same files: what returns is a new version."""

from collections.abc import Sequence

from rlhf.registry.artifact import STAGE_FILE, Artifact
from rlhf.registry.difference import recorded_digests

LINEAGE_FILE = "rlhf-lineage.json"
"""What an export says of a model, beside it."""
_MODELS = ("policy", "critic", "reward", "judge", "sft", "base")
_COME_IN = ("policy", "reward", "judge", "sft")
_NOT_THE_MODEL = (STAGE_FILE, LINEAGE_FILE)


def came_in(artifact: Artifact) -> bool:
    """Return whether a model came from a folder, by an import or a run: nothing here made it."""
    return artifact.kind in _COME_IN and not artifact.parents


def copies(artifacts: Sequence[Artifact]) -> dict[str, list[str]]:
    """Return the models that came from a folder, each with the other versions that hold every file of it, bit for bit.

    Digests of manifests are compared, no weights are read. What was removed holds no files.

    Raises:
        StorageError: a manifest is missing or not the one that was registered.
    """
    there = [artifact for artifact in artifacts if artifact.kind in _MODELS and artifact.removed_at is None]
    copied = [artifact for artifact in there if came_in(artifact)]
    recorded = {artifact.ref: recorded_digests(artifact) for artifact in (there if copied else [])}
    found = {}
    for artifact in copied:
        files = {name: digest for name, digest in recorded[artifact.ref].items() if name not in _NOT_THE_MODEL}
        is_model = any(name.endswith(".safetensors") for name in files)
        same = [ref for ref, held in recorded.items() if ref != artifact.ref and files.items() <= held.items()]
        found[artifact.ref] = same if is_model else []
    return found
