"""`rlhf labels export | erase`. With --json, standard output is one JSON document."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlhf.labels.commands import (
    REGISTRY,
    AttributeOption,
    DatabaseOption,
    JsonOption,
    ProjectOption,
    RegistryOption,
    open_store,
    show,
)
from rlhf.registry.artifact import DATABASE_FILE, ELSEWHERE_FILE
from rlhf.registry.options import UrlOption
from sft.core.errors import UsageError

if TYPE_CHECKING:
    from rlhf.registry import Registry

EXPORT_FORMATS = ("trl", "kto", "events", "csv", "dataset")


def export_command(
    format: Annotated[str, typer.Option("--format", metavar="NAME", help=", ".join(EXPORT_FORMATS))] = "trl",
    attribute: AttributeOption = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Of the dataset; default: labels-PROJECT[-ATTRIBUTE]."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="DIR", help="A copy, in a folder that does not exist yet.")
    ] = None,
    rebuild: Annotated[
        str | None, typer.Option("--rebuild", metavar="DIGEST", help="Write the labels of an earlier export again.")
    ] = None,
    database: DatabaseOption = None,
    project: ProjectOption = "default",
    as_json: JsonOption = False,
    registry: RegistryOption = REGISTRY,
    registry_url: UrlOption = None,
) -> None:
    """Register the labels as a frozen dataset version with a datasheet; annotators appear by pseudonym.

    The same labels are the same version, under the name that they first had. `rlhf run data.labels=NAME` trains on a
    version of the format csv.
    """
    if format not in EXPORT_FORMATS:
        raise UsageError(f"--format {format} is not known; use one of {', '.join(EXPORT_FORMATS)}")
    from rlhf.labelling.datasets import register_export
    from rlhf.labels.exporting.export import ExportRequest
    from rlhf.labels.exporting.export_rows import ExportFormat
    from rlhf.registry import Registry

    store = open_store(database, registry)
    request = ExportRequest(project, ExportFormat(format), attribute, rebuild)
    show(
        register_export(store, Registry(registry, url=registry_url), request, name=name, output=output).as_dict(),
        as_json,
    )


def erase_command(
    annotator: Annotated[
        str, typer.Argument(metavar="ANNOTATOR", help="Name: of the account, or as the imported file has it.")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    database: DatabaseOption = None,
    project: ProjectOption = "default",
    as_json: JsonOption = False,
    registry: RegistryOption = REGISTRY,
    registry_url: UrlOption = None,
) -> None:
    """Remove a person's name, labels and free texts for good; list every dataset and model that used the labels."""
    from rlhf.labelling.erasure import erase_annotator

    if sys.stdin.isatty() and not yes:
        typer.confirm(f"Remove all that {annotator!r} said in project {project!r}, for good?", abort=True, err=True)
    found = erase_annotator(open_store(database, registry), _existing(registry, registry_url), project, annotator)
    if as_json:
        show(found.as_dict(), as_json)
        return
    show({name: value for name, value in found.as_dict().items() if name != "next"}, as_json)
    for sentence in found.next:
        typer.echo(f"- {sentence}")


def _existing(root: Path, url: str | None) -> "Registry | None":
    if url is None and not any((root / name).is_file() for name in (DATABASE_FILE, ELSEWHERE_FILE)):
        return None
    from rlhf.registry import Registry

    return Registry(root, url=url, create=False)
