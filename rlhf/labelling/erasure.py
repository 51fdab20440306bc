"""The erasure of a person, who is marked in the dataset versions that hold their labels, and what was made from these.

The erasure ends after its marks are in the registry: after a kill before that nobody is gone, after it the same command
lists everything again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from rlhf.labelling.datasets import DATASET, ERASURE
from rlhf.labelling.traces import Affected, affected, exports_with
from rlhf.labels.removal import Erased, erased_before, erasing
from rlhf.labels.store import LabelStore
from rlhf.registry import Artifact, Registry
from sft.core.durable import json_digest, write_json


class Erasure(NamedTuple):
    """What an erasure removed, and what is left of the labels elsewhere."""

    erased: Erased
    affected: Affected
    unregistered: list[str]
    """Digests of exports that this registry does not hold."""
    next: list[str]
    """What to do, one sentence each."""

    def as_dict(self) -> dict[str, object]:
        """Return the fields as JSON values."""
        left = {**self.affected._asdict(), "unregistered": self.unregistered, "next": self.next}
        return {**self.erased._asdict(), **left}


def erase_annotator(store: LabelStore, registry: Registry | None, project: str, annotator: str) -> Erasure:
    """Remove a person from a project, mark the dataset versions that hold their labels, and list what used them.

    Of a person who was erased before, all that is left is listed again. The registry's versions stay as they are.

    Args:
        store: of labels.
        registry: that the exports are in; None: there is none.
        project: its name.
        annotator: the person's name, as the imported file has it.

    Raises:
        UsageError: there is no such project or person.
        StorageError: a disk or a database refuses; the same command carries on.
    """
    with _erasing(store, project, annotator) as erased:
        versions = [] if registry is None else exports_with(registry, erased.pseudonym)
        for version in versions:
            assert registry is not None
            _mark(registry, version, erased.pseudonym)
    known = {version.sha256 for version in versions}
    unregistered = [digest for digest in erased.exports if digest not in known]
    found = Affected([], [], [], [], {}) if registry is None else affected(registry, versions)
    return Erasure(erased, found, unregistered, _advice(project, erased, found, unregistered))


@contextmanager
def _erasing(store: LabelStore, project: str, annotator: str) -> Iterator[Erased]:
    with store.reading(project) as labels:
        before = erased_before(labels.connection, labels.project, annotator)
    if before is not None:
        yield before
        return
    with erasing(store, project, annotator) as erased:
        yield erased


def _mark(registry: Registry, dataset: Artifact, pseudonym: str) -> None:
    """Register once that a person in a version has been erased; the version itself never changes."""
    about = {"annotator": pseudonym, "dataset": dataset.ref, "sha256": dataset.sha256}
    fingerprint = json_digest({"erasure": about})
    with registry.workspace(fingerprint) as folder:
        if registry.find(fingerprint) is None:
            write_json(folder / "erasure.json", about)
            registry.register(
                folder,
                name=ERASURE,
                kind=ERASURE,
                fingerprint=fingerprint,
                metadata={"metrics": {}, **about},
                parents=[(DATASET, dataset)],
            )


def _advice(project: str, erased: Erased, affected: Affected, unregistered: list[str]) -> list[str]:
    found = []
    if affected.datasets or unregistered:
        found.append(
            "export again for a dataset without this person (--format csv to train on it): rlhf labels export "
            f"--project {project}"
        )
    if affected.reward_models or affected.policies or affected.others:
        found.append(
            "train again on that version (rlhf run data=files data.labels=NAME): the models listed learned from the "
            "labels"
        )
    if affected.datasets:
        found.append(
            f"the datasets listed still hold the rows of {erased.pseudonym}: the registry changes no version. Exports "
            "among them are marked and no run trains on them any more; delete their folders and copies where the rows "
            "must go"
        )
    if unregistered:
        found.append(
            "this registry does not hold the exports listed as unregistered: delete their folders (the sha256 of "
            "MANIFEST.json is the digest), and run this again with --registry DIR where there is another registry"
        )
    if erased.also_in:
        found.append(f"other projects know the same name: run this with --project {' and '.join(erased.also_in)}")
    return found
