"""The registry on a terminal: tables and trees of rich. In a pipe or a file the same, plain and unwrapped."""

import sys
from collections.abc import Sequence
from itertools import islice

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from rlhf.registry.artifact import Artifact
from rlhf.registry.lineage import Lineage

_PLAIN_WIDTH = 500
_SHOWN_CHAINS = 30


def show(renderable: RenderableType) -> None:
    """Print to standard output."""
    width = None if sys.stdout.isatty() else _PLAIN_WIDTH
    Console(width=width, markup=False, highlight=False).print(renderable)


def artifact_list(artifacts: Sequence[Artifact]) -> RenderableType:
    """Return one line per artifact."""
    table = Table(*("name", "version", "kind", "aliases", "created", "made from"), box=_box())
    for artifact in artifacts:
        parents = ", ".join(dict.fromkeys(parent.ref for parent in artifact.parents))
        aliases = ", ".join(artifact.aliases)
        table.add_row(artifact.name, str(artifact.version), artifact.kind, aliases, artifact.created_at, parents or "-")
    return table


def artifact_page(artifact: Artifact, reports: Sequence[str]) -> RenderableType:
    """Return everything about one artifact; `reports` are the references of reports about it."""
    table = Table.grid(padding=(0, 2))
    table.add_row("artifact", Text(artifact.ref, style="bold"))
    table.add_row("kind", artifact.kind)
    table.add_row("path", str(artifact.path))
    table.add_row("sha256", artifact.sha256)
    table.add_row("fingerprint", artifact.fingerprint)
    table.add_row("created", artifact.created_at)
    table.add_row("aliases", ", ".join(artifact.aliases) or "-")
    table.add_row("parents", "\n".join(f"{ref} ({role})" for role, ref in artifact.parents) or "-")
    table.add_row("reports", "\n".join(reports) or "-")
    metrics = artifact.metadata.get("metrics")
    if not isinstance(metrics, dict) or not metrics:
        return table
    return Group(table, "", _metrics(metrics))


def lineage_tree(lineage: Lineage) -> RenderableType:
    """Return the ways that led to an artifact, one a line, and a tree of what was made from it."""
    tree = Tree(Text(_named(lineage, lineage.ref), style="bold"))
    origins = tree.add("made from")
    if not lineage.ancestors:
        origins.add("nothing that is registered")
    else:
        chains = lineage.chains()
        for chain in islice(chains, _SHOWN_CHAINS):
            origins.add(" -> ".join(chain))
        if next(chains, None) is not None:
            origins.add("... more ways: --json has every edge once")
    _add_descendants(tree.add("led to"), lineage)
    return tree


def _add_descendants(branch: Tree, lineage: Lineage) -> None:
    if not lineage.descendants:
        branch.add("nothing that is registered")
    branches = {lineage.ref: branch}
    used = {edge.parent_ref for edge in lineage.descendants}
    for child, role, parent in lineage.descendants:
        label = f"{_named(lineage, child)}, used as {role}"
        if child in branches:
            branches[parent].add(f"{label} (what it led to stands at its other line)" if child in used else label)
        else:
            branches[child] = branches[parent].add(label)


def _named(lineage: Lineage, ref: str) -> str:
    return f"{ref} [{lineage.kinds[ref]}]"


def _metrics(metrics: dict[str, object]) -> Table:
    table = Table("metric", "value", box=_box())
    for name, value in metrics.items():
        table.add_row(Text(name), Text(f"{value:.6g}" if isinstance(value, float) else str(value)))
    return table


def _box() -> box.Box | None:
    return box.SIMPLE_HEAD if sys.stdout.isatty() else None
