"""Reading files of rows: JSON lines, a JSON array, CSV or TSV, plain or gzip, in UTF-8.

A row that cannot be used becomes a `BadRow` with its line and a reason, and the rest of the file is still used. A
file of which nothing can be trusted (missing, empty, another encoding, damaged compression) raises DataError.
Line numbers count from 1 and name the first line of a row, the header of a table being part of the count.
"""

import csv
import gzip
import hashlib
import io
import json
import re
import sys
import zlib
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from sft.core.errors import DataError

MAX_ROW_BYTES = 64 * 2**20
"""A longer row ends the reading: almost always an unclosed quote or a file without line ends."""
MAX_CELL_CHARACTERS = 1_000_000
"""A longer cell of a table makes its row a bad row."""
MAX_DEPTH = 100
"""Deeper nested JSON makes its row a bad row."""
MAX_EXCERPT_CHARACTERS = 2000
"""How much of a bad row is kept."""


class RowError(ValueError):
    """A row that cannot be used. The message is the reason; the part before the first ": " is its kind."""


class BadRow(NamedTuple):
    """A row that was not used: first `line`, `reason` ("kind: detail"), and the row's `text`, shortened."""

    line: int
    reason: str
    text: str

    @property
    def kind(self) -> str:
        """The part of the reason by which reasons are counted."""
        return self.reason.partition(": ")[0]


class Row(NamedTuple):
    """A row: first `line`, the columns, and the sha256 (hex) of its raw bytes without the line end."""

    line: int
    value: dict[str, object]
    digest: str

    def rejected(self, reason: str) -> BadRow:
        """Return this row as one that was not used."""
        return _bad(self.line, reason, json.dumps(self.value, ensure_ascii=False))


class _Line(NamedTuple):
    number: int
    content: bytes

    def text(self) -> str:
        """Return the line for a person to look at; bytes that are no UTF-8 show as a question mark."""
        return self.content.decode("utf-8", "replace")


def read_rows(path: Path) -> Iterator[Row | BadRow]:
    """Yield the rows of a file one by one, good and bad.

    The kind of file is taken from its content where that is clear (gzip, `{`, `[`), else from its name. JSON lines,
    CSV and TSV are streamed; a JSON array is read whole. The quotes of a table follow RFC 4180. Blank lines are no
    rows. A gzip file that ends early gives the rows before the break and one bad row.

    Raises:
        DataError: the file is missing, a folder, empty, not UTF-8 as a whole, damaged, or none of these formats.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder; give a file of rows (JSON lines, JSON, CSV or TSV, plain or gzip)")
    if not path.is_file():
        raise DataError(f"{path} does not exist; check the path (relative paths start at {Path.cwd()})")
    return _rows(path)


def _rows(path: Path) -> Iterator[Row | BadRow]:
    empty = True
    with _open(path) as stream:
        for item in _parsed(path, _lines(path, stream)):
            empty = False
            yield item
    if empty:
        raise DataError(f"{path} is empty: it holds no rows; give a file with one row per line")


def _open(path: Path) -> io.BufferedIOBase:
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        return gzip.open(path, "rb") if packed else path.open("rb")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; check its permissions") from error


def _lines(path: Path, stream: io.BufferedIOBase) -> Iterator[_Line | BadRow]:
    """Yield the lines; a compressed file that ends early ends with a BadRow."""
    number = 0
    while True:
        try:
            content = stream.readline(MAX_ROW_BYTES + 1)
        except EOFError:
            reason = "cut off: the gzip file ends early, what follows is missing; copy or download it again"
            yield BadRow(number + 1, reason, "")
            return
        except (gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{path} is damaged after line {number} ({error}); copy or download it again") from error
        except OSError as error:
            raise DataError(f"cannot read {path} after line {number}: {error.strerror}; check the disk") from error
        if not content:
            return
        number += 1
        if len(content) > MAX_ROW_BYTES:
            raise _too_long(path, number)
        yield _Line(number, content.removeprefix(b"\xef\xbb\xbf") if number == 1 else content)


def _too_long(path: Path, line: int) -> DataError:
    rule = f"a row may hold {MAX_ROW_BYTES // 2**20} MiB"
    return DataError(f"{path}, line {line}: {rule}; look for a missing line end or an unclosed quote there")


def _parsed(path: Path, lines: Iterator[_Line | BadRow]) -> Iterator[Row | BadRow]:
    for first in lines:
        if isinstance(first, BadRow):
            yield first
        elif first.content.strip():
            _check_encoding(path, first.content)
            yield from _parsed_from(path, first, lines)


def _parsed_from(path: Path, first: _Line, rest: Iterator[_Line | BadRow]) -> Iterator[Row | BadRow]:
    start = first.content.lstrip()[:1]
    if start == b"[":
        lines = list(rest)
        if _is_one_value(first) and any(isinstance(line, BadRow) or line.content.strip() for line in lines):
            return _json_lines(chain([first], lines))
        return _json_array(path, [first, *lines])
    delimiter = None if start == b"{" else _delimiter(path, first.content)
    if delimiter is None:
        return _json_lines(chain([first], rest))
    return _table(path, chain([first], rest), delimiter)


def _check_encoding(path: Path, line: bytes) -> None:
    if line.startswith(b"\x1f\x8b"):
        raise DataError(f"{path} is compressed twice; unpack it once (gzip -d)")
    # Every second byte of Latin text in UTF-16 is NUL; a block of NULs left by a crash has a higher share.
    wide = len(line) >= 4 and 0.3 < line.count(0) / len(line) < 0.8
    if wide or line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path} is encoded in UTF-16 or UTF-32; save it as UTF-8")


def _delimiter(path: Path, header: bytes) -> str | None:
    """Return what separates the columns of a table, or None for JSON lines."""
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    suffix = suffixes[-1] if suffixes else ""
    if suffix in (".json", ".jsonl", ".ndjson"):
        return None
    if suffix == ".tsv":
        return "\t"
    for delimiter in (",", ";", "\t"):
        if delimiter.encode() in header:
            return delimiter
    if suffix == ".csv":
        return ","
    raise DataError(f"{path} is neither JSON lines, a JSON array, CSV nor TSV; convert it to one of them")


def _bad(line: int, reason: str, text: str) -> BadRow:
    return BadRow(line, reason, text[:MAX_EXCERPT_CHARACTERS])


# JSON


def _json_lines(lines: Iterator[_Line | BadRow]) -> Iterator[Row | BadRow]:
    for line in lines:
        if isinstance(line, BadRow):
            yield line
        elif line.content.strip():
            yield _json_row(line)


def _json_row(line: _Line) -> Row | BadRow:
    raw = line.content.rstrip(b"\r\n")
    try:
        text = _decoded(raw)
        value = _as_object(_load(text))
        if _can_hide(raw):
            _check_strings(value)
        return Row(line.number, value, hashlib.sha256(raw).hexdigest())
    except RowError as error:
        return _bad(line.number, str(error), line.text())


def _can_hide(raw: bytes) -> bool:
    """Whether proper UTF-8 may say what `_check_strings` refuses: only escapes can, and more brackets than is deep."""
    if b"\\" in raw and b"\\u" in raw:
        return True
    is_flat = b"[" not in raw and raw.find(b"{", 1) < 0
    return not is_flat and raw.count(b"{") + raw.count(b"[") > MAX_DEPTH


def _decoded(raw: bytes) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        found = f"byte 0x{raw[error.start]:02x} at position {error.start + 1}"
        raise RowError(f"not UTF-8: {found}; save the file as UTF-8") from error
    if "\0" in text:
        raise RowError("NUL bytes: the row was not written to the end; write the file again")
    return text


def _no_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        raise RowError(f"repeated name: {next(n for n in names if names.count(n) > 1)!r} occurs twice in one object")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_no_repeats)


def _load(text: str) -> object:
    """Return the one JSON value of a text; RowError says why there is none."""
    value, end = _load_at(text, len(text) - len(text.lstrip()))
    if text[end:].strip():
        raise RowError(f"half-written or not JSON: more text after the value, at column {end + 1}")
    return value


def _load_at(text: str, start: int) -> tuple[object, int]:
    """Return the JSON value at a position and where it ends."""
    try:
        return _DECODER.raw_decode(text, start)
    except RowError:
        raise
    except json.JSONDecodeError as error:
        raise RowError(f"half-written or not JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise RowError(f"nested too deep: more than {MAX_DEPTH} levels") from error
    except ValueError as error:
        raise RowError(f"number too long: {error}") from error


def _is_one_value(line: _Line) -> bool:
    try:
        _load(_decoded(line.content))
    except RowError:
        return False
    return True


def _as_object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise RowError(f'not an object: found {json_type(value)}, a row is an object like {{"prompt": ...}}')
    return value


def json_type(value: object) -> str:
    """Return what a person calls a JSON value's type, for messages."""
    names = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list"}
    return "nothing (null)" if value is None else names.get(type(value), "an object")


def _check_strings(value: dict[str, object]) -> None:
    """Refuse what would fail much later: texts that cannot be encoded, NUL characters, bottomless nesting."""
    stack: list[tuple[object, int]] = [(value, 1)]
    while stack:
        item, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise RowError(f"nested too deep: more than {MAX_DEPTH} levels")
        if isinstance(item, dict):
            stack.extend((part, depth + 1) for pair in item.items() for part in pair)
        elif isinstance(item, list):
            stack.extend((part, depth + 1) for part in item)
        elif isinstance(item, str):
            _check_string(item)


def _check_string(text: str) -> None:
    if "\0" in text:
        raise RowError("NUL bytes: a text holds the character U+0000; remove it")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise RowError("not UTF-8: a text holds half a character; save the file as UTF-8") from error


def _json_array(path: Path, lines: list[_Line | BadRow]) -> Iterator[Row | BadRow]:
    """Yield the elements of an array; after a broken one go on at the next line that starts like the others."""
    contents = [line for line in lines if isinstance(line, _Line)]
    text = b"".join(line.content for line in contents).decode("utf-8", "surrogateescape")
    position = text.index("[") + 1
    line, counted = contents[0].number, 0
    pattern: re.Pattern[str] | None = None
    while (position := _skip_space(text, position)) < len(text) and text[position] != "]":
        line, counted = line + text.count("\n", counted, position), position
        pattern = pattern or _line_start(text, position)
        try:
            value, end = _load_at(text, position)
            following = _after_element(text, end)
        except RowError as error:
            found = pattern.search(text, position) if pattern else None
            if found is None and text.rstrip().endswith("]"):
                raise DataError(
                    f"{path}, line {line}: {error}; repair it, or write one row per line to lose only that row"
                ) from error
            yield _bad(line, str(error), _shown(text[position : found.end() if found else None]))
            if found is None:
                return
            position = found.end()
            continue
        yield _array_row(line, value, text[position:end])
        position = following
    yield from _array_end(text, position, line + text.count("\n", counted), lines[-1])


def _array_end(text: str, position: int, last_line: int, last: _Line | BadRow) -> Iterator[BadRow]:
    if isinstance(last, BadRow):
        yield last
    elif position >= len(text):
        yield BadRow(last_line, "cut off: the JSON array has no end; write the file again", "")
    elif text[position + 1 :].strip():
        yield _bad(last_line, "half-written or not JSON: text after the end of the array", _shown(text[position + 1 :]))


def _array_row(line: int, value: object, raw: str) -> Row | BadRow:
    try:
        digest = hashlib.sha256(raw.encode("utf-8", "surrogateescape")).hexdigest()
        row = _as_object(value)
        _check_strings(row)
        return Row(line, row, digest)
    except RowError as error:
        return _bad(line, str(error), _shown(raw))


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _after_element(text: str, end: int) -> int:
    """Return where the next element may start; the end of the text counts as the end of the array."""
    position = _skip_space(text, end)
    if position >= len(text) or text[position] == "]":
        return position
    if text[position] != ",":
        raise RowError("half-written or not JSON: a comma is missing after the row")
    return position + 1


def _line_start(text: str, position: int) -> re.Pattern[str] | None:
    """Return what an element's line begins with, or None when the first one does not begin a line."""
    indent = text[text.rfind("\n", 0, position) + 1 : position]
    return None if indent.strip() else re.compile(rf"\n{indent}(?=\{{)")


def _shown(text: str) -> str:
    return text[:MAX_EXCERPT_CHARACTERS].encode("utf-8", "surrogateescape").decode("utf-8", "replace")


# Tables


class _Feed:
    """Hands lines to csv.reader and remembers which ones the current record took."""

    def __init__(self, path: Path, lines: Iterator[_Line | BadRow]) -> None:
        self.taken: list[_Line] = []
        self.cut: BadRow | None = None
        self._path = path
        self._lines = lines
        self._size = 0

    def start_record(self) -> None:
        self.taken = []
        self._size = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        item = next(self._lines)
        if isinstance(item, BadRow):
            self.cut = item
            raise StopIteration
        self.taken.append(item)
        self._size += len(item.content)
        if self._size > MAX_ROW_BYTES:
            raise _too_long(self._path, self.taken[0].number)
        return item.content.decode("utf-8", "surrogateescape")


def _table(path: Path, lines: Iterator[_Line | BadRow], delimiter: str) -> Iterator[Row | BadRow]:
    feed = _Feed(path, lines)
    records = csv.reader(feed, delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        feed.start_record()
        try:
            cells = _next_record(records)
        except csv.Error as error:
            if not header:
                raise DataError(f"{path}: the header cannot be read ({error}); repair its quotes") from error
            yield from _broken_record(feed.taken, str(error), len(header), delimiter)
            continue
        if cells is None:
            break
        if cells and not header:
            header = _header(path, cells)
        elif cells:
            yield _table_row(feed.taken, header, cells)
    if feed.cut:
        yield feed.cut


def _next_record(records: Iterator[list[str]]) -> list[str] | None:
    # csv's own limit would stop inside a quoted cell and read its remaining lines as rows.
    limit = csv.field_size_limit(sys.maxsize)
    try:
        return next(records, None)
    finally:
        csv.field_size_limit(limit)


def _header(path: Path, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    try:
        for name in names:
            _check_string(name)
    except RowError as error:
        raise DataError(f"{path}: the header cannot be read ({error})") from error
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"{path}: the header names {', '.join(map(repr, repeated))} more than once; rename one of them")
    return names


def _table_row(taken: Sequence[_Line], header: list[str], cells: list[str]) -> Row | BadRow:
    raw = b"".join(line.content for line in taken).rstrip(b"\r\n")
    try:
        if len(cells) != len(header):
            raise RowError(f"wrong number of cells: found {len(cells)}, the header has {len(header)}")
        for name, cell in zip(header, cells, strict=True):
            _check_string(cell)
            if len(cell) > MAX_CELL_CHARACTERS:
                raise RowError(f"cell too long: {name!r} has {len(cell)} characters, {MAX_CELL_CHARACTERS} are allowed")
    except RowError as error:
        return _bad(taken[0].number, str(error), raw.decode("utf-8", "replace"))
    return Row(taken[0].number, dict(zip(header, cells, strict=True)), hashlib.sha256(raw).hexdigest())


def _broken_record(taken: Sequence[_Line], problem: str, columns: int, delimiter: str) -> Iterator[BadRow]:
    """Yield the record, and each further line of it that has the look of a row an unclosed quote has swallowed."""
    first = taken[0]
    yield _bad(
        first.number, f'broken quotes: {problem}; close the quote or write "" for a quote in a cell', first.text()
    )
    for line in taken[1:]:
        if line.content.count(delimiter.encode()) + 1 == columns:
            reason = f"broken quotes: swallowed by the unclosed quote of line {first.number}"
            yield _bad(line.number, reason, line.text())
