"""A frozen dataset of a project's labels: one file of rows, a datasheet, and a manifest that pins the label events.

The same labels give the same bytes: nothing in the folder tells the time or the place of the export. People appear by
pseudonym alone.
"""

import csv
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from rlhf.labels.datasheet import Facts, datasheet
from rlhf.labels.records import Choice, Judgement, TieKind
from rlhf.labels.store import (
    Event,
    EventIds,
    Exported,
    LabelStore,
    ProjectLabels,
    count_events,
    count_ids,
    ranges,
    record_export,
)
from sft.core.durable import make_folder, publish, seal, storage_errors, write_text
from sft.core.errors import DataError, UsageError
from sft.core.text import as_dicts

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""Also the full-width signs, which some spreadsheets take for the plain ones."""
_CSV_COLUMNS = (
    *("prompt", "response_a", "response_b", "label", "annotator", "strength", "model_a", "model_b", "attribute"),
    *("split", "time", "reason", "event_id", "task_id"),
)

Fields = dict[str, object]


class ExportFormat(StrEnum):
    """What the rows of an export are."""

    TRL = "trl"
    """One decided pair a row: `prompt, chosen, rejected` as message lists, and `margin`."""
    KTO = "kto"
    """One answer a row: `prompt, completion` as message lists, and `label`."""
    EVENTS = "events"
    """One event a row, history and skips among them, nothing left out but names."""
    CSV = "csv"
    """One label a row, which `rlhf labels import` reads again."""
    DATASET = "dataset"
    """The rows of `trl` as Hugging Face `Dataset.save_to_disk` writes them."""


class ExportedDataset(NamedTuple):
    """A finished export; what a registry needs to hold it and to tell where it came from."""

    folder: Path
    digest: str
    """sha256 of the manifest, hence of every file; the same labels give the same one."""
    format: ExportFormat
    counts: dict[str, int]
    """`rows` written, `labels` used, and what was left out."""
    event_ids: EventIds
    """Ranges of the label events that were used."""

    def as_dict(self) -> dict[str, object]:
        """Return the fields as JSON values."""
        return {
            "folder": str(self.folder),
            "digest": self.digest,
            "format": self.format.value,
            **self.counts,
            "event_ids": [list(span) for span in self.event_ids],
        }


class _Pair(NamedTuple):
    """A task with its labels, the answers in one order for all, and who gave them."""

    task_id: int
    judgements: list[Judgement]
    people: list[str | None]


def export_labels(
    store: LabelStore,
    project: str,
    folder: Path,
    *,
    format: ExportFormat,
    attribute: str | None = None,
    rebuild: str | None = None,
) -> ExportedDataset:
    """Write the labels that hold now as a sealed folder, and remember which events it used.

    Args:
        store: of labels.
        project: its name.
        folder: does not exist yet, or is empty.
        format: of the rows.
        attribute: such as "helpful"; None: the answers as a whole.
        rebuild: digest of an earlier export (or its start) whose very labels to use, also those that were edited
            since; its format and attribute hold.

    Raises:
        UsageError: the project, the earlier export or the attribute is not there, or the folder is not empty.
        DataError: there is nothing to export, or labels of the earlier export have been erased.
        StorageError: the disk or the database refuses.
    """
    _check_free(folder)
    with _draft(folder) as draft:
        with store.reading(project) as labels:
            chosen = _chosen(labels, format, attribute, rebuild)
            facts = Facts()
            rows = _WRITERS[chosen.format](labels, chosen, draft, facts)
        if not rows:
            raise DataError(
                f"project {project!r} has nothing to export as {chosen.format.value}; label or import first"
            )
        counts = {"rows": rows, "labels": len(facts.event_ids), "tasks": facts.tasks, "undecided": facts.undecided}
        event_ids = ranges(facts.event_ids)
        write_text(draft / "README.md", datasheet(project, chosen.format.value, chosen.attribute, counts, facts))
        about = {"project": project, "format": chosen.format.value, "attribute": chosen.attribute, **counts}
        digest = seal(draft, {**about, "event_ids": event_ids})
        with store.changing(project) as (connection, row):
            _check_whole(count_events(connection, row, event_ids), chosen.only or event_ids)
            record_export(connection, row, Exported(digest, chosen.format.value, chosen.attribute, event_ids))
            publish(draft, folder)
    return ExportedDataset(folder, digest, chosen.format, counts, event_ids)


class _Chosen(NamedTuple):
    """Which labels to write, and how."""

    format: ExportFormat
    attribute: str | None
    only: EventIds | None


def _chosen(labels: ProjectLabels, format: ExportFormat, attribute: str | None, rebuild: str | None) -> _Chosen:
    if rebuild is not None:
        earlier = labels.export(rebuild)
        return _Chosen(ExportFormat(earlier.format), earlier.attribute, earlier.event_ids)
    if format is not ExportFormat.EVENTS:
        labels.check_attribute(attribute)
    return _Chosen(format, attribute, None)


def _check_free(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and next(folder.iterdir(), None) is None):
        raise UsageError(f"{folder} is not empty; give --output a folder that does not exist yet")


def _check_whole(found: int, wanted: EventIds) -> None:
    missing = count_ids(wanted) - found
    if missing:
        raise DataError(
            f"{missing} of {count_ids(wanted)} labels of this export have been erased; export again without --rebuild"
        )


@contextmanager
def _draft(folder: Path) -> Iterator[Path]:
    """Yield a folder beside `folder`, which is gone in the end unless it was moved into its place."""
    make_folder(folder.absolute().parent)
    with storage_errors(folder):
        draft = Path(tempfile.mkdtemp(dir=folder.absolute().parent, prefix=f".{folder.name}.draft-"))
        draft.chmod(0o755)
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


# Rows


def _pairs(labels: ProjectLabels, chosen: _Chosen, facts: Facts) -> Iterator[_Pair]:
    """Yield the tasks one by one, the answers of each in one order for all of its labels."""
    for task_id, group in groupby(labels.labels(chosen.attribute, only=chosen.only), key=lambda event: event.task_id):
        events = [facts.see(event) for event in group]
        facts.tasks += 1
        judgements = [event.judgement for event in events if event.judgement is not None]
        first = judgements[0]
        aligned = [j if j.response_a == first.response_a else j.swapped() for j in judgements]
        yield _Pair(task_id, aligned, [event.pseudonym for event in events])


def _preferences(labels: ProjectLabels, chosen: _Chosen, facts: Facts) -> Iterator[Fields]:
    """Yield TRL's explicit conversational preferences; a pair with as many votes for each answer has none.

    `margin` is the mean strength of the votes for the chosen answer less that of the others (a tie counts 0); there is
    none where a decided label of the pair has no strength.
    """
    for pair in _pairs(labels, chosen, facts):
        votes = Counter(judgement.choice for judgement in pair.judgements)
        if votes[Choice.A] == votes[Choice.B]:
            facts.undecided += 1
            continue
        won = [j if votes[Choice.A] > votes[Choice.B] else j.swapped() for j in pair.judgements]
        margin = _margin(won)
        winner, most = won[0], max(votes[Choice.A], votes[Choice.B])
        yield {
            "prompt": as_dicts(winner.prompt),
            "chosen": _reply(winner.response_a),
            "rejected": _reply(winner.response_b),
            **({} if margin is None else {"margin": margin}),
            "id": pair.task_id,
            "votes": len(won),
            "agreement": most / len(won),
            "ties": votes[Choice.TIE],
            "annotators": sorted({person for person in pair.people if person is not None}),
            "chosen_model": winner.model_a,
            "rejected_model": winner.model_b,
        }


def _margin(won: list[Judgement]) -> float | None:
    signs = {Choice.A: 1.0, Choice.B: -1.0}
    decided = [(signs[j.choice], j.strength) for j in won if j.choice is not Choice.TIE]
    strengths = [sign * strength for sign, strength in decided if strength is not None]
    return sum(strengths) / len(won) if len(strengths) == len(decided) else None


def _unpaired(labels: ProjectLabels, chosen: _Chosen, facts: Facts) -> Iterator[Fields]:
    """Yield TRL's unpaired rows: two a decided pair; two alike where every label says both good, or both bad."""
    for pair in _pairs(labels, chosen, facts):
        votes = Counter(judgement.choice for judgement in pair.judgements)
        kinds = {judgement.tie_kind for judgement in pair.judgements}
        if votes[Choice.A] != votes[Choice.B]:
            good_a, good_b = votes[Choice.A] > votes[Choice.B], votes[Choice.B] > votes[Choice.A]
        elif len(kinds) == 1 and kinds != {None}:
            good_a = good_b = kinds == {TieKind.BOTH_GOOD}
        else:
            facts.undecided += 1
            continue
        judged = pair.judgements[0]
        for answer, label in ((judged.response_a, good_a), (judged.response_b, good_b)):
            yield {"prompt": as_dicts(judged.prompt), "completion": _reply(answer), "label": label, "id": pair.task_id}


def _reply(answer: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": answer}]


def _all_events(labels: ProjectLabels, chosen: _Chosen, facts: Facts) -> Iterator[Fields]:
    for event in labels.events(only=chosen.only):
        facts.see(event)
        yield {
            "event_id": event.id,
            "task_id": event.task_id,
            "kind": event.kind.value,
            "annotator": event.pseudonym,
            **(_judged(event.judgement) if event.judgement is not None else {}),
            "seconds": event.seconds,
            "reason": event.reason,
            "guideline_version": event.guideline_version,
            "source": event.source,
            "licence": event.licence,
        }


def _judged(judgement: Judgement) -> Fields:
    return {
        "prompt": as_dicts(judgement.prompt),
        "response_a": judgement.response_a,
        "response_b": judgement.response_b,
        "label": judgement.choice.value,
        "tie_kind": None if judgement.tie_kind is None else judgement.tie_kind.value,
        "order_known": judgement.order_known,
        "strength": judgement.strength,
        "model_a": judgement.model_a,
        "model_b": judgement.model_b,
        "attribute": judgement.attribute,
        "split": judgement.split,
        "time": judgement.time,
        "row_digest": judgement.digest,
    }


# Files


def _write_lines(path: Path, rows: Iterable[Fields]) -> int:
    written = 0
    with storage_errors(path), path.open("x", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
            written += 1
    return written


def _write_trl(labels: ProjectLabels, chosen: _Chosen, draft: Path, facts: Facts) -> int:
    return _write_lines(draft / "train.jsonl", _preferences(labels, chosen, facts))


def _write_kto(labels: ProjectLabels, chosen: _Chosen, draft: Path, facts: Facts) -> int:
    return _write_lines(draft / "train.jsonl", _unpaired(labels, chosen, facts))


def _write_events(labels: ProjectLabels, chosen: _Chosen, draft: Path, facts: Facts) -> int:
    return _write_lines(draft / "events.jsonl", _all_events(labels, chosen, facts))


def _write_csv(labels: ProjectLabels, chosen: _Chosen, draft: Path, facts: Facts) -> int:
    path = draft / "labels.csv"
    written = 0
    with storage_errors(path), path.open("x", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\r\n")
        table.writerow(_CSV_COLUMNS)
        for event in labels.labels(chosen.attribute, only=chosen.only):
            facts.see(event)
            cells = {**(_judged(event.judgement) if event.judgement is not None else {}), **_cells(event)}
            table.writerow([safe_cell(cells[name]) for name in _CSV_COLUMNS])
            written += 1
    return written


def _cells(event: Event) -> Fields:
    judged = event.judgement
    assert judged is not None
    is_plain = len(judged.prompt) == 1 and judged.prompt[0].role == "user"
    return {
        "prompt": judged.prompt[0].content if is_plain else json.dumps(as_dicts(judged.prompt), ensure_ascii=False),
        "label": judged.choice.value if judged.tie_kind is None else judged.tie_kind.value,
        "annotator": event.pseudonym,
        "reason": event.reason,
        "event_id": event.id,
        "task_id": event.task_id,
    }


def safe_cell(value: object) -> str:
    """Return a value as a cell that no spreadsheet takes for a formula: a text that begins like one gets a "'".

    Source: OWASP, "CSV Injection".
    """
    if value is None:
        return ""
    if isinstance(value, str) and (value.startswith(_FORMULA_STARTS) or value.strip().startswith(_FORMULA_STARTS)):
        return f"'{value}"
    return str(value)


def _write_dataset(labels: ProjectLabels, chosen: _Chosen, draft: Path, facts: Facts) -> int:
    """Write an Arrow dataset; all of it is in memory once."""
    from datasets import Dataset, Features, List, Value

    rows = list(_preferences(labels, chosen, facts))
    if not rows:
        return 0
    text, messages = Value("string"), List({"role": Value("string"), "content": Value("string")})
    features = Features(
        {
            **dict.fromkeys(("prompt", "chosen", "rejected"), messages),
            **{"margin": Value("float64"), "id": Value("int64"), "votes": Value("int64")},
            **{"agreement": Value("float64"), "ties": Value("int64"), "annotators": List(text)},
            **{"chosen_model": text, "rejected_model": text},
        }
    )
    if not any("margin" in row for row in rows):
        del features["margin"]
    made = Dataset.from_list([{name: row.get(name) for name in features} for row in rows], features=features)
    with storage_errors(draft):
        made.save_to_disk(str(draft / "dataset"), num_shards=1)
    return len(rows)


_Writer = Callable[[ProjectLabels, _Chosen, Path, Facts], int]
_WRITERS: dict[ExportFormat, _Writer] = {
    ExportFormat.TRL: _write_trl,
    ExportFormat.KTO: _write_kto,
    ExportFormat.EVENTS: _write_events,
    ExportFormat.CSV: _write_csv,
    ExportFormat.DATASET: _write_dataset,
}
