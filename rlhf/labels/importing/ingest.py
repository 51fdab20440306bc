"""Reading a file of preferences: every row becomes judgements, a duplicate, or a counted entry of the quarantine."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from rlhf.labels.formats import (
    JOINERS,
    PARSERS,
    check_spellings,
    detect,
    first_rows,
    label_spelling,
    rejected,
    rows_behind,
)
from rlhf.labels.records import Judgement
from sft.config import LabelFormat
from sft.core.durable import write_jsonl
from sft.core.errors import DataError
from sft.core.rows import BadRow, Row, RowError, read_rows


@dataclass(frozen=True)
class Ingested:
    """What a file gave; `rows_in` = rows that gave judgements + quarantined + duplicates.

    A row gives one judgement or, in some formats, several; in others adjacent rows give judgements together.
    """

    format: LabelFormat
    """Never `auto`."""
    judgements: list[Judgement]
    rows_in: int
    quarantined: int
    duplicates: int
    """Rows equal, byte by byte, to an earlier row, which was used instead; where rows are joined, all of them."""
    reasons: dict[str, int]
    """Why rows were quarantined -> how many; the most frequent first."""


@dataclass
class _Sorted:
    judgements: list[Judgement] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    digests: set[str] = field(default_factory=set)
    used: int = 0
    duplicates: int = 0
    spellings: Counter[str] = field(default_factory=Counter)

    @property
    def rows_in(self) -> int:
        return self.used + len(self.bad) + self.duplicates


def ingest(path: Path, *, format: LabelFormat, max_quarantine_fraction: float, quarantine_path: Path) -> Ingested:
    """Read a file of preferences.

    Args:
        path: JSON lines, JSON array, CSV or TSV, plain or gzip.
        format: of the rows; `auto` finds it in the first rows.
        max_quarantine_fraction: largest share of rows, 0 to 1, that may be unusable.
        quarantine_path: JSON lines with `line`, `reason` and `text` (shortened) of every unusable row; written only
            when there is one, also when this function then raises.

    Raises:
        DataError: the file cannot be read, its format is not clear, no row is usable, or too many are not.
        StorageError: the quarantine file cannot be written.
    """
    items = read_rows(path)
    head = first_rows(items)
    found = _resolve(path, format, head, quarantine_path)
    rows = _sort(chain(head, items), found)
    _write_quarantine(rows.bad, quarantine_path)
    _check_share(path, found, rows, max_quarantine_fraction, quarantine_path)
    _check_labels(path, rows.spellings)
    reasons = Counter(bad.kind for bad in rows.bad)
    return Ingested(found, rows.judgements, rows.rows_in, len(rows.bad), rows.duplicates, dict(reasons.most_common()))


def _resolve(path: Path, format: LabelFormat, head: list[Row | BadRow], quarantine_path: Path) -> LabelFormat:
    if format is not LabelFormat.AUTO:
        return format
    rows = [item for item in head if isinstance(item, Row)]
    bad = [item for item in head if isinstance(item, BadRow)]
    if not rows:
        _write_quarantine(bad, quarantine_path)
        raise DataError(
            f"{path}: none of its {len(bad)} rows can be read, no good row is left; {_first(bad)}; all of them are in "
            f"{quarantine_path}; repair the file"
        )
    try:
        return detect(rows)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _sort(items: Iterator[Row | BadRow], format: LabelFormat) -> _Sorted:
    parse = PARSERS[format]
    rows = _Sorted()
    for item in JOINERS[format](items) if format in JOINERS else items:
        if isinstance(item, BadRow):
            rows.bad.append(item)
        elif item.digest in rows.digests:
            rows.duplicates += rows_behind(item)
        else:
            rows.digests.add(item.digest)
            try:
                rows.judgements += parse(item)
                rows.used += rows_behind(item)
                if format is LabelFormat.PAIRWISE:
                    rows.spellings[label_spelling(item)] += 1
            except RowError as error:
                rows.bad += rejected(item, str(error))
    return rows


def _write_quarantine(bad: list[BadRow], path: Path) -> None:
    if bad:
        write_jsonl(path, [{"line": row.line, "reason": row.reason, "text": row.text} for row in bad])


def _first(bad: list[BadRow]) -> str:
    shown = "; ".join(f"line {row.line}: {row.reason}" for row in bad[:3])
    return f"the first: {shown}"


def _check_share(path: Path, format: LabelFormat, rows: _Sorted, limit: float, quarantine_path: Path) -> None:
    count, share = len(rows.bad), len(rows.bad) / rows.rows_in
    if rows.judgements and share <= limit:
        return
    found = f"{path}: {count} of {rows.rows_in} rows ({share:.1%}) cannot be used as {format.value}"
    rule = f"more than labels.max_quarantine_fraction={limit} allows" if rows.judgements else "no good row is left"
    raise DataError(
        f"{found}, {rule}; {_first(rows.bad)}; all of them are in {quarantine_path}; repair the file, give its "
        "format with data.format, or raise labels.max_quarantine_fraction"
    )


def _check_labels(path: Path, spellings: Counter[str]) -> None:
    try:
        check_spellings(spellings)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
