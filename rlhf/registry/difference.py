"""What differs between two versions: settings and facts, metrics with their intervals, parents, files by digest."""

import json
from collections.abc import Mapping
from typing import NamedTuple

from rlhf.registry.artifact import Artifact
from sft.core.durable import MANIFEST, file_digest
from sft.core.errors import StorageError

_METRICS = "metrics"
_ESTIMATE = {"value", "ci", "n"}


class Change(NamedTuple):
    """One thing that differs; None where a version has no such thing."""

    name: str
    a: object
    b: object


class Metric(NamedTuple):
    """One metric that differs: JSON values, estimates as {value, ci, n}."""

    name: str
    a: object
    b: object
    change: float | None
    """b - a, where both are numbers."""
    overlap: bool | None
    """Whether the two intervals share a point; None where one has no interval. Intervals that do not overlap differ
    for sure; the reverse does not hold."""


class Difference(NamedTuple):
    """What differs between version `a` and version `b`."""

    a: str
    b: str
    facts: list[Change]
    """Kind and metadata but for metrics, by dotted name."""
    metrics: list[Metric]
    parents: list[Change]
    """By role, as lists of references."""
    files: list[Change]
    """By path, as digests."""
    same: dict[str, int]
    """How many of each are equal, so that an empty list can be told from nothing to compare."""

    def as_dict(self) -> dict[str, object]:
        """Return the fields as JSON values."""
        lists = {
            "facts": [change._asdict() for change in self.facts],
            "metrics": [metric._asdict() for metric in self.metrics],
            "parents": [change._asdict() for change in self.parents],
            "files": [change._asdict() for change in self.files],
        }
        return {**self._asdict(), **lists}


def difference(a: Artifact, b: Artifact) -> Difference:
    """Return what differs between two versions.

    Raises:
        StorageError: a manifest is missing or not the one that was registered.
    """
    facts, same_facts = _changes(_facts(a), _facts(b))
    metrics, same_metrics = _changes(_metrics(a), _metrics(b))
    parents, same_parents = _changes(_parents(a), _parents(b))
    files, same_files = _changes(recorded_digests(a), recorded_digests(b))
    counts = {"facts": same_facts, "metrics": same_metrics, "parents": same_parents, "files": same_files}
    measured = [Metric(*change, _change(change), _overlap(change)) for change in metrics]
    return Difference(a.ref, b.ref, facts, measured, parents, files, counts)


def recorded_digests(artifact: Artifact) -> dict[str, str]:
    """Return the sha256 of each file of a version, by path. Raises StorageError unless its manifest was registered."""
    manifest = artifact.path / MANIFEST
    if not manifest.is_file() or file_digest(manifest) != artifact.sha256:
        raise StorageError(f"{manifest}: not the one that was registered; see `rlhf models verify {artifact.ref}`")
    return {name: entry["sha256"] for name, entry in json.loads(manifest.read_text())["files"].items()}


def _changes(a: Mapping[str, object], b: Mapping[str, object]) -> tuple[list[Change], int]:
    """Return what differs, sorted by name, and how many are equal."""
    names = sorted({*a, *b})
    found = [Change(name, a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name)]
    return found, len(names) - len(found)


def _facts(artifact: Artifact) -> dict[str, object]:
    metadata = {name: value for name, value in artifact.metadata.items() if name != _METRICS}
    return {"kind": artifact.kind, **_flat(metadata)}


def _metrics(artifact: Artifact) -> dict[str, object]:
    metrics = artifact.metadata.get(_METRICS)
    return _flat(metrics) if isinstance(metrics, dict) else {}


def _parents(artifact: Artifact) -> dict[str, object]:
    found: dict[str, list[str]] = {}
    for parent in artifact.parents:
        found.setdefault(parent.role, []).append(parent.ref)
    return dict(found)


def _flat(tree: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Return the leaves of a tree by dotted name; lists and estimates are leaves."""
    found: dict[str, object] = {}
    for name, value in tree.items():
        if isinstance(value, dict) and value and not value.keys() >= _ESTIMATE:
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _number(value: object) -> float | None:
    if isinstance(value, dict):
        return _number(value.get("value"))
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _change(change: Change) -> float | None:
    a, b = _number(change.a), _number(change.b)
    return None if a is None or b is None else b - a


def _overlap(change: Change) -> bool | None:
    a, b = _interval(change.a), _interval(change.b)
    return None if a is None or b is None else a[0] <= b[1] and b[0] <= a[1]


def _interval(value: object) -> tuple[float, float] | None:
    ci = value.get("ci") if isinstance(value, dict) else None
    if not isinstance(ci, list) or len(ci) != 2:
        return None
    low, high = _number(ci[0]), _number(ci[1])
    return None if low is None or high is None else (low, high)
