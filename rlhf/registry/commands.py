"""`rlhf models list | show | diff | verify`: read the registry. With --json, output is one JSON document."""

from typing import TYPE_CHECKING, Annotated

import typer

from rlhf.registry.changes import discard_command, gc_command, promote_command, tag_command, upgrade_command
from rlhf.registry.options import (
    REGISTRY,
    JsonOption,
    RefArgument,
    RegistryOption,
    UrlOption,
    open_registry,
    print_json,
)
from sft.core.values import counted

if TYPE_CHECKING:
    from rlhf.registry.artifact import Artifact
    from rlhf.registry.store import Registry

app = typer.Typer(help="Registered models, labels and reports.", no_args_is_help=True)
app.command("promote")(promote_command)
app.command("tag")(tag_command)
app.command("gc")(gc_command)
app.command("discard")(discard_command)
app.command("upgrade")(upgrade_command)

NameArgument = Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only versions of this name.")]


@app.command("list")
def list_models(
    name: NameArgument = None,
    removed: Annotated[bool, typer.Option("--all", help="Also versions that were removed.")] = False,
    as_json: JsonOption = False,
    registry: RegistryOption = REGISTRY,
    url: UrlOption = None,
) -> None:
    """List what is registered."""
    artifacts = open_registry(registry, url).artifacts(name, removed=removed)
    if as_json:
        print_json([artifact.as_dict() for artifact in artifacts])
    elif not artifacts:
        typer.echo(f"the registry {registry} is empty", err=True)
    else:
        from rlhf.registry import render

        render.show_list(artifacts)


@app.command("show")
def show_model(
    ref: RefArgument, as_json: JsonOption = False, registry: RegistryOption = REGISTRY, url: UrlOption = None
) -> None:
    """Show one artifact: path, digest, aliases, tags, parents, reports, promotions, metrics."""
    from rlhf.registry.copies import came_in, copies

    store = open_registry(registry, url)
    artifact = store.get(ref, removed=True)
    reports = _reports(store, artifact)
    promotions = store.promotions(artifact)
    same_files = copies(store.artifacts()).get(artifact.ref, []) if came_in(artifact) else []
    if as_json:
        listed = [promotion.as_dict() for promotion in promotions]
        same = {"same_files": same_files} if came_in(artifact) else {}
        print_json({**artifact.as_dict(), "reports": reports, "promotions": listed, **same})
    else:
        from rlhf.registry import render

        render.show(render.artifact_page(artifact, reports, promotions, same_files))


@app.command("diff")
def show_difference(
    a: Annotated[str, typer.Argument(metavar="A", help="NAME, NAME:VERSION or NAME@ALIAS.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Likewise.")],
    as_json: JsonOption = False,
    registry: RegistryOption = REGISTRY,
    url: UrlOption = None,
) -> None:
    """Show what differs between two versions: settings, metrics with intervals, parents, files by digest."""
    from rlhf.registry.difference import difference

    store = open_registry(registry, url)
    found = difference(store.get(a), store.get(b))
    if as_json:
        print_json(found.as_dict())
    else:
        from rlhf.registry import render

        render.show(render.difference_page(found))


@app.command("verify")
def verify_models(
    ref: Annotated[str | None, typer.Argument(metavar="[REF]", help="Only this version; default: all.")] = None,
    as_json: JsonOption = False,
    registry: RegistryOption = REGISTRY,
    url: UrlOption = None,
) -> None:
    """Compare every file with what was registered, bit for bit; exit with 1 and name each file that differs."""
    store = open_registry(registry, url)
    artifacts = store.artifacts() if ref is None else [store.get(ref)]
    problems = store.verify(artifacts)
    if as_json:
        print_json({"ok": not problems, "verified": [artifact.ref for artifact in artifacts], "problems": problems})
    else:
        for problem in problems:
            typer.echo(problem)
        typer.echo(f"{counted(len(artifacts), 'version')} verified, {counted(len(problems), 'problem')}", err=True)
        if problems:
            typer.echo(
                "restore what is named from a copy, or give a damaged version up with `rlhf models discard REF`: what "
                "made it makes it again",
                err=True,
            )
    if problems:
        raise typer.Exit(1)


def _reports(store: "Registry", artifact: "Artifact") -> list[str]:
    """Return the references of the reports that this very artifact had a part in, each once."""
    from rlhf.registry.reports import subject_roles

    lineage = store.lineage(artifact.ref)
    made = (edge.child_ref for edge in lineage.descendants if edge.parent_ref == artifact.ref)
    return list(dict.fromkeys(ref for ref in made if subject_roles(lineage.kinds[ref])))
