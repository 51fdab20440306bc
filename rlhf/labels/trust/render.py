"""A report of the labels on a terminal: one line a number, a table for a list; in a pipe plain and unwrapped.

A list that is too wide for the terminal is shown row by row instead: a table of cut cells tells nothing.
"""

import sys
from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_PLAIN_WIDTH = 500


def show(document: Mapping[str, object]) -> None:
    """Print a document of JSON values to standard output: numbers first, then its lists of objects."""
    console = Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH, markup=False, highlight=False)
    grid = Table.grid(padding=(0, 2))
    for name, shown in _lines(document):
        grid.add_row(Text(name), Text(shown))
    console.print(grid)
    for name, value in document.items():
        if _is_table(value):
            console.print(f"\n{name}")
            table = _table(value)
            console.print(table if _widest(value) <= console.width else _records(value))


def _lines(document: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    for name, value in document.items():
        if isinstance(value, Mapping) and not _is_estimate(value):
            lines += _lines(value, f"{prefix}{name}.") or [(f"{prefix}{name}", "-")]
        elif not _is_table(value):
            lines.append((f"{prefix}{name}", _cell(value)))
    return lines


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _table(rows: object) -> Table:
    assert isinstance(rows, list)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(*columns, box=box.SIMPLE_HEAD if sys.stdout.isatty() else None)
    for row in rows:
        table.add_row(*(Text(_cell(row.get(name))) for name in columns))
    return table


def _widest(rows: object) -> int:
    """Return the columns of a terminal that a table needs so that no cell is wrapped."""
    assert isinstance(rows, list)
    names = dict.fromkeys(name for row in rows for name in row)
    return sum(2 + max(len(name), *(len(_cell(row.get(name))) for row in rows)) for name in names)


def _records(rows: object) -> Table:
    """Return rows one below the other, a line a value, without what is not known."""
    assert isinstance(rows, list)
    grid = Table.grid(padding=(0, 2))
    for number, row in enumerate(rows):
        if number:
            grid.add_row("", "")
        for name, value in row.items():
            if value is not None and value != []:
                grid.add_row(Text(name), Text(_cell(value)))
    return grid


def _is_estimate(value: Mapping[str, object]) -> bool:
    return value.keys() == {"value", "ci", "n"}


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e6 else f"{value:.0f}"
    if isinstance(value, Mapping) and _is_estimate(value):
        interval = value["ci"]
        shown = ", ".join(_cell(end) for end in interval) if isinstance(interval, Sequence) else _cell(interval)
        return f"{_cell(value['value'])} [{shown}] n={value['n']}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_cell(part)}" for name, part in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(_cell(part) for part in value) or "-"
    return str(value)
