"""A frozen dataset of a project's labels: rows, a datasheet, and `export.json`, which pins the label events.

The same labels give the same bytes: nothing in the folder tells the time or the place of the export. An export is made
in three steps, so that a kill between any two leaves nobody's labels in a dataset that an erasure does not know:
`write_export` into a draft, `remember` which events it uses, and publish it while `keeping` them.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from rlhf.labels.events import EventIds, count_ids, ranges
from rlhf.labels.exporting.datasheet import Facts, datasheet
from rlhf.labels.exporting.export_rows import WRITERS, Chosen, ExportFormat
from rlhf.labels.store import Exported, LabelStore, Project, ProjectLabels, record_export
from rlhf.labels.tables import EVENT
from sft.core.durable import MANIFEST, file_digest, make_folder, seal, write_json, write_text
from sft.core.errors import DataError, UsageError

DATASHEET, FACTS = "README.md", "export.json"


class ExportRequest(NamedTuple):
    """Which labels to export, and how."""

    project: str
    format: ExportFormat
    attribute: str | None = None
    """Such as "helpful"; None: the answers as a whole."""
    rebuild: str | None = None
    """Digest of an earlier export (or its start), whose very labels, format and attribute hold, whatever was edited."""


class ExportedDataset(NamedTuple):
    """What an export holds; all of it but the digest and what follows it stands in its `export.json`."""

    project: str
    format: ExportFormat
    attribute: str | None
    counts: dict[str, int]
    """`rows` written, `labels` used, `tasks` they are about, `annotators` known, and what was left `undecided`."""
    event_ids: EventIds
    """Ranges of the label events that were used."""
    digest: str
    """sha256 of the manifest, hence of every file; the same labels give the same one."""
    annotators: tuple[str, ...] = ()
    """Pseudonyms, sorted; not in the folder, where the rows of some formats name nobody."""
    origins: Mapping[str, Mapping[str, int]] = MappingProxyType({})
    """How many events each of `annotators`, `sources`, `licences` and `guidelines` has; the folder has most as text."""

    def facts(self) -> dict[str, object]:
        """Return what `export.json` holds."""
        return {
            "project": self.project,
            "format": self.format.value,
            "attribute": self.attribute,
            "counts": self.counts,
            "event_ids": [list(span) for span in self.event_ids],
        }


def write_export(store: LabelStore, request: ExportRequest, folder: Path) -> ExportedDataset:
    """Write the labels that are asked for into a folder, which does not exist yet, and seal it.

    Raises:
        UsageError: the project, the earlier export or the attribute is not there.
        DataError: there is nothing to export, or labels of the earlier export have been erased.
        StorageError: the disk or the database refuses.
    """
    project, facts = request.project, Facts()
    make_folder(folder)
    with store.reading(project) as labels:
        chosen = _chosen(labels, request)
        rows = WRITERS[chosen.format](labels, chosen, folder, facts)
    event_ids = ranges(facts.event_ids)
    if chosen.only is not None:
        _check_whole(count_ids(event_ids), chosen.only, "export again without --rebuild")
    if not rows:
        raise DataError(f"project {project!r} has nothing to export as {chosen.format.value}; label or import first")
    counts = {
        "rows": rows,
        "labels": len(facts.event_ids),
        "tasks": len(facts.tasks),
        "undecided": facts.undecided,
        "annotators": len(facts.people),
    }
    made = ExportedDataset(
        project,
        chosen.format,
        chosen.attribute,
        counts,
        event_ids,
        digest="",
        annotators=tuple(sorted(facts.people)),
        origins={
            "annotators": dict(facts.people),
            "sources": dict(facts.sources),
            "licences": dict(facts.licences),
            "guidelines": dict(facts.guidelines),
        },
    )
    write_text(folder / DATASHEET, datasheet(project, chosen.format.value, chosen.attribute, counts, facts))
    write_json(folder / FACTS, made.facts())
    return made._replace(digest=seal(folder))


def remember(store: LabelStore, made: ExportedDataset) -> None:
    """Record which events an export uses, once. Raises DataError if some have been erased since it was written."""
    with store.changing(made.project) as (connection, project):
        _check_kept(connection, project, made)
        record_export(connection, project, Exported(made.digest, made.format.value, made.attribute, made.event_ids))


@contextmanager
def keeping(store: LabelStore, made: ExportedDataset) -> Iterator[None]:
    """Let nobody be erased while an export is published. Raises DataError if somebody was, since it was written."""
    with store.changing(made.project) as (connection, project):
        _check_kept(connection, project, made)
        yield


def read_facts(folder: Path) -> ExportedDataset:
    """Return what an export says of itself, without its annotators; no file but the two is read.

    Raises:
        DataError: the folder is no export.
    """
    try:
        found = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        return ExportedDataset(
            project=str(found["project"]),
            format=ExportFormat(found["format"]),
            attribute=found["attribute"],
            counts=dict(found["counts"]),
            event_ids=[(first, last) for first, last in found["event_ids"]],
            digest=file_digest(folder / MANIFEST),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} is no export of labels; make one with `rlhf labels export`") from error


def _check_kept(connection: Connection, project: Project, made: ExportedDataset) -> None:
    _check_whole(_count_events(connection, project, made.event_ids), made.event_ids, "run the same command again")


def _check_whole(found: int, wanted: EventIds, remedy: str) -> None:
    missing = count_ids(wanted) - found
    if missing:
        raise DataError(f"{missing} of {count_ids(wanted)} labels of this export have been erased; {remedy}")


def _chosen(labels: ProjectLabels, request: ExportRequest) -> Chosen:
    format, attribute = request.format, request.attribute
    if request.rebuild is not None:
        earlier = labels.export(request.rebuild)
        return Chosen(ExportFormat(earlier.format), earlier.attribute, earlier.event_ids)
    if format is not ExportFormat.EVENTS:
        labels.check_attribute(attribute)
    elif attribute is not None:
        raise UsageError("an export of events holds every attribute; leave --attribute out, or choose another --format")
    return Chosen(format, attribute, None)


def _count_events(connection: Connection, project: Project, event_ids: EventIds) -> int:
    """Return how many of these events are still there."""
    mine = EVENT.c.project_id == project.id
    spans = (select(func.count()).where(mine, EVENT.c.id.between(first, last)) for first, last in event_ids)
    return sum(connection.scalar(span) or 0 for span in spans)
