"""Which datasets, reward models and policies used a person's labels."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import NamedTuple

from rlhf.labelling.datasets import DATASET
from rlhf.labelling.traces import Affected, affected, exports_with, people_of
from rlhf.labels.store import LabelStore, pseudonym
from rlhf.publishing.checked import check_versions
from rlhf.publishing.label_sources import LABELS, by_person, file_names, label_rows
from rlhf.registry import Artifact, Registry
from sft.core.errors import UsageError
from sft.core.values import mapping, number

_PSEUDONYM = re.compile(r"annotator-[0-9a-f]{16}")
_STAND_IN = re.compile(r"person [0-9]+")
_CLOSE = 0.8
"""Likeness of a pseudonym from which on it is suggested; those of different people are less alike."""


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


def used_by(
    registry: Registry, store: LabelStore | None, annotator: str, project: str | None = None, of: str | None = None
) -> UsedBy:
    """Return what used a person's labels, in exports and in labels that runs read from files.

    Args:
        registry: that holds the versions.
        store: of labels, which knows the pseudonyms; None: there is none.
        annotator: the name, of the account or as the imported file has it, or a pseudonym.
        project: of the labels; None: all projects.
        of: the version of labels from a file in whose lineage `annotator` is a "person 1"; None: it is a name.

    Raises:
        UsageError: nothing here is of a person of this name.
        DataError: rows of labels cannot be read.
        StorageError: files of labels are not those that were registered.
    """
    if of is not None:
        if project is not None:
            raise UsageError("--of means labels of a file, --project those of a database: give one of the two")
        return used_by(registry, store, _name_behind(registry, annotator, of))
    called = _pseudonyms(store, annotator, project)
    exports = {version.ref: version for name in called for version in exports_with(registry, name)}
    holdings = [Holding(ref, _count(version, called)) for ref, version in exports.items()]
    files = [version for version in registry.artifacts() if version.kind == LABELS] if project is None else []
    check_versions(registry, files)
    counted = [(version, _rows_of(version, annotator)) for version in files]
    holdings += [Holding(version.ref, count) for version, count in counted if count]
    if not holdings:
        raise UsageError(
            f"no dataset of the registry {registry.root} holds labels of {annotator!r}{_where(store, project)}; "
            f"{_hint(registry, files, annotator)}"
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


def _name_behind(registry: Registry, stand_in: str, of: str) -> str:
    """Return the name that a version of labels from a file has for its "person 1"."""
    version = registry.get(of)
    if version.kind != LABELS:
        raise UsageError(
            f"{version.ref} is of kind {version.kind!r}; --of takes a version of kind {LABELS!r}, whose people "
            "`rlhf models lineage` calls person 1, person 2, ..."
        )
    check_versions(registry, [version])
    names = {shown: name for name, shown in by_person(file_names(label_rows(version))).items()}
    if stand_in not in names:
        known = f"person 1 to person {len(names)}" if names else "no people"
        raise UsageError(f"{version.ref} has no {stand_in!r}: it has {known}; `rlhf models lineage {version.ref}`")
    return names[stand_in]


def _hint(registry: Registry, files: Sequence[Artifact], annotator: str) -> str:
    """Return how a person is to be given; names of accounts and files are private, and so never suggested."""
    if files and _STAND_IN.fullmatch(annotator):
        having = [version.ref for version in files if annotator in by_person(file_names(label_rows(version))).values()]
        of = " or ".join(f"--of {ref}" for ref in having) or "none of this registry has such a one"
        return f"each version of labels from a file has people of its own: say whose it is ({of})"
    known = {name for version in registry.artifacts() if version.kind == DATASET for name in people_of(version)}
    close = get_close_matches(annotator, sorted(known), cutoff=_CLOSE)
    guess = f"did you mean {' or '.join(close)}? Else " if close else ""
    return (
        f"{guess}give the name letter for letter as the account "
        "or the imported file has it (names are private, so none is suggested), a pseudonym, or, as `rlhf models "
        "lineage REF` shows people of a file: 'person 1' --of REF"
    )


def _where(store: LabelStore | None, project: str | None) -> str:
    if store is None:
        return ", and there is no database of labels, which knows the pseudonyms (give --database URL)"
    return "" if project is None else f" of project {project!r}"
