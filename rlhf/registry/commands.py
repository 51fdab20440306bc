"""`rlhf models list | show | lineage`: read the registry. With --json, standard output is one JSON document."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rlhf.registry.artifact import Artifact
    from rlhf.registry.store import Registry

REPORT_KINDS = ("evaluation", "bias", "erasure")
"""Kinds of artifacts that report about their parents."""

app = typer.Typer(help="Registered models, labels and reports.", no_args_is_help=True)

RegistryOption = Annotated[Path, typer.Option("--registry", metavar="DIR", help="Folder of the registry.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
RefArgument = Annotated[str, typer.Argument(metavar="REF", help="NAME (its latest version), NAME:VERSION, NAME@ALIAS.")]
NameArgument = Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only versions of this name.")]


@app.command("list")
def list_models(
    name: NameArgument = None, as_json: JsonOption = False, registry: RegistryOption = Path("registry")
) -> None:
    """List what is registered."""
    artifacts = _open(registry).artifacts(name)
    if as_json:
        _print_json([artifact.as_dict() for artifact in artifacts])
    elif not artifacts:
        typer.echo(f"the registry {registry} is empty", err=True)
    else:
        from rlhf.registry import render

        render.show(render.artifact_list(artifacts))


@app.command("show")
def show_model(ref: RefArgument, as_json: JsonOption = False, registry: RegistryOption = Path("registry")) -> None:
    """Show one artifact: path, digest, aliases, parents, reports, metrics."""
    store = _open(registry)
    artifact = store.get(ref)
    reports = _reports(store, artifact)
    if as_json:
        _print_json({**artifact.as_dict(), "reports": reports})
    else:
        from rlhf.registry import render

        render.show(render.artifact_page(artifact, reports))


@app.command("lineage")
def show_lineage(ref: RefArgument, as_json: JsonOption = False, registry: RegistryOption = Path("registry")) -> None:
    """Show what an artifact was made from and what was made from it."""
    lineage = _open(registry).lineage(ref)
    if as_json:
        _print_json(lineage.as_dict())
    else:
        from rlhf.registry import render

        render.show(render.lineage_tree(lineage))


def _open(root: Path) -> "Registry":
    from rlhf.registry.store import Registry  # here and above: `rlhf --help` loads neither SQLAlchemy nor rich's tables

    return Registry(root, create=False)


def _reports(store: "Registry", artifact: "Artifact") -> list[str]:
    """Return the references of the reports made about this very artifact, each once."""
    lineage = store.lineage(artifact.ref)
    made = (edge.child_ref for edge in lineage.descendants if edge.parent_ref == artifact.ref)
    return list(dict.fromkeys(ref for ref in made if lineage.kinds[ref] in REPORT_KINDS))


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
