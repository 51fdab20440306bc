"""What commands found, on a terminal: sections of sentences, lines and tables; in a pipe plain and unwrapped.

A table that is too wide for the terminal is shown row by row instead: a table of cut cells tells nothing.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeGuard

from rich import box
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sft.core.statistics import Estimate

_PLAIN_WIDTH = 500
_DIGEST_SHOWN = 12
UNKNOWN = "-"

Cells = Mapping[str, str]
"""Heading of the column -> what its cell says."""


class Section(NamedTuple):
    """A title and what stands below it, in this order."""

    title: str
    sentences: Sequence[str] = ()
    lines: Sequence[tuple[str, str]] = ()
    """Name and value."""
    rows: Sequence[Cells] = ()
    after: Sequence[str] = ()
    """Sentences below all of it."""


def show_sections(sections: Sequence[Section]) -> None:
    """Print sections to standard output, an empty line between them."""
    console = _console()
    for number, section in enumerate(sections):
        parts: list[RenderableType] = [Text(sentence) for sentence in section.sentences]
        if section.lines:
            parts.append(_grid(section.lines))
        if section.rows:
            parts.append(_table_or_records(section.rows, console.width - 2))
        parts += [Text(sentence) for sentence in section.after]
        _print(
            console, *([""] if number else []), Text(section.title, "bold"), *(Padding(p, (0, 0, 0, 2)) for p in parts)
        )


def show(document: Mapping[str, object]) -> None:
    """Print a document of JSON values to standard output: numbers first, then its lists of objects."""
    console = _console()
    _print(console, _grid(_lines(document)))
    for name, value in document.items():
        if _is_table(value):
            rows = [{key: _cell(cell) for key, cell in row.items()} for row in value]
            _print(console, "", Text(name), _table_or_records(rows, console.width))


def share(estimate: Estimate | None) -> str:
    """Return a share in per cent with its interval and n."""
    if estimate is None:
        return UNKNOWN
    value, low, high = (f"{100 * part:.0f}" for part in (estimate.value, *estimate.ci))
    return f"{value} % [{low}, {high}] n={estimate.n}"


def points(estimate: Estimate | None) -> str:
    """Return a difference of shares in points of 100, always with its sign."""
    if estimate is None:
        return UNKNOWN
    value, low, high = (f"{100 * part:+.0f}".replace("-0", "+0") for part in (estimate.value, *estimate.ci))
    return f"{value} [{low}, {high}] n={estimate.n}"


def coefficient(estimate: Estimate | None) -> str:
    """Return a number that is no share with its interval and n."""
    if estimate is None:
        return UNKNOWN
    value, low, high = (f"{part:.2f}" for part in (estimate.value, *estimate.ci))
    return f"{value} [{low}, {high}] n={estimate.n}"


def short(digest: str) -> str:
    """Return the beginning of a digest, enough to find it."""
    return digest[:_DIGEST_SHOWN]


def zeros(counts: Mapping[str, float]) -> list[str]:
    """Return one sentence that names all counts of nothing; none where there are none."""
    names = [name for name, count in counts.items() if not count]
    return [f"none: {', '.join(names)}"] if names else []


def known_columns(rows: Sequence[Cells]) -> list[Cells]:
    """Return the rows without the columns that no row knows."""
    known = {name for row in rows for name, cell in row.items() if cell not in (UNKNOWN, "")}
    return [{name: cell for name, cell in row.items() if name in known} for row in rows]


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH, markup=False, highlight=False)


def _print(console: Console, *parts: RenderableType) -> None:
    """Print without the spaces with which tables fill their lines."""
    with console.capture() as captured:
        for part in parts:
            console.print(part)
    for line in captured.get().splitlines():
        print(line.rstrip())


def _grid(lines: Iterable[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for name, shown in lines:
        grid.add_row(Text(name), Text(shown))
    return grid


def _table_or_records(rows: Sequence[Cells], width: int) -> Table:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if sum(2 + max(len(name), *(len(row.get(name, UNKNOWN)) for row in rows)) for name in columns) > width:
        return _records(rows)
    table = Table(
        *columns, header_style="", box=box.SIMPLE_HEAD if sys.stdout.isatty() else None, pad_edge=False, show_edge=False
    )
    for row in rows:
        table.add_row(*(Text(row.get(name, UNKNOWN)) for name in columns))
    return table


def _records(rows: Sequence[Cells]) -> Table:
    """Return rows one below the other, a line a value, without what is not known."""
    grid = Table.grid(padding=(0, 2))
    for number, row in enumerate(rows):
        if number:
            grid.add_row("", "")
        for name, cell in row.items():
            if cell != UNKNOWN:
                grid.add_row(Text(name), Text(cell))
    return grid


def _lines(document: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    for name, value in document.items():
        if isinstance(value, Mapping) and not _is_estimate(value):
            lines += _lines(value, f"{prefix}{name}.") or [(f"{prefix}{name}", UNKNOWN)]
        elif not _is_table(value):
            lines.append((f"{prefix}{name}", _cell(value)))
    return lines


def _is_table(value: object) -> TypeGuard[list[Mapping[str, object]]]:
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _is_estimate(value: Mapping[str, object]) -> bool:
    return value.keys() == {"value", "ci", "n"}


def _cell(value: object) -> str:
    if value is None:
        return UNKNOWN
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e6 else f"{value:.0f}"
    if isinstance(value, Mapping) and _is_estimate(value):
        interval = value["ci"]
        shown = ", ".join(_cell(end) for end in interval) if isinstance(interval, Sequence) else _cell(interval)
        return f"{_cell(value['value'])} [{shown}] n={value['n']}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_cell(part)}" for name, part in value.items()) or UNKNOWN
    if isinstance(value, list):
        return ", ".join(_cell(part) for part in value) or UNKNOWN
    return str(value)
