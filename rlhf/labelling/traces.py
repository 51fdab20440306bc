"""Where a person's labels went: the dataset versions that hold them, and what was made from these."""

from collections.abc import Sequence
from typing import NamedTuple

from rlhf.labelling.datasets import DATASET, ERASURE
from rlhf.registry import Artifact, Lineage, Registry

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


def exports_with(registry: Registry, pseudonym: str) -> list[Artifact]:
    """Return the dataset versions that used labels of a person."""
    exports = (artifact for artifact in registry.artifacts() if artifact.kind == DATASET)
    return [dataset for dataset in exports if pseudonym in people_of(dataset)]


def affected(registry: Registry, versions: Sequence[Artifact]) -> Affected:
    """Return these versions and all that was made from them."""
    lineages: list[Lineage] = [registry.lineage(version.ref) for version in versions]
    kinds = {lineage.ref: lineage.kinds[lineage.ref] for lineage in lineages}
    for lineage in lineages:
        kinds |= {edge.child_ref: lineage.kinds[edge.child_ref] for edge in lineage.descendants}
    found = Affected([], [], [], [])
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


def people_of(dataset: Artifact) -> list[str]:
    """Return the pseudonyms of all whose labels an export holds."""
    found = dataset.metadata["annotators"]
    assert isinstance(found, list)
    return found
