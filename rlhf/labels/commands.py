"""`rlhf labels import | report | export | erase`. With --json, standard output is one JSON document."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sft.config import LabelFormat
from sft.core.errors import UsageError

if TYPE_CHECKING:
    from rlhf.labels.store import LabelStore

EXPORT_FORMATS = ("trl", "kto", "events", "csv", "dataset")

app = typer.Typer(help="Human preferences: import, report, export, erase.", no_args_is_help=True)

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
    from rlhf.labels.imports import import_file

    store = _open(database, registry, create=True)
    report = import_file(store, project, file, format=wanted, source=source, licence=licence, mapping=columns)
    _show(report.as_dict(), as_json)


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
    from rlhf.labels.trust import trust_report

    with _open(database, registry).reading(project) as labels:
        labels.check_attribute(attribute)
        judgements = labels.judgements(attribute)
    _show(trust_report(judgements, seed=seed, resamples=resamples).as_dict(), as_json)


@app.command("export")
def export_command(
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="A folder that does not exist yet.")],
    format: Annotated[str, typer.Option("--format", metavar="NAME", help=", ".join(EXPORT_FORMATS))] = "trl",
    attribute: AttributeOption = None,
    rebuild: Annotated[
        str | None, typer.Option("--rebuild", metavar="DIGEST", help="Write the labels of an earlier export again.")
    ] = None,
    database: DatabaseOption = None,
    project: ProjectOption = "default",
    as_json: JsonOption = False,
    registry: RegistryOption = REGISTRY,
) -> None:
    """Write the labels as a frozen dataset with a datasheet; annotators appear by pseudonym."""
    if format not in EXPORT_FORMATS:
        raise UsageError(f"--format {format} is not known; use one of {', '.join(EXPORT_FORMATS)}")
    from rlhf.labels.export import ExportFormat, export_labels

    store = _open(database, registry)
    made = export_labels(store, project, output, format=ExportFormat(format), attribute=attribute, rebuild=rebuild)
    _show(made.as_dict(), as_json)


@app.command("erase")
def erase_command(
    annotator: Annotated[str, typer.Argument(metavar="ANNOTATOR", help="Name, as the imported file has it.")],
    database: DatabaseOption = None,
    project: ProjectOption = "default",
    as_json: JsonOption = False,
    registry: RegistryOption = REGISTRY,
) -> None:
    """Remove a person's name, labels and free texts for good; list the exports that used the labels."""
    _show(_open(database, registry).erase(project, annotator)._asdict(), as_json)


def _open(database: str | None, registry: Path, *, create: bool = False) -> "LabelStore":
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


def _show(document: dict[str, object], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
        return
    from rlhf.labels.render import show

    show(document)
