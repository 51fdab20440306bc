"""The rows of an exported dataset: what each format makes of a project's labels. People appear by pseudonym alone."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from rlhf.labels.events import EventIds
from rlhf.labels.exporting.csv_file import write_csv
from rlhf.labels.exporting.datasheet import Facts
from rlhf.labels.records import Choice, Judgement, TieKind
from rlhf.labels.store import ProjectLabels
from sft.core.durable import storage_errors
from sft.core.text import as_dicts

CSV_FILE = "labels.csv"

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


class Chosen(NamedTuple):
    """Which labels to write, and how."""

    format: ExportFormat
    attribute: str | None
    """None: the answers as a whole."""
    only: EventIds | None
    """Exactly these events, whether they still hold or not; None: the labels that hold."""


class _Pair(NamedTuple):
    """A task with its labels, the answers in one order for all, and who gave them."""

    task_id: int
    judgements: list[Judgement]
    people: list[str | None]


def _pairs(labels: ProjectLabels, chosen: Chosen, facts: Facts) -> Iterator[_Pair]:
    """Yield the tasks one by one, the answers of each in one order for all of its labels."""
    for task_id, group in groupby(labels.labels(chosen.attribute, only=chosen.only), key=lambda event: event.task_id):
        events = [facts.see(event) for event in group]
        judgements = [event.judgement for event in events if event.judgement is not None]
        first = judgements[0]
        order = (first.response_a, first.model_a)  # two models may have written the same text
        aligned = [j if (j.response_a, j.model_a) == order else j.swapped() for j in judgements]
        yield _Pair(task_id, aligned, [event.pseudonym for event in events])


def _preferences(labels: ProjectLabels, chosen: Chosen, facts: Facts) -> Iterator[Fields]:
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


def _unpaired(labels: ProjectLabels, chosen: Chosen, facts: Facts) -> Iterator[Fields]:
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


def _all_events(labels: ProjectLabels, chosen: Chosen, facts: Facts) -> Iterator[Fields]:
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


def _write_trl(labels: ProjectLabels, chosen: Chosen, draft: Path, facts: Facts) -> int:
    return _write_lines(draft / "train.jsonl", _preferences(labels, chosen, facts))


def _write_kto(labels: ProjectLabels, chosen: Chosen, draft: Path, facts: Facts) -> int:
    return _write_lines(draft / "train.jsonl", _unpaired(labels, chosen, facts))


def _write_events(labels: ProjectLabels, chosen: Chosen, draft: Path, facts: Facts) -> int:
    return _write_lines(draft / "events.jsonl", _all_events(labels, chosen, facts))


def _write_csv(labels: ProjectLabels, chosen: Chosen, draft: Path, facts: Facts) -> int:
    held = labels.labels(chosen.attribute, only=chosen.only)
    return write_csv(draft / CSV_FILE, (facts.see(event) for event in held))


def _write_dataset(labels: ProjectLabels, chosen: Chosen, draft: Path, facts: Facts) -> int:
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


Writer = Callable[[ProjectLabels, Chosen, Path, Facts], int]
WRITERS: dict[ExportFormat, Writer] = {
    ExportFormat.TRL: _write_trl,
    ExportFormat.KTO: _write_kto,
    ExportFormat.EVENTS: _write_events,
    ExportFormat.CSV: _write_csv,
    ExportFormat.DATASET: _write_dataset,
}
"""Format -> what writes its rows into a folder and counts them."""
