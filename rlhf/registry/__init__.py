"""The registry: every product of a run, versioned, sealed, and traced from a human's label to a policy."""

from rlhf.registry.artifact import CHECKPOINTS, STAGE_FILE, Artifact, Parent, Ref, Tag, parse_ref, parse_tag
from rlhf.registry.lineage import Edge, Lineage
from rlhf.registry.promotion import CANDIDATE, CHAMPION, Promotion, Verdict
from rlhf.registry.reports import VALIDATION
from rlhf.registry.store import Registry

__all__ = [
    "CANDIDATE",
    "CHAMPION",
    "CHECKPOINTS",
    "STAGE_FILE",
    "VALIDATION",
    "Artifact",
    "Edge",
    "Lineage",
    "Parent",
    "Promotion",
    "Ref",
    "Registry",
    "Tag",
    "Verdict",
    "parse_ref",
    "parse_tag",
]
