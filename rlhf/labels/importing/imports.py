"""A file of preferences streamed into the database, and the report of what it held.

A whole file is one transaction: after a kill or an error nothing of it is there, so the same command can run again, its
report speaks of the whole file, and no label exists without the report that tells where it came from. What counts rows
grows with the file in the database alone; memory holds one batch of rows.
"""

import gc
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple

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
from rlhf.labels.importing.batches import BatchWriter, Quarantined
from rlhf.labels.records import Judgement
from rlhf.labels.store import LabelStore
from rlhf.labels.trust.quality import RateCounts
from sft.config import LabelFormat
from sft.core.errors import DataError, UsageError
from sft.core.rows import BadRow, Row, RowError, read_rows
from sft.core.statistics import Estimate
from sft.core.text import Conversation

BATCH_ROWS = 1000
BATCH_CHARACTERS = 4_000_000
"""A batch ends with the row that reaches either number."""
SHOWN_LINES = 20
"""How many row numbers of one reason the report names; the database has all of them."""
_OBJECTS_OF_A_BATCH = 100_000
"""Above what a batch of simple rows makes, about 20 a row."""
_ERASED = "erased annotator"
_IDENTICAL = "identical answers"


class Lengths(NamedTuple):
    """How long texts are, in characters; all 0 where there are none."""

    n: int
    mean: float
    median: int
    p95: int
    longest: int


@dataclass(frozen=True)
class ImportReport:
    """What a file gave; `rows_in` = rows_used + quarantined + duplicates. Rates and lengths are of its comparisons."""

    format: LabelFormat
    """Never `auto`."""
    rows_in: int
    rows_used: int
    """Rows that gave comparisons."""
    comparisons: int
    ties: int
    quarantined: int
    duplicates: int
    """Rows equal, byte by byte, to an earlier one of the file or of the project."""
    reasons: dict[str, int]
    """Why rows were quarantined -> how many; the most frequent first."""
    lines: dict[str, list[int]]
    """Why rows were quarantined -> the numbers of the first ones."""
    examples: list[str]
    """The first bad rows with their reasons in full; shown, never stored."""
    erased: int
    """Judgements of erased annotators that were left out of rows which gave other comparisons."""
    annotators: int
    """Of the project, after the import."""
    contradictions: int
    """How often one annotator preferred each answer of a pair of this file, once or more, in the whole project."""
    identical_answers: int
    """Comparisons, or rows put aside, of two equal answers."""
    splits: dict[str, int]
    """Part of the dataset -> comparisons, where the rows say it."""
    leaked_prompts: int
    """Prompts, but for case and spacing, that stand in two or more splits of the file."""
    tie_rate: Estimate | None
    left_rate: Estimate | None
    """Share of the left answer among decided comparisons whose sides are known."""
    longer_rate: Estimate | None
    """Share of the longer answer among decided comparisons of unequal lengths."""
    prompt_lengths: Lengths
    answer_lengths: Lengths

    def stored(self) -> dict[str, object]:
        """Return the report as JSON values without the examples: they quote what people wrote."""
        rates = {
            name: None if rate is None else rate.as_dict()
            for name, rate in (
                ("tie_rate", self.tie_rate),
                ("left_rate", self.left_rate),
                ("longer_rate", self.longer_rate),
            )
        }
        lengths = {"prompt_lengths": self.prompt_lengths._asdict(), "answer_lengths": self.answer_lengths._asdict()}
        plain = {name: value for name, value in asdict(self).items() if name != "examples"}
        return {**plain, "format": self.format.value, **rates, **lengths}

    def as_dict(self) -> dict[str, object]:
        """Return the report as JSON values."""
        return {**self.stored(), "examples": self.examples}


def import_file(
    store: LabelStore,
    project: str,
    path: Path,
    *,
    format: LabelFormat = LabelFormat.AUTO,
    source: str | None = None,
    licence: str | None = None,
    mapping: Mapping[str, str] | None = None,
) -> ImportReport:
    """Read a file into a project: all of it, or nothing.

    Args:
        store: of labels.
        project: its name; made where it is new.
        path: JSON lines, JSON array, CSV or TSV, plain or gzip.
        format: of the rows; `auto` finds it in the first rows.
        source: where the file comes from; None: not said.
        licence: of the file; None: not said.
        mapping: column that the format wants -> column that the file has.

    Raises:
        DataError: the file cannot be read, its format is not clear, or it has neither a usable nor a known row.
        UsageError: a column of the mapping is not there, or the project's name is not allowed.
        StorageError: the database refuses.
    """
    items = read_rows(path)
    head = first_rows(items)
    _check_mapping(path, head, mapping or {})
    rows = _renamed(chain(head, items), mapping) if mapping else chain(head, items)
    found = _resolve(path, format, list(_renamed(head, mapping or {})))
    joined = JOINERS[found](rows) if found in JOINERS else rows
    with store.changing(project) as (connection, row):
        writer = BatchWriter(connection, row, file=path.name, format=found.value, source=source, licence=licence)
        tally = _Tally()
        with _searching_less_for_garbage():
            for batch in _batches(_parsed(joined, found)):
                _store(batch, writer, tally)
        _check(path, found, tally)
        report = tally.report(found, writer)
        writer.finish(report.stored())
    return report


@contextmanager
def _searching_less_for_garbage() -> Iterator[None]:
    """Let Python look for cycles only once there are more new objects than a batch has: its rows form none."""
    youngest, *older = gc.get_threshold()
    gc.set_threshold(max(youngest, _OBJECTS_OF_A_BATCH), *older)
    try:
        yield
    finally:
        gc.set_threshold(youngest, *older)


class _Parsed(NamedTuple):
    """A row after its parser: judgements, or the reason why there are none; `lines` has one number per file row."""

    lines: Sequence[int]
    digest: bytes | None
    judgements: Sequence[Judgement]
    reason: str | None
    spelling: str

    @property
    def characters(self) -> int:
        total = 0
        for judgement in self.judgements:
            total += len(judgement.response_a) + len(judgement.response_b) + _length(judgement.prompt)
        return total


@dataclass
class _Tally:
    """Running counts. Lengths are counted per distinct length: of those there are few, since long texts take room."""

    rows_used: int = 0
    quarantined: int = 0
    duplicates: int = 0
    erased: int = 0
    identical: int = 0
    named: bool = False
    reasons: Counter[str] = field(default_factory=Counter)
    lines: dict[str, list[int]] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)
    spellings: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    prompts: Counter[int] = field(default_factory=Counter)
    answers: Counter[int] = field(default_factory=Counter)
    rates: RateCounts = field(default_factory=RateCounts)

    def use(self, judgements: Sequence[Judgement]) -> None:
        """Count judgements that are stored, column by column: for a batch that is twice as fast as one by one."""
        lengths_a = [len(judgement.response_a) for judgement in judgements]
        lengths_b = [len(judgement.response_b) for judgement in judgements]
        self.answers.update(lengths_a)
        self.answers.update(lengths_b)
        self.prompts.update([_length(judgement.prompt) for judgement in judgements])
        self.identical += sum([judgement.response_a == judgement.response_b for judgement in judgements])
        self.named = self.named or any(judgement.annotator is not None for judgement in judgements)
        self.splits.update([judgement.split for judgement in judgements if judgement.split is not None])
        self.rates.add(judgements, lengths_a, lengths_b)

    def put_aside(self, row: _Parsed, reason: str) -> list[Quarantined]:
        kind = reason.partition(": ")[0]
        self.quarantined += len(row.lines)
        self.reasons[kind] += len(row.lines)
        shown = self.lines.setdefault(kind, [])
        shown += row.lines[: SHOWN_LINES - len(shown)]
        if len(self.examples) < 3:
            self.examples.append(f"line {row.lines[0]}: {reason}")
        return [Quarantined(line, kind, row.digest) for line in row.lines]

    def report(self, format: LabelFormat, writer: BatchWriter) -> ImportReport:
        return ImportReport(
            format=format,
            rows_in=self.rows_used + self.quarantined + self.duplicates,
            rows_used=self.rows_used,
            comparisons=self.rates.tie.n,
            ties=self.rates.tie.hits,
            quarantined=self.quarantined,
            duplicates=self.duplicates,
            reasons=dict(self.reasons.most_common()),
            lines=self.lines,
            examples=self.examples,
            erased=self.erased,
            annotators=writer.annotators(),
            contradictions=writer.contradictions() if self.named else 0,
            identical_answers=self.identical + self.reasons[_IDENTICAL],
            splits=dict(self.splits.most_common()),
            leaked_prompts=writer.leaked_prompts() if len(self.splits) > 1 else 0,
            tie_rate=self.rates.tie.estimate(),
            left_rate=self.rates.left.estimate(),
            longer_rate=self.rates.longer.estimate(),
            prompt_lengths=_lengths(self.prompts),
            answer_lengths=_lengths(self.answers),
        )


def _length(prompt: Conversation) -> int:
    if len(prompt) == 1:
        return len(prompt[0].content)
    return sum([len(message.content) for message in prompt])


def _lengths(counts: Counter[int]) -> Lengths:
    n = counts.total()
    if not n:
        return Lengths(0, 0.0, 0, 0, 0)
    ordered = sorted(counts)
    mean = sum(length * count for length, count in counts.items()) / n
    return Lengths(n, mean, _quantile(counts, ordered, 0.5), _quantile(counts, ordered, 0.95), ordered[-1])


def _quantile(counts: Counter[int], ordered: Sequence[int], share: float) -> int:
    """Return the smallest length that at least this share of the texts do not exceed."""
    seen, wanted = 0, share * counts.total()
    for length in ordered:
        seen += counts[length]
        if seen >= wanted:
            return length
    return ordered[-1]


# Rows


def _check_mapping(path: Path, head: Sequence[Row | BadRow], mapping: Mapping[str, str]) -> None:
    columns = dict.fromkeys(name for item in head if isinstance(item, Row) for name in item.value)
    missing = [name for name in mapping.values() if name not in columns]
    if missing and columns:
        raise UsageError(f"{path} has no column {missing[0]!r} to map; it has {', '.join(columns)}")


def _renamed(items: Iterable[Row | BadRow], mapping: Mapping[str, str]) -> Iterator[Row | BadRow]:
    """Yield the rows under the names that their format wants; an unmapped column of such a name is left out."""
    for item in items:
        if isinstance(item, BadRow) or not mapping:
            yield item
        else:
            taken = {*mapping, *mapping.values()}
            kept = {name: value for name, value in item.value.items() if name not in taken}
            named = {wanted: item.value[has] for wanted, has in mapping.items() if has in item.value}
            yield item._replace(value={**kept, **named})


def _resolve(path: Path, format: LabelFormat, head: Sequence[Row | BadRow]) -> LabelFormat:
    if format is not LabelFormat.AUTO:
        return format
    rows = [item for item in head if isinstance(item, Row)]
    if not rows:
        shown = "; ".join(f"line {item.line}: {item.reason}" for item in head[:3] if isinstance(item, BadRow))
        raise DataError(f"{path}: none of its {len(head)} rows can be read; the first: {shown}; repair the file")
    try:
        return detect(rows)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _parsed(items: Iterable[Row | BadRow], format: LabelFormat) -> Iterator[_Parsed]:
    parse = PARSERS[format]
    is_pairwise, is_joined = format is LabelFormat.PAIRWISE, format in JOINERS
    for item in items:
        if isinstance(item, BadRow):
            yield _Parsed([item.line], None, (), item.reason, "")
            continue
        digest = bytes.fromhex(item.digest)
        try:
            judgements = parse(item)
            lines = [item.line] * (rows_behind(item) if is_joined else 1)
            yield _Parsed(lines, digest, judgements, None, label_spelling(item) if is_pairwise else "")
        except RowError as error:
            yield _Parsed([bad.line for bad in rejected(item, str(error))], digest, (), str(error), "")


def _batches(rows: Iterable[_Parsed]) -> Iterator[list[_Parsed]]:
    batch: list[_Parsed] = []
    characters = 0
    for row in rows:
        batch.append(row)
        characters += row.characters
        if len(batch) >= BATCH_ROWS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    yield batch


def _store(batch: Sequence[_Parsed], writer: BatchWriter, tally: _Tally) -> None:
    known = writer.known([row.digest for row in batch if row.digest is not None])
    erased = writer.erased({j.annotator for row in batch for j in row.judgements if j.annotator is not None})
    good: list[Sequence[Judgement]] = []
    bad: list[Quarantined] = []
    for row in batch:
        if row.digest is not None and row.digest in known:
            tally.duplicates += len(row.lines)
            continue
        if row.digest is not None:
            known.add(row.digest)
        kept = [j for j in row.judgements if j.annotator not in erased] if erased else row.judgements
        reason = row.reason or (None if kept else f"{_ERASED}: the labels of this person were removed for good")
        if reason is not None:
            bad += tally.put_aside(row, reason)
        else:
            good.append(kept)
            tally.rows_used += len(row.lines)
            tally.spellings[row.spelling] += 1
            tally.erased += len(row.judgements) - len(kept)
    tally.use([judgement for kept in good for judgement in kept])
    writer.add(good)
    writer.quarantine(bad)


def _check(path: Path, format: LabelFormat, tally: _Tally) -> None:
    if not tally.rows_used and not tally.duplicates:
        shown = "; ".join(tally.examples)
        raise DataError(
            f"{path}: none of its {tally.quarantined} rows can be used as {format.value}; the first: {shown}; give the "
            "format with --format, the columns with --mapping, or repair the file"
        )
    try:
        check_spellings(tally.spellings)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
