"""Who labelled: the label events behind a version, by person.

People are named by pseudonym where an export gave them one. Labels of a file hold the names that the file had: these
stay here, and `person 1` (who gave most labels) stands for the first of them.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from rlhf.labelling.datasets import DATASET
from rlhf.labels.events import EventIds
from rlhf.labels.exporting.export import read_facts
from rlhf.publishing.checked import check_versions
from rlhf.registry import Artifact, Lineage, Registry
from sft.core.errors import DataError
from sft.core.values import mapping, number
from sft.core.visible import visible

LABELS = "labels"
"""Kind of the versions that hold the judgements of a file."""
_LABELS_FILE = "labels.jsonl"


class LabelSource(NamedTuple):
    """A version that holds label events; None: not recorded."""

    ref: str
    kind: str
    labels: int | None
    people: dict[str, int | None] | None
    """Label events of each person, most first; of an export by an older program the counts are None."""
    unknown: int | None
    """Label events that nobody is known to have given."""
    sources: Mapping[str, int] | None
    licences: Mapping[str, int] | None
    guidelines: Mapping[str, int] | None
    """Versions of the guidelines, with the label events that were given under them."""
    events: EventIds | list[str] | None
    """Ranges (first, last) of the ids that events have in the database of labels, or digests of a file's rows."""

    def as_dict(self, *, events: bool) -> dict[str, object]:
        """Return the fields as JSON values; the single events only if asked for."""
        fields = self._asdict()
        return fields if events else {name: value for name, value in fields.items() if name != "events"}


def label_sources(registry: Registry, lineage: Lineage) -> list[LabelSource]:
    """Return every version with label events that an artifact was made from, itself among them; nearest first.

    Raises:
        DataError: a version's rows cannot be read.
        StorageError: a version's files are not those that were registered.
    """
    behind = dict.fromkeys([lineage.ref, *(edge.parent_ref for edge in lineage.ancestors)])
    refs = [ref for ref in behind if lineage.kinds[ref] in (DATASET, LABELS)]
    found = [registry.get(ref, removed=True) for ref in refs]
    check_versions(registry, found)
    return [_source(artifact) for artifact in found]


def told(counts: Mapping[str, int | None] | None, show: Callable[[str], str] = visible) -> str:
    """Return names with their counts in words, each name as `show` gives it."""
    if counts is None:
        return "not recorded"
    return ", ".join(show(name) + ("" if count is None else f" ({count})") for name, count in counts.items()) or "none"


def label_rows(labels: Artifact) -> Iterator[Mapping[str, object]]:
    """Yield the rows of a version of the kind `labels`. Raises DataError where there are none to read."""
    path = labels.path / _LABELS_FILE
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield mapping(json.loads(line))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); see `rlhf models verify {labels.ref}`") from error


def by_person(names: Sequence[str]) -> dict[str, str]:
    """Return what stands for each name of a file's annotators, given with one entry a label."""
    ordered = sorted(Counter(names).items(), key=lambda item: (-item[1], item[0]))
    return {name: f"person {place}" for place, (name, _) in enumerate(ordered, start=1)}


def file_names(rows: Iterable[Mapping[str, object]]) -> list[str]:
    """Return the names of a file's annotators, one for each row whose annotator is known."""
    return [str(row["annotator"]) for row in rows if row.get("annotator") is not None]


def _source(artifact: Artifact) -> LabelSource:
    has_rows = artifact.removed_at is None and (artifact.kind == DATASET or (artifact.path / _LABELS_FILE).is_file())
    if not has_rows:
        count = number(mapping(artifact.metadata.get("metrics")).get("judgements"))
        labels = None if count is None else int(count)
        return LabelSource(artifact.ref, artifact.kind, labels, None, None, None, None, None, None)
    return _of_export(artifact) if artifact.kind == DATASET else _of_file(artifact)


def _of_export(dataset: Artifact) -> LabelSource:
    facts, origins = read_facts(dataset.path), mapping(dataset.metadata.get("origins"))
    labels = facts.counts["labels"]
    known = _counts(origins.get("annotators"))
    named = dataset.metadata.get("annotators")
    people: dict[str, int | None] = dict.fromkeys(map(str, named)) if isinstance(named, list) else {}
    return LabelSource(
        dataset.ref,
        dataset.kind,
        labels,
        people if known is None else {**known},
        None if known is None else labels - sum(known.values()),
        _counts(origins.get("sources")),
        _counts(origins.get("licences")),
        _guidelines(_counts(origins.get("guidelines"))),
        facts.event_ids,
    )


def _guidelines(counts: Mapping[str, int] | None) -> Mapping[str, int] | None:
    """Return counts in which the page's version 0, which means that no guidelines were shown, is called so."""
    if counts is None or "0" not in counts:
        return counts
    return {
        **{name: count for name, count in counts.items() if name != "0"},
        "none": counts["0"] + counts.get("none", 0),
    }


def _of_file(artifact: Artifact) -> LabelSource:
    rows = list(label_rows(artifact))
    names = file_names(rows)
    stand_in = by_person(names)
    counted = Counter(stand_in[name] for name in names)
    return LabelSource(
        artifact.ref,
        artifact.kind,
        len(rows),
        dict(counted.most_common()),
        len(rows) - len(names),
        None,
        None,
        None,
        [str(row.get("sha256")) for row in rows],
    )


def _counts(value: object) -> dict[str, int] | None:
    """Return counts, most first, or None where none were recorded."""
    if not isinstance(value, Mapping):
        return None
    counts = {str(name): int(count) for name, count in value.items() if isinstance(count, int)}
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
