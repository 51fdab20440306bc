"""A picture of a graph without cycles, from left to right: columns, order within them, heights, and edges as curves.

Source: Sugiyama, Tagawa & Toda 1981, "Methods for visual understanding of hierarchical system structures", with the
barycentre of the neighbours for the order; heights are the least-squares ones that keep order and distance (pool
adjacent violators). An edge over several columns passes through one invisible point in each.

Letters: all lengths are in pixels; y grows downwards.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import NamedTuple

_SWEEPS = 12

Edge = tuple[str, str]
"""(from, to)."""
Point = tuple[float, float]
_Slot = tuple[str, ...]
"""A node (its name), or the point of an edge in a column (from, to, number of the column)."""


class Sizes(NamedTuple):
    """Of everything in the picture."""

    width: float
    """Of a node."""
    column_gap: float
    row_gap: float
    """Between two nodes of a column, at least."""
    lane: float = 14.0
    """Height that an edge takes where it passes a column."""


class Box(NamedTuple):
    """Where a node stands: its upper left corner."""

    x: float
    y: float
    height: float


class Layout(NamedTuple):
    """Where everything stands; the upper left corner is (0, 0)."""

    boxes: dict[str, Box]
    paths: dict[Edge, list[Point]]
    """The points of each edge: two a column that it touches, from the right side of a node to the left side of one."""
    width: float
    height: float


def lay_out(heights: Mapping[str, float], edges: Iterable[Edge], sizes: Sizes, pinned: Mapping[str, int]) -> Layout:
    """Return where nodes and edges of a graph go.

    Args:
        heights: of each node, in the order that breaks ties; nothing gives an empty picture.
        edges: between these nodes, each once; together they form no cycle.
        sizes: of everything.
        pinned: columns that nodes must stand in, none to the right of what they lead to.
    """
    links = list(dict.fromkeys(edges))
    column = columns(list(heights), links, pinned)
    chains = {link: _chain(link, column) for link in links}
    segments = [pair for chain in chains.values() for pair in pairwise(chain)]
    filled = _order(_fill(heights, chains, column), segments)
    tall = {slot: heights[slot[0]] if len(slot) == 1 else sizes.lane for slots in filled for slot in slots}
    middle = _middles(filled, segments, tall, sizes.row_gap)
    top = min((middle[slot] - tall[slot] / 2 for slot in middle), default=0.0)
    pitch = sizes.width + sizes.column_gap
    place = {slot: (number * pitch, middle[slot] - top) for number, slots in enumerate(filled) for slot in slots}
    boxes = {name: Box(place[(name,)][0], place[(name,)][1] - heights[name] / 2, heights[name]) for name in heights}
    return Layout(
        boxes,
        {link: _points([place[slot] for slot in chain], sizes.width) for link, chain in chains.items()},
        max(0.0, len(filled) * pitch - sizes.column_gap),
        max((box.y + box.height for box in boxes.values()), default=0.0),
    )


def columns(names: Sequence[str], edges: Sequence[Edge], pinned: Mapping[str, int]) -> dict[str, int]:
    """Return the column of each node: right of all that leads to it, and as far right as what it leads to allows.

    Nodes that lead nowhere stand as far left as they can.
    """
    before, after = _neighbours(edges)
    ordered = _topological(names, before)
    earliest: dict[str, int] = {}
    for name in ordered:
        least = max((earliest[other] + 1 for other in before[name]), default=0)
        earliest[name] = max(least, pinned.get(name, 0))
    latest: dict[str, int] = {}
    for name in reversed(ordered):
        most = min((latest[other] - 1 for other in after[name]), default=earliest[name])
        latest[name] = pinned.get(name, most) if earliest[name] == pinned.get(name) else most
    first = min(latest.values(), default=0)
    return {name: latest[name] - first for name in names}


def spread(wanted: Sequence[float], distances: Sequence[float]) -> list[float]:
    """Return the positions nearest to those wanted, in least squares, that keep their order and these distances.

    Args:
        wanted: of each item.
        distances: of each item from the one before; one fewer than items.
    """
    offsets = [0.0]
    for distance in distances:
        offsets.append(offsets[-1] + distance)
    blocks: list[list[float]] = []
    for position, offset in zip(wanted, offsets, strict=False):
        blocks.append([position - offset])
        while len(blocks) > 1 and fmean(blocks[-2]) > fmean(blocks[-1]):
            last = blocks.pop()
            blocks[-1] += last
    level = [fmean(block) for block in blocks for _ in block]
    return [base + offset for base, offset in zip(level, offsets, strict=False)]


def crossings(order: Sequence[Sequence[_Slot]], segments: Iterable[tuple[_Slot, _Slot]]) -> int:
    """Return how many pairs of edge pieces between neighbouring columns cross."""
    place = {slot: (column, row) for column, slots in enumerate(order) for row, slot in enumerate(slots)}
    between: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for a, b in segments:
        between[place[a][0]].append((place[a][1], place[b][1]))
    return sum(
        (a[0] - b[0]) * (a[1] - b[1]) < 0
        for rows in between.values()
        for number, a in enumerate(rows)
        for b in rows[:number]
    )


def _neighbours(edges: Iterable[tuple[str, str]]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    before: dict[str, list[str]] = defaultdict(list)
    after: dict[str, list[str]] = defaultdict(list)
    for a, b in edges:
        after[a].append(b)
        before[b].append(a)
    return before, after


def _topological(names: Sequence[str], before: Mapping[str, Sequence[str]]) -> list[str]:
    found: dict[str, None] = {}
    waiting = list(reversed(names))
    while waiting:
        name = waiting[-1]
        missing = [other for other in before.get(name, ()) if other not in found]
        if missing:
            assert len(waiting) <= 2 * len(names) ** 2, "the graph has a cycle"
            waiting += missing
        else:
            found[waiting.pop()] = None
    return list(found)


def _chain(edge: Edge, column: Mapping[str, int]) -> list[_Slot]:
    a, b = edge
    between: list[_Slot] = [(a, b, str(number)) for number in range(column[a] + 1, column[b])]
    return [(a,), *between, (b,)]


def _fill(names: Iterable[str], chains: Mapping[Edge, Sequence[_Slot]], column: Mapping[str, int]) -> list[list[_Slot]]:
    filled: list[list[_Slot]] = [[] for _ in range(max(column.values(), default=-1) + 1)]
    for name in names:
        filled[column[name]].append((name,))
    for chain in chains.values():
        for slot in chain[1:-1]:
            filled[int(slot[2])].append(slot)
    return filled


def _order(filled: list[list[_Slot]], segments: Sequence[tuple[_Slot, _Slot]]) -> list[list[_Slot]]:
    """Return the columns with their slots in an order with few crossings."""
    before: dict[_Slot, list[_Slot]] = defaultdict(list)
    after: dict[_Slot, list[_Slot]] = defaultdict(list)
    for a, b in segments:
        after[a].append(b)
        before[b].append(a)
    order = best = [list(slots) for slots in filled]
    for sweep in range(_SWEEPS):
        rightwards = sweep % 2 == 0
        neighbours = before if rightwards else after
        row = {slot: float(number) for slots in order for number, slot in enumerate(slots)}
        sorted_columns: list[list[_Slot]] = []
        for slots in order if rightwards else reversed(order):
            centre = {
                slot: fmean(row[other] for other in neighbours[slot]) if neighbours[slot] else row[slot]
                for slot in slots
            }
            ranked = sorted(slots, key=lambda slot: centre[slot])
            row |= {slot: float(number) for number, slot in enumerate(ranked)}
            sorted_columns.append(ranked)
        order = sorted_columns if rightwards else sorted_columns[::-1]
        if crossings(order, segments) < crossings(best, segments):
            best = order
    return best


def _middles(
    order: Sequence[Sequence[_Slot]],
    segments: Iterable[tuple[_Slot, _Slot]],
    tall: Mapping[_Slot, float],
    gap: float,
) -> dict[_Slot, float]:
    """Return the height of each slot's middle: near its neighbours' mean, in order, not too near to the next one."""
    near: dict[_Slot, list[_Slot]] = defaultdict(list)
    for a, b in segments:
        near[a].append(b)
        near[b].append(a)
    distances = [[(tall[a] + tall[b]) / 2 + gap for a, b in pairwise(slots)] for slots in order]
    middle: dict[_Slot, float] = {}
    for slots, apart in zip(order, distances, strict=True):
        middle |= dict(zip(slots, spread([0.0] * len(slots), apart), strict=True))
    for sweep in range(_SWEEPS):
        for slots, apart in list(zip(order, distances, strict=True))[:: 1 if sweep % 2 == 0 else -1]:
            wanted = [fmean([middle[other] for other in near[slot]] or [middle[slot]]) for slot in slots]
            middle |= dict(zip(slots, spread(wanted, apart), strict=True))
    return middle


def _points(places: Sequence[Point], width: float) -> list[Point]:
    """Return an edge's points: out of a node's right side, across every column, into a node's left side."""
    (x, y), *between, (end_x, end_y) = places
    return [(x + width, y), *(point for a, b in between for point in ((a, b), (a + width, b))), (end_x, end_y)]
