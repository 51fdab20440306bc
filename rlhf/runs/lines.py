"""Lines of values that are never cut: columns that do not fit are left out by name, texts stand under their line."""

from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

_GAP, _INDENT = 2, 2
_NO_VALUE = "-"


class Column(NamedTuple):
    """One value of every line."""

    title: str
    cells: Sequence[Text]
    leaves: int = 0
    """Which goes first where the terminal is narrow: the highest; a column of 0 never goes."""

    @property
    def width(self) -> int:
        """Cells of the terminal that it takes."""
        return max([Text(self.title).cell_len, *(value.cell_len for value in self.cells)])

    @property
    def is_empty(self) -> bool:
        """Whether no line has a value."""
        return all(value.plain == _NO_VALUE for value in self.cells)


def cell(value: str | None, style: str = "") -> Text:
    """Return a value of a column; None where a line has none."""
    return Text(value or _NO_VALUE, style=style)


def laid_out(
    columns: Sequence[Column], below: Sequence[Sequence[str]], *, called: str, width: int | None
) -> RenderableType:
    """Return a head and the lines, and what was left out.

    Args:
        columns: at least one, each with as many cells as there are lines.
        below: for each line pieces of text that do not break: wrapped under it, or at its end where nothing is wrapped.
        called: what those texts are.
        width: of the terminal; None for a pipe or a file, where every line is one line.
    """
    empty = [column for column in columns if column.leaves and column.is_empty]
    known = [column for column in columns if column not in empty]
    shown = known if width is None else _fitting(known, width)
    narrow = [column for column in known if column not in shown]
    if width is None and any(below):
        shown = [*shown, Column(called, [Text(" ".join(pieces)) for pieces in below])]
    parts: list[RenderableType] = [_line(shown, [Text(column.title, style="bold") for column in shown])]
    for place, pieces in enumerate(below):
        parts.append(_line(shown, [column.cells[place] for column in shown]))
        if width is not None:
            parts += [Padding(Text(row, style="dim"), (0, 0, 0, _INDENT)) for row in wrapped(pieces, width - _INDENT)]
    if empty:
        parts.append(Text(f"none here has: {_titles(empty)}", style="dim"))
    if narrow:
        said = f"left out in {width} columns: {_titles(narrow)}; a wider terminal, a pipe and --json have them"
        parts.append(Text(said, style="dim"))
    return Group(*parts)


def wrapped(pieces: Sequence[str], width: int) -> list[str]:
    """Return pieces of text in rows of at most so many cells; a piece that is longer has a row of its own."""
    rows: list[str] = []
    for piece in pieces:
        if rows and Text(f"{rows[-1]} {piece}").cell_len <= width:
            rows[-1] = f"{rows[-1]} {piece}"
        else:
            rows.append(piece)
    return rows


def _fitting(columns: Sequence[Column], width: int) -> list[Column]:
    kept = list(columns)
    while sum(column.width + _GAP for column in kept) - _GAP > width:
        next_out = max(kept, key=lambda column: column.leaves)
        if not next_out.leaves:
            break
        kept.remove(next_out)
    return kept


def _line(columns: Sequence[Column], cells: Sequence[Text]) -> Text:
    line = Text()
    for column, value in zip(columns, cells, strict=True):
        line.append_text(value)
        line.append(" " * (column.width - value.cell_len + _GAP))
    line.rstrip()
    return line


def _titles(columns: Sequence[Column]) -> str:
    return ", ".join(column.title for column in columns)
