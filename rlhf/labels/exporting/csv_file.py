"""`labels.csv`: one label a row, safe to open in a spreadsheet, and read back exactly."""

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from rlhf.labels.events import Event
from rlhf.labels.records import Choice, Judgement, TieKind
from sft.core.durable import storage_errors
from sft.core.errors import DataError
from sft.core.rows import BadRow, Row, read_rows
from sft.core.text import Conversation, Message, as_dicts, user

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""Also the full-width signs, which some spreadsheets take for the plain ones."""
_COLUMNS = (
    *("prompt", "response_a", "response_b", "label", "annotator", "strength", "model_a", "model_b", "attribute"),
    *("split", "time", "order_known", "reason", "event_id", "task_id"),
)


def write_csv(path: Path, events: Iterable[Event]) -> int:
    """Write label events as a table that `rlhf labels import` takes, RFC 4180; return the number of rows."""
    written = 0
    with storage_errors(path), path.open("x", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\r\n")
        table.writerow(_COLUMNS)
        for event in events:
            cells = _cells(event)
            table.writerow([safe_cell(cells[name]) for name in _COLUMNS])
            written += 1
    return written


def read_csv(path: Path) -> list[Judgement]:
    """Return the labels of a table that `write_csv` wrote, in its order; annotators are pseudonyms.

    Raises:
        DataError: a row cannot be read, so the file is not what was written, or a text in it is longer than a table
            may hold.
    """
    return [_judgement(path, row) for row in read_rows(path)]


def safe_cell(value: object) -> str:
    """Return a value as a cell that no spreadsheet takes for a formula: a text that begins like one gets a "'".

    So does a text that is a formula behind such signs already, so that `plain_cell` gives every text back.
    Source: OWASP, "CSV Injection".
    """
    if value is None:
        return ""
    return f"'{value}" if isinstance(value, str) and _is_formula(value) else str(value)


def plain_cell(cell: str) -> str:
    """Return the text that `safe_cell` made a cell of."""
    return cell[1:] if cell.startswith("'") and _is_formula(cell[1:]) else cell


def _is_formula(text: str) -> bool:
    bare = text.lstrip("'")
    return bare.startswith(_FORMULA_STARTS) or bare.strip().startswith(_FORMULA_STARTS)


def _cells(event: Event) -> Mapping[str, object]:
    judged = event.judgement
    assert judged is not None
    return {
        "prompt": _prompt_cell(judged.prompt),
        "response_a": judged.response_a,
        "response_b": judged.response_b,
        "label": judged.choice.value if judged.tie_kind is None else judged.tie_kind.value,
        "annotator": event.pseudonym,
        "strength": judged.strength,
        "model_a": judged.model_a,
        "model_b": judged.model_b,
        "attribute": judged.attribute,
        "split": judged.split,
        "time": judged.time,
        "order_known": "yes" if judged.order_known else "no",
        "reason": event.reason,
        "event_id": event.id,
        "task_id": event.task_id,
    }


def _prompt_cell(prompt: Conversation) -> str:
    """Return one user turn as its text, anything else (and what would be taken for it) as JSON messages."""
    is_plain = len(prompt) == 1 and prompt[0].role == "user" and not prompt[0].content.startswith("[")
    return prompt[0].content if is_plain else json.dumps(as_dicts(prompt), ensure_ascii=False)


def _prompt(cell: str) -> Conversation:
    if not cell.startswith("["):
        return user(cell)
    return tuple(Message(turn["role"], turn["content"]) for turn in json.loads(cell))


def _judgement(path: Path, row: Row | BadRow) -> Judgement:
    if isinstance(row, BadRow):
        raise DataError(
            f"{path}, line {row.line}: {row.reason}; restore the file, or give data.comparisons_path the imported one"
        )
    cells = {name: plain_cell(str(cell)) for name, cell in row.value.items()}
    is_plain = cells["label"] in (Choice.A, Choice.B, Choice.TIE)
    return Judgement(
        prompt=_prompt(cells["prompt"]),
        response_a=cells["response_a"],
        response_b=cells["response_b"],
        choice=Choice(cells["label"]) if is_plain else Choice.TIE,
        tie_kind=None if is_plain else TieKind(cells["label"]),
        annotator=cells["annotator"] or None,
        line=row.line,
        digest=row.digest,
        model_a=cells["model_a"] or None,
        model_b=cells["model_b"] or None,
        strength=float(cells["strength"]) if cells["strength"] else None,
        order_known=cells["order_known"] == "yes",
        time=float(cells["time"]) if cells["time"] else None,
        attribute=cells["attribute"] or None,
        split=cells["split"] or None,
    )
