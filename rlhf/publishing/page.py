"""The lineage of a version as one page that loads nothing and runs nothing."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from rlhf.publishing.claims import Claim
from rlhf.publishing.graph import PEOPLE, Graph, Link, Node
from rlhf.publishing.label_sources import LabelSource, told
from rlhf.publishing.layout import Box, Point, Sizes, lay_out
from sft.core.page import render_page

_TEMPLATE = Path(__file__).with_name("lineage.html.jinja")
_SIZES = Sizes(width=168.0, column_gap=52.0, row_gap=16.0)
_MARGIN, _LINE, _HEAD, _FOOT = 8.0, 16.0, 40.0, 8.0
_TITLE_LENGTH, _LINE_LENGTH = 17, 21
"""Characters that a node is wide."""
_FAMILIES = {
    PEOPLE: "people",
    **dict.fromkeys(("labels", "dataset", "comparisons", "tasks", "collection"), "data"),
    **dict.fromkeys(("base", "sft"), "sft"),
    **dict.fromkeys(("reward", "judge"), "scorer"),
    **dict.fromkeys(("policy", "critic"), "policy"),
}
"""Kind -> colour; all others are reports."""


class Drawn(NamedTuple):
    """A node in its place."""

    node: Node
    box: Box
    family: str
    title: str
    lines: list[tuple[float, str]]
    kind: str
    digest: str


class Curve(NamedTuple):
    """An edge in its place."""

    link: Link
    path: str
    label: str
    """Its role, where it is another word than the kind of what is used."""
    at: Point


def render(graph: Graph, sources: Sequence[LabelSource], claims: Sequence[Claim]) -> str:
    """Return the whole page."""
    nodes = {node.name: node for node in graph.nodes}
    heights = {name: _HEAD + _LINE * (len(node.lines) + bool(node.digest)) + _FOOT for name, node in nodes.items()}
    placed = lay_out(heights, [link[:2] for link in graph.links], _SIZES, _pinned(graph, sources))
    return render_page(
        _TEMPLATE,
        {
            "subject": graph.subject,
            "width": placed.width + 2 * _MARGIN,
            "height": placed.height + 2 * _MARGIN,
            "margin": _MARGIN,
            "node_width": _SIZES.width,
            "drawn": [_drawn(node, placed.boxes[name]) for name, node in nodes.items()],
            "curves": [_curve(link, nodes[link.source], placed.paths[link[:2]]) for link in graph.links],
            "nodes": sorted(
                (node for node in graph.nodes if node.kind != PEOPLE), key=lambda node: placed.boxes[node.name]
            ),
            "links": graph.links,
            "sources": sources,
            "told": told,
            "claims": claims,
        },
    )


def _pinned(graph: Graph, sources: Sequence[LabelSource]) -> dict[str, int]:
    """Return the columns of people and of what they labelled: the first two."""
    people = {node.name: 0 for node in graph.nodes if node.kind == PEOPLE}
    made = {link.target for link in graph.links if link.source not in people}
    return people | {source.ref: 1 for source in sources if people and source.ref not in made}


def _drawn(node: Node, box: Box) -> Drawn:
    name, colon, version = node.title.rpartition(":")
    title = f"{_cut(name, _TITLE_LENGTH - len(version) - 1)}:{version}" if colon else node.title
    lines = [(_HEAD + _LINE * (place + 0.75), _cut(line, _LINE_LENGTH)) for place, line in enumerate(node.lines)]
    return Drawn(
        node, box, _FAMILIES.get(node.kind, "report"), title, lines, _cut(node.kind, _LINE_LENGTH), node.digest[:12]
    )


def _curve(link: Link, source: Node, points: Sequence[Point]) -> Curve:
    path = f"M{_at(points[0])}"
    for number, (a, b) in enumerate(pairwise(points)):
        middle = (a[0] + b[0]) / 2
        path += f"L{_at(b)}" if number % 2 else f"C{_at((middle, a[1]))} {_at((middle, b[1]))} {_at(b)}"
    (x, y), (end_x, end_y) = points[-2:]
    label = "" if link.role in (source.kind, "label events") else link.role
    return Curve(link, path, label, ((x + end_x) / 2, (y + end_y) / 2))


def _at(point: Point) -> str:
    return f"{point[0]:.1f},{point[1]:.1f}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
