"""`rlhf labels import | report | status | upgrade`; cli.py adds those that also need the registry.

With --json, standard output is one JSON document.
"""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sft.config import LabelFormat
from sft.core.errors import UsageError

if TYPE_CHECKING:
    from rlhf.labels.store import LabelStore

app = typer.Typer(
    help="Human preferences: given by people here, or imported; reports, exports.",
    no_args_is_help=True,
)

DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="URL",
        help="sqlite:///FILE or postgresql://USER@HOST/NAME; default: labels.sqlite beside the registry.",
    ),
]
RegistryOption = Annotated[Path, typer.Option("--registry", metavar="DIR", help="Folder of the registry.")]
ProjectOption = Annotated[str, typer.Option("--project", metavar="NAME", help="Project in the database.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
AttributeOption = Annotated[
    str | None, typer.Option("--attribute", metavar="NAME", help="Labels for this instead of the answers as a whole.")
]
REGISTRY = Path("registry")


@app.command("import")
def import_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON lines, JSON, CSV or TSV, plain or gzip.")],
    format: Annotated[
        str, typer.Option("--format", metavar="NAME", help="Of the rows; auto: seen from them.")
    ] = "auto",
    licence: Annotated[str | None, typer.Option("--licence", metavar="TEXT", help="Of the file.")] = None,
    source: Annotated[str | None, typer.Option("--source", metavar="TEXT", help="Where the file comes from.")] = None,
    mapping: Annotated[
        list[str] | None,
        typer.Option("--mapping", metavar="WANTED=FOUND", help="Read column FOUND as WANTED; may be given again."),
    ] = None,
    database: DatabaseOption = None,
    project: ProjectOption = "default",
    as_json: JsonOption = False,
    registry: RegistryOption = REGISTRY,
) -> None:
    """Read a file of preferences into a project: all of it or nothing; rows that are there already are left out."""
    wanted = _format(format)
    columns = _mapping(mapping or [])
    from rlhf.labels.importing.imports import import_file

    store = open_store(database, registry, create=True)
    report = import_file(store, project, file, format=wanted, source=source, licence=licence, mapping=columns)
    show(report.as_dict(), as_json)


@app.command("report")
def report_command(
    attribute: AttributeOption = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the resampling.")] = 0,
    resamples: Annotated[int, typer.Option("--resamples", min=100, help="Of each interval.")] = 1000,
    database: DatabaseOption = None,
    project: ProjectOption = "default",
    as_json: JsonOption = False,
    registry: RegistryOption = REGISTRY,
) -> None:
    """Say how far the labels can be trusted: agreement, annotators, ranking of the models."""
    from rlhf.labels.trust.render import show_sections
    from rlhf.labels.trust.report import trust_report
    from rlhf.labels.trust.report_text import report_sections

    with open_store(database, registry).reading(project) as labels:
        labels.check_attribute(attribute)
        judgements = labels.judgements(attribute)
    found = trust_report(judgements, seed=seed, resamples=resamples)
    if as_json:
        show(found.as_dict(), as_json)
    else:
        show_sections(report_sections(found))


@app.command("status")
def status_command(
    database: DatabaseOption = None,
    project: ProjectOption = "default",
    as_json: JsonOption = False,
    registry: RegistryOption = REGISTRY,
) -> None:
    """Say how far the people are who label: progress, pace, agreement, everybody's numbers."""
    from rlhf.labels.collection.monitor import status
    from rlhf.labels.collection.status_text import status_sections
    from rlhf.labels.trust.render import show_sections

    found = status(open_store(database, registry), project, time.time())
    if as_json:
        show(found.as_dict(), as_json)
    else:
        show_sections(status_sections(found))


@app.command("upgrade")
def upgrade_command(
    database: DatabaseOption = None, as_json: JsonOption = False, registry: RegistryOption = REGISTRY
) -> None:
    """Bring a database that an older version of this program made up to date: all of it or nothing."""
    from rlhf.labels.database import SCHEMA_VERSION, Database
    from rlhf.labels.store import default_url

    opened = Database(database or default_url(registry))
    before = opened.upgrade()
    show({"database": str(opened), "version_before": before, "version": SCHEMA_VERSION}, as_json)


def open_store(database: str | None, registry: Path, *, create: bool = False) -> "LabelStore":
    """Open the database of labels that a command names, or the one beside the registry."""
    from rlhf.labels.store import LabelStore, default_url  # here and above: `rlhf --help` loads no SQLAlchemy

    return LabelStore(database or default_url(registry), create=create)


def _format(name: str) -> LabelFormat:
    known = [format.value for format in LabelFormat]
    if name not in known:
        raise UsageError(f"--format {name} is not known; use one of {', '.join(known)}")
    return LabelFormat(name)


def _mapping(pairs: list[str]) -> dict[str, str]:
    split = [pair.partition("=") for pair in pairs]
    wrong = [pair for pair, (wanted, _, found) in zip(pairs, split, strict=True) if not wanted or not found]
    if wrong:
        raise UsageError(f"--mapping {wrong[0]} is not WANTED=FOUND; write for example --mapping prompt=question")
    mapping = {wanted: found for wanted, _, found in split}
    if len(mapping) < len(split):
        raise UsageError("--mapping names a wanted column twice; give each one once")
    return mapping


def show(document: dict[str, object], as_json: bool) -> None:
    """Print what a command found, as text or as one JSON document."""
    if as_json:
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
        return
    from rlhf.labels.trust import render

    render.show(document)
