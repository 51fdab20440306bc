"""Which datasets, reward models and policies used a person's labels."""

import re
from typing import NamedTuple

from rlhf.labelling.traces import Affected, affected, exports_with, people_of
from rlhf.labels.store import LabelStore, pseudonym
from rlhf.publishing.label_sources import LABELS, label_rows
from rlhf.registry import Artifact, Registry
from sft.core.errors import UsageError
from sft.core.values import mapping, number

_PSEUDONYM = re.compile(r"annotator-[0-9a-f]{16}")


class Holding(NamedTuple):
    """A version that holds rows of the person."""

    ref: str
    labels: int | None
    """Label events of the person in it; None: an older program did not record them."""


class UsedBy(NamedTuple):
    """What holds a person's labels or was made from them."""

    pseudonyms: list[str]
    """What exports call the person: one for each project that knows the name."""
    holdings: list[Holding]
    affected: Affected

    def as_dict(self) -> dict[str, object]:
        """Return the fields as JSON values."""
        holdings = [holding._asdict() for holding in self.holdings]
        return {"pseudonyms": self.pseudonyms, "labels": holdings, **self.affected._asdict()}


def used_by(registry: Registry, store: LabelStore | None, annotator: str, project: str | None = None) -> UsedBy:
    """Return what used a person's labels, in exports and in labels that runs read from files.

    Args:
        registry: that holds the versions.
        store: of labels, which knows the pseudonyms; None: there is none.
        annotator: the name, of the account or as the imported file has it, or a pseudonym.
        project: of the labels; None: all projects.

    Raises:
        UsageError: nothing here is of a person of this name.
        DataError: rows of labels cannot be read.
    """
    called = _pseudonyms(store, annotator, project)
    exports = {version.ref: version for name in called for version in exports_with(registry, name)}
    holdings = [Holding(ref, _count(version, called)) for ref, version in exports.items()]
    files = [version for version in registry.artifacts() if version.kind == LABELS] if project is None else []
    counted = [(version, _rows_of(version, annotator)) for version in files]
    holdings += [Holding(version.ref, count) for version, count in counted if count]
    if not holdings:
        raise UsageError(
            f"no dataset of the registry {registry.root} holds labels of {annotator!r}{_where(store, project)}; give "
            "the name of the account, or as the imported file has it, or a pseudonym (rlhf models lineage REF)"
        )
    found = [*exports.values(), *(version for version, count in counted if count)]
    held = [name for name in called if any(name in people_of(version) for version in exports.values())]
    return UsedBy(held, holdings, affected(registry, found))


def _pseudonyms(store: LabelStore | None, annotator: str, project: str | None) -> list[str]:
    if _PSEUDONYM.fullmatch(annotator):
        return [annotator]
    if store is None:
        return []
    if project is not None:
        with store.reading(project) as labels:
            return [pseudonym(labels.project.pseudonym_key, annotator)]
    return [pseudonym(found.pseudonym_key, annotator) for found in store.projects()]


def _count(dataset: Artifact, called: list[str]) -> int | None:
    counts = mapping(mapping(dataset.metadata.get("origins")).get("annotators"))
    known = [number(counts.get(name)) for name in called if name in people_of(dataset)]
    return None if None in known else sum(int(count) for count in known if count is not None)


def _rows_of(labels: Artifact, annotator: str) -> int:
    return sum(row.get("annotator") == annotator for row in label_rows(labels))


def _where(store: LabelStore | None, project: str | None) -> str:
    if store is None:
        return ", and there is no database of labels, which knows the pseudonyms (give --database URL)"
    return "" if project is None else f" of project {project!r}"
