"""The registry on a terminal: tables and trees of rich. In a pipe or a file the same, plain and unwrapped."""

import re
import sys
from collections.abc import Sequence
from itertools import islice

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from rlhf.registry.artifact import Artifact
from rlhf.registry.copies import came_in
from rlhf.registry.difference import Difference
from rlhf.registry.lineage import Lineage
from rlhf.registry.promotion import Promotion
from rlhf.registry.sweep import Swept
from sft.core.values import counted
from sft.core.visible import visible

_DIGEST = re.compile(r"[0-9a-f]{64}")
_HEADER = ("name", "version", "kind", "aliases", "tags", "created", "made from")
_PLAIN_WIDTH = 500
_SHOWN_CHAINS = 30


def show(renderable: RenderableType) -> None:
    """Print to standard output."""
    width = None if sys.stdout.isatty() else _PLAIN_WIDTH
    Console(width=width, markup=False, highlight=False).print(renderable)


def show_list(artifacts: Sequence[Artifact]) -> None:
    """Print one line per artifact; without rich, which takes half a second for a thousand."""
    rows = [_HEADER, *map(_row, artifacts)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _row(artifact: Artifact) -> tuple[str, ...]:
    parents = ", ".join(dict.fromkeys(parent.ref for parent in artifact.parents)) or "-"
    aliases = ", ".join(artifact.aliases) if artifact.removed_at is None else "(removed)"
    tags = ", ".join(map(str, artifact.tags))
    return artifact.name, str(artifact.version), artifact.kind, aliases, tags, artifact.created_at, parents


def artifact_page(
    artifact: Artifact, reports: Sequence[str], promotions: Sequence[Promotion], same_files: Sequence[str]
) -> RenderableType:
    """Return everything about one artifact.

    Args:
        artifact: to show.
        reports: references of reports about it.
        promotions: of it.
        same_files: of a model from a folder, the versions that have the same files.
    """
    table = Table.grid(padding=(0, 2))
    table.add_row("artifact", Text(artifact.ref, style="bold"))
    table.add_row("kind", artifact.kind)
    table.add_row("path", str(artifact.path))
    table.add_row("sha256", artifact.sha256)
    table.add_row("fingerprint", artifact.fingerprint)
    table.add_row("created", artifact.created_at)
    if artifact.removed_at is not None:
        table.add_row("removed", artifact.removed_at)
    table.add_row("aliases", ", ".join(artifact.aliases) or "-")
    table.add_row("tags", ", ".join(map(str, artifact.tags)) or "-")
    table.add_row("parents", "\n".join(f"{ref} ({role})" for role, ref in artifact.parents) or "-")
    table.add_row("reports", "\n".join(reports) or "-")
    table.add_row("promotions", "\n".join(map(_promotion, promotions)) or "-")
    if came_in(artifact):
        table.add_row("came from", Text(_claim(artifact)))
        table.add_row("same files", "\n".join(same_files) or "-")
    metrics = artifact.metadata.get("metrics")
    if not isinstance(metrics, dict) or not metrics:
        return table
    return Group(table, "", _metrics(metrics))


def difference_page(found: Difference) -> RenderableType:
    """Return what differs between two versions, and how much is equal."""
    parts: list[RenderableType] = []
    named = (("settings and facts", found.facts), ("parents", found.parents), ("files", found.files))
    if found.metrics:
        table = Table("metric", found.a, found.b, "change", "intervals overlap", box=_box())
        for metric in found.metrics:
            overlap = {None: "-", True: "yes", False: "no"}[metric.overlap]
            change = "-" if metric.change is None else f"{metric.change:+.6g}"
            table.add_row(*map(Text, (metric.name, _value(metric.a), _value(metric.b), change, overlap)))
        parts += [table, ""]
    for title, changes in named:
        if changes:
            table = Table(title, found.a, found.b, box=_box())
            for name, a, b in changes:
                table.add_row(*map(Text, (name, _value(a), _value(b))))
            parts += [table, ""]
    equal = ", ".join(f"{count} {name}" for name, count in found.same.items())
    return Group(*parts, f"equal in {found.a} and {found.b}: {equal}")


def sweep_page(swept: Swept) -> RenderableType:
    """Return what may go or is gone, and what was left alone."""
    parts: list[RenderableType] = []
    if swept.found:
        table = Table("what", "why", "MB", box=_box())
        for useless in swept.found:
            table.add_row(Text(useless.what), useless.why, f"{useless.size / 1e6:.1f}")
        parts.append(table)
    parts += [f"{owner} is at work: no version goes until it ends" for owner in swept.busy]
    parts += [f"{path}: not the registry's, left alone" for path in swept.not_ours]
    total = f"{counted(len(swept.found), 'thing')}, {sum(useless.size for useless in swept.found) / 1e6:.1f} MB"
    parts.append(f"removed: {total}" if swept.removed else f"nothing was removed; with --yes: {total}")
    return Group(*map(_plain, parts))


def lineage_tree(lineage: Lineage) -> RenderableType:
    """Return the ways that led to an artifact, one a line, and a tree of what was made from it."""
    tree = Tree(Text(_named(lineage, lineage.ref), style="bold"))
    origins = tree.add("made from")
    if not lineage.ancestors:
        origins.add("nothing that is registered")
    else:
        chains = lineage.chains()
        for chain in islice(chains, _SHOWN_CHAINS):
            origins.add(" -> ".join(_marked(lineage, ref) for ref in chain))
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
    return f"{_marked(lineage, ref)} [{lineage.kinds[ref]}]"


def _marked(lineage: Lineage, ref: str) -> str:
    return f"{ref} (removed)" if ref in lineage.removed else ref


def _promotion(promotion: Promotion) -> str:
    said = {True: "passed", False: "did not pass", None: "holds no verdict"}
    verdicts = ", ".join(f"{verdict.report} {said[verdict.passed]}" for verdict in promotion.verdicts) or "no reports"
    forced = "" if promotion.reason is None else f"; forced: {promotion.reason}"
    return f"{promotion.alias}, {promotion.created_at}, by {promotion.asked_by}: {verdicts}{forced}"


def _claim(artifact: Artifact) -> str:
    imported = artifact.metadata.get("imported")
    said = imported.get("said") if isinstance(imported, dict) else None
    words = ", ".join(f"{name} {value}" for name, value in said.items()) if isinstance(said, dict) else ""
    told = f"a folder, which claims (not checked): {words or 'nothing'}; see rlhf models lineage {artifact.ref}"
    return visible(told)


def _plain(part: RenderableType) -> RenderableType:
    return Text(part) if isinstance(part, str) else part


def _value(value: object) -> str:
    """Return a value for a cell: an estimate with its interval and n, a digest cut short."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict) and value.keys() >= {"value", "ci", "n"}:
        low, high = value["ci"]
        return f"{value['value']:.4g} [{low:.4g}, {high:.4g}] n={value['n']}"
    text = str(value)
    return f"{text[:12]}..." if _DIGEST.fullmatch(text) else text


def _metrics(metrics: dict[str, object]) -> Table:
    table = Table("metric", "value", box=_box())
    for name, value in metrics.items():
        table.add_row(Text(name), Text(_value(value)))
    return table


def _box() -> box.Box | None:
    return box.SIMPLE_HEAD if sys.stdout.isatty() else None
