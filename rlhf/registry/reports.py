"""Which artifacts are reports, and what each speaks of: parents in roles that the report's kind decides."""

from rlhf.registry.artifact import Artifact

VALIDATION = "validation-"
"""Stands before the kind of a report on validation data, which a trial of a search makes."""

_SUBJECT_ROLES = {"evaluation": ("policy",), "bias": ("policy",), "erasure": ("dataset",)}
"""Kinds with names of their own; their other parents were only measured with, or compared with."""

_REPORT = "-report"
"""Ends every other kind of report, such as "reward-report", or one of the user's own."""

_MODELS_AND_DATA = ("policy", "critic", "reward", "judge", "sft", "dataset")
"""The roles of what those speak of; not the labels that they were measured on."""


def subject_roles(kind: str) -> tuple[str, ...]:
    """Return the roles of the parents that a kind of report speaks of; empty: it is no kind of report."""
    kind = kind.removeprefix(VALIDATION)
    return _MODELS_AND_DATA if kind.endswith(_REPORT) else _SUBJECT_ROLES.get(kind, ())


def subjects(artifact: Artifact) -> list[str]:
    """Return the references of what an artifact reports about; none where it is no report."""
    roles = subject_roles(artifact.kind)
    return [parent.ref for parent in artifact.parents if parent.role in roles]
