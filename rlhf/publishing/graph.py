"""The lineage of a version as nodes and edges, people at the left: what its picture shows."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rlhf.publishing.facts import reports_about
from rlhf.publishing.label_sources import LabelSource
from rlhf.registry import Artifact, Lineage, Registry
from rlhf.registry.copies import came_in
from sft.core.values import Json, Quantity, mapping, number, percent, plain, quantity, shown_interval

PEOPLE = "people"
_SHOWN_PEOPLE = 4
_PSEUDONYM_LENGTH = 12
"""Enough to find a pseudonym in the table beside the picture."""


class Node(NamedTuple):
    """One version, or the people who labelled one."""

    name: str
    """A reference; of people, one that no reference can be."""
    title: str
    kind: str
    lines: tuple[str, ...]
    """What matters most of it, in a few words each."""
    digest: str
    """sha256, or nothing."""


class Link(NamedTuple):
    """`target` was made from `source`, which it used as `role`."""

    source: str
    target: str
    role: str


class Graph(NamedTuple):
    """Everything that a version was made from and led to."""

    subject: str
    nodes: list[Node]
    links: list[Link]


def lineage_graph(registry: Registry, lineage: Lineage, sources: Sequence[LabelSource]) -> Graph:
    """Return the graph of a lineage; `sources` are the label events behind it."""
    artifacts = [registry.get(ref, removed=True) for ref in lineage.kinds]
    edges = dict.fromkeys((*lineage.ancestors, *lineage.descendants))
    roles: dict[tuple[str, str], list[str]] = {}
    for edge in edges:
        roles.setdefault((edge.parent_ref, edge.child_ref), []).append(edge.role)
    labelled = [source for source in sources if source.people]
    return Graph(
        lineage.ref,
        [*map(_people, labelled), *(_node(registry, artifact) for artifact in artifacts)],
        [
            *(Link(f"people of {source.ref}", source.ref, "label events") for source in labelled),
            *(Link(parent, child, ", ".join(used)) for (parent, child), used in roles.items()),
        ],
    )


def _people(source: LabelSource) -> Node:
    people = source.people or {}
    first = (
        (name.removeprefix("annotator-")[:_PSEUDONYM_LENGTH], count)
        for name, count in list(people.items())[:_SHOWN_PEOPLE]
    )
    shown = [name if count is None else f"{name}: {count}" for name, count in first]
    more = len(people) - len(shown)
    lines = (*shown, *([f"and {more} more"] if more else []))
    title = "1 person" if len(people) == 1 else f"{len(people)} people"
    return Node(f"people of {source.ref}", title, PEOPLE, lines, "")


def _node(registry: Registry, artifact: Artifact) -> Node:
    gone = ("files removed",) if artifact.removed_at is not None else ()
    foreign = ("came from a folder",) if came_in(artifact) else ()
    lines = (*_lines(registry, artifact), *gone, *foreign)
    return Node(artifact.ref, artifact.ref, artifact.kind, lines, artifact.sha256)


def _lines(registry: Registry, artifact: Artifact) -> tuple[str, ...]:
    metrics = mapping(artifact.metadata.get("metrics"))
    if artifact.kind == "evaluation":
        return _estimate("win rate", metrics.get("win_rate"))
    if artifact.kind == "bias":
        return (f"{_whole(metrics, 'checks')} checks", f"{_whole(metrics, 'failed')} failed")
    if artifact.kind == "reward-report":
        return _estimate("accuracy", metrics.get("accuracy"))
    if artifact.kind in ("reward", "judge"):
        report = reports_about(registry, artifact).get("reward-report")
        told = {} if report is None else mapping(report.stage.get("metrics"))
        name = "accuracy" if artifact.kind == "reward" else "judge_accuracy"
        return _estimate("accuracy", told.get(name)) or tuple(_counts(metrics, "comparisons"))
    if artifact.kind == "policy":
        report = reports_about(registry, artifact).get("evaluation")
        told = {} if report is None else mapping(report.stage.get("metrics"))
        return _estimate("win rate", told.get("win_rate")) or tuple(_counts(metrics, "iterations"))
    names = ("comparisons",) if artifact.kind == "comparisons" else ("judgements", "labels", "examples", "pairs")
    return tuple(_counts(metrics, *names))[:1]


def _estimate(title: str, value: object) -> tuple[str, ...]:
    found: Quantity | None = quantity(value)
    if found is None:
        return ()
    over = "" if found.n is None else f" n={found.n}"
    return (f"{title} {percent(found.value)}", f"{shown_interval(found, rate=True)}{over}".strip())


def _counts(metrics: Json, *names: str) -> Iterator[str]:
    for name in names:
        if (count := number(metrics.get(name))) is not None:
            yield f"{plain(count)} {name}"


def _whole(metrics: Json, name: str) -> str:
    count = number(metrics.get(name))
    return "?" if count is None else plain(count)
