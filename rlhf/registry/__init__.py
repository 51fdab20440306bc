"""The registry: every product of a run, versioned, sealed, and traced from a human's label to a policy."""

from rlhf.registry.artifact import Artifact, Parent, Ref, parse_ref
from rlhf.registry.lineage import Edge, Lineage
from rlhf.registry.store import CHECKPOINTS, Registry

__all__ = ["CHECKPOINTS", "Artifact", "Edge", "Lineage", "Parent", "Ref", "Registry", "parse_ref"]
