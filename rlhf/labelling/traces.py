"""Where a person's labels went: the dataset versions that hold them, and what was made from these."""

from collections.abc import Sequence
from typing import NamedTuple

from rlhf.labelling.datasets import DATASET, ERASURE
from rlhf.registry import Artifact, Lineage, Registry
from rlhf.registry.copies import copies

_ROWS = (DATASET, "labels", "comparisons")
"""Kinds that hold rows of labels."""
_REWARD_MODELS = ("reward", "judge")
_POLICIES = ("policy",)


class Affected(NamedTuple):
    """What holds a person's labels or was made from them: references, each once."""

    datasets: list[str]
    """Versions that hold rows of the labels, under the pseudonym; exports first."""
    reward_models: list[str]
    policies: list[str]
    others: list[str]
    """Models on the way, and reports."""
    same_files: dict[str, str]
    """Those of the models that came from a folder, hence from nothing here, each with the one that it is a copy of."""


def exports_with(registry: Registry, pseudonym: str) -> list[Artifact]:
    """Return the dataset versions that used labels of a person."""
    exports = (artifact for artifact in registry.artifacts() if artifact.kind == DATASET)
    return [dataset for dataset in exports if pseudonym in people_of(dataset)]


def affected(registry: Registry, versions: Sequence[Artifact]) -> Affected:
    """Return these versions and all that was made from them, also from models that left the registry and came back.

    Raises:
        StorageError: a manifest is missing or not the one that was registered.
    """
    kinds: dict[str, str] = {}
    for version in versions:
        kinds |= _with_descendants(registry.lineage(version.ref))
    found = Affected([], [], [], [], {})
    held_by = copies(registry.artifacts()) if kinds else {}
    while new := {copy: ref for copy, refs in held_by.items() if copy not in kinds for ref in refs if ref in kinds}:
        for copy, ref in new.items():
            found.same_files[copy] = ref
            kinds |= _with_descendants(registry.lineage(copy))
    for ref, kind in kinds.items():
        if kind in _ROWS:
            found.datasets.append(ref)
        elif kind in _REWARD_MODELS:
            found.reward_models.append(ref)
        elif kind in _POLICIES:
            found.policies.append(ref)
        elif kind != ERASURE:
            found.others.append(ref)
    return found


def _with_descendants(lineage: Lineage) -> dict[str, str]:
    """Return the kinds of a version and of all that was made from it, by reference."""
    refs = [lineage.ref, *(edge.child_ref for edge in lineage.descendants)]
    return {ref: lineage.kinds[ref] for ref in refs}


def people_of(dataset: Artifact) -> list[str]:
    """Return the pseudonyms of all whose labels an export holds."""
    found = dataset.metadata["annotators"]
    assert isinstance(found, list)
    return found
