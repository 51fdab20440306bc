"""Removing a person from a project of labels, with nothing else to do before it is final."""

from rlhf.labels.removal import Erased, erasing
from rlhf.labels.store import LabelStore


def erase(store: LabelStore, project: str, annotator: str) -> Erased:
    """Erase, and say what went."""
    with erasing(store, project, annotator) as erased:
        return erased
