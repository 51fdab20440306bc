"""Who was made from whom: a walk over the parents of all artifacts, up and down."""

from collections import defaultdict, deque
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Edge(NamedTuple):
    """`child_ref` was made from `parent_ref`, which it used as `role`."""

    child_ref: str
    role: str
    parent_ref: str


@dataclass(frozen=True)
class Lineage:
    """Everything that `ref` was made from and everything made from it, of every kind; each edge once."""

    ref: str
    ancestors: tuple[Edge, ...]
    """Nearest first."""
    descendants: tuple[Edge, ...]
    """Nearest first."""
    kinds: Mapping[str, str]
    """The kind of `ref` and of every artifact on an edge."""
    removed: tuple[str, ...] = ()
    """Those of them that are not there any more, sorted."""

    def chains(self) -> Iterator[tuple[str, ...]]:
        """Yield each way from an artifact without parents down to `ref`; many ways may exist, so take what you need."""
        parents: dict[str, dict[str, None]] = defaultdict(dict)
        for edge in self.ancestors:
            parents[edge.child_ref][edge.parent_ref] = None
        unfinished: list[tuple[str, ...]] = [(self.ref,)]
        while unfinished:
            chain = unfinished.pop()
            longer = [(parent, *chain) for parent in parents.get(chain[0], {})]
            if not longer:
                yield chain
            unfinished += reversed(longer)

    def as_dict(self) -> dict[str, object]:
        """Return the lineage as JSON values."""
        return {
            "ref": self.ref,
            "ancestors": [edge._asdict() for edge in self.ancestors],
            "descendants": [edge._asdict() for edge in self.descendants],
            "kinds": dict(self.kinds),
            "removed": list(self.removed),
        }


def trace(ref: str, edges: Sequence[Edge], kinds: Mapping[str, str], removed: Container[str] = ()) -> Lineage:
    """Return the lineage of `ref`.

    Args:
        ref: of the artifact.
        edges: all of the registry.
        kinds: of each artifact on them and of `ref`.
        removed: what is not there any more.
    """
    by_child: dict[str, list[Edge]] = defaultdict(list)
    by_parent: dict[str, list[Edge]] = defaultdict(list)
    for edge in edges:
        by_child[edge.child_ref].append(edge)
        by_parent[edge.parent_ref].append(edge)
    ancestors = _walk(ref, by_child, up=True)
    descendants = _walk(ref, by_parent, up=False)
    reached = sorted({ref, *(r for edge in ancestors + descendants for r in (edge.child_ref, edge.parent_ref))})
    return Lineage(
        ref, ancestors, descendants, {r: kinds[r] for r in reached}, tuple(r for r in reached if r in removed)
    )


def _walk(start: str, edges_at: Mapping[str, Sequence[Edge]], *, up: bool) -> tuple[Edge, ...]:
    """Return the edges reached breadth first, so that an edge comes after one that leads to it."""
    found: list[Edge] = []
    seen = {start}
    waiting = deque([start])
    while waiting:
        for edge in edges_at.get(waiting.popleft(), ()):
            found.append(edge)
            next_ref = edge.parent_ref if up else edge.child_ref
            if next_ref not in seen:
                seen.add(next_ref)
                waiting.append(next_ref)
    return tuple(found)
