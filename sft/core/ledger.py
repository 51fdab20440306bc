"""The metric ledger: an append-only file of every number and every alert of a run. It is the truth that W&B mirrors."""

import json
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from sft.core.durable import append_line

LEDGER = "metrics.jsonl"


class Alert(NamedTuple):
    """Something that a person should look at now."""

    title: str
    """The condition, the same words every time, below 64 characters."""
    text: str
    """What was found and what to do; numbers, never a text from data."""
    level: str
    """"INFO", "WARN" or "ERROR"."""


class LedgerEntry(NamedTuple):
    """One line of the ledger. `seq` orders lines (clocks may jump); `time` is UTC in ISO format."""

    seq: int
    time: str
    stage: str
    step: int
    metrics: dict[str, float]
    product: str = ""
    """What the stage was making, where it makes several things one after the other; "" in older files."""
    alert: Alert | None = None
    """A line holds metrics or an alert."""


Told = tuple[str, str, int, frozenset[str]]


def told(entry: LedgerEntry) -> Told:
    """Return what a line says something about: stage, product, step and the names of its metrics."""
    return entry.stage, entry.product, entry.step, frozenset(entry.metrics)


def repeated(entries: Sequence[LedgerEntry], attempts: Sequence[int]) -> set[int]:
    """Return the lines (`seq`) in which a run that carried on says again what an earlier attempt had said.

    Args:
        entries: of one ledger, in order.
        attempts: the first line of each attempt, ascending.
    """
    before: set[Told] = set()
    now: set[Told] = set()
    found: set[int] = set()
    attempt = 0
    for entry in entries:
        if bisect_right(attempts, entry.seq) != attempt:
            attempt, before, now = bisect_right(attempts, entry.seq), before | now, set()
        if told(entry) in before:
            found.add(entry.seq)
        now.add(told(entry))
    return found


class LedgerRows(NamedTuple):
    """What a ledger file holds: its good lines, and how many were broken (cut off by a kill, for example)."""

    entries: list[LedgerEntry]
    broken: int


def read_ledger(path: Path) -> LedgerRows:
    """Read a ledger file; a broken line is counted, never fatal. A missing file is an empty ledger."""
    if not path.exists():
        return LedgerRows([], 0)
    entries: list[LedgerEntry] = []
    broken = 0
    for line in path.read_bytes().split(b"\n"):
        if not line.strip():
            continue
        try:
            entries.append(_parse_entry(line))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            broken += 1
    return LedgerRows(entries, broken)


def _parse_entry(line: bytes) -> LedgerEntry:
    row = json.loads(line.decode())
    metrics = {str(name): float(value) for name, value in row["metrics"].items()}
    alert = None if row.get("alert") is None else Alert(**{name: str(row["alert"][name]) for name in Alert._fields})
    product = row.get("product", "")
    if not isinstance(product, str):
        raise TypeError("a product is a text")
    return LedgerEntry(int(row["seq"]), str(row["time"]), str(row["stage"]), int(row["step"]), metrics, product, alert)


def _json_number(value: float) -> float | str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


class Ledger:
    """An append-only JSON-lines file: `{seq, time, stage, product, step, metrics}` and perhaps `alert`, one a line.

    Numbers that JSON lacks are the strings "NaN", "Infinity" and "-Infinity". Opened again, it carries on counting;
    a half-written last line stays as it is and is fenced off by a line break. Raises StorageError when the disk
    refuses: this file is the truth, so it must not fail silently.

    Attributes:
        path: of the file.
        before: the lines that it held when it was opened.
        next: the number of the line that comes next.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the file."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.before = read_ledger(path).entries
        self.next = max((entry.seq for entry in self.before), default=-1) + 1
        if path.exists() and (content := path.read_bytes()) and not content.endswith(b"\n"):
            append_line(path, "")

    def append(
        self,
        stage: str,
        step: int,
        metrics: Mapping[str, float],
        *,
        product: str = "",
        alert: Alert | None = None,
    ) -> int:
        """Append one line with a single write, and return its number `seq`."""
        numbers = {name: float(value) for name, value in metrics.items()}
        row: dict[str, object] = {
            "seq": self.next,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "stage": stage,
            "product": product,
            "step": int(step),
            "metrics": {name: _json_number(value) for name, value in numbers.items()},
        }
        if alert is not None:
            row["alert"] = alert._asdict()
        append_line(self.path, json.dumps(row, ensure_ascii=False, allow_nan=False))
        self.next += 1
        return self.next - 1
