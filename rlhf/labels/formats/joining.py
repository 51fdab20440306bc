"""Rows that mean something only together: adjacent rows of one prompt become one row before it is parsed.

A joined row has the line of its first part, a digest over the digests of all, and in `PARTS` their lines and values.
Only neighbours are joined, so that a file of any size streams.
"""

from collections.abc import Iterator

from rlhf.labels.formats.columns import objects_in
from rlhf.labels.formats.compare import MAX_ANSWERS
from sft.core.durable import text_digest
from sft.core.rows import BadRow, Row, RowError

Items = Iterator[Row | BadRow]

PARTS = "rows joined by their prompt"
"""The only column of a joined row: a list of `{"line": ..., "value": {...}}`."""


def join_pairs(items: Items) -> Items:
    """Join every two adjacent rows of one prompt; a row without such a neighbour becomes a BadRow."""
    return _joined(items, 2, "no pair: neither neighbour has the same prompt")


def join_prompts(items: Items) -> Items:
    """Join all adjacent rows of one prompt, at most MAX_ANSWERS at a time; a row on its own becomes a BadRow."""
    return _joined(items, MAX_ANSWERS, "no pair: neither neighbour has the same prompt, so there is no other answer")


def _joined(items: Items, largest: int, alone: str) -> Items:
    group: list[Row] = []
    for item in items:
        if isinstance(item, BadRow):
            yield item
            continue
        if group and (len(group) == largest or not _same_prompt(group[0], item)):
            yield _closed(group, alone)
            group = []
        group.append(item)
    if group:
        yield _closed(group, alone)


def _same_prompt(first: Row, second: Row) -> bool:
    return "prompt" in first.value and first.value["prompt"] == second.value.get("prompt")


def _closed(group: list[Row], alone: str) -> Row | BadRow:
    if len(group) == 1:
        return group[0].rejected(alone)
    parts = [{"line": row.line, "value": row.value} for row in group]
    return Row(group[0].line, {PARTS: parts}, text_digest(" ".join(row.digest for row in group)))


def parts_of(row: Row) -> list[dict[str, object]]:
    """Return the values of the rows that were joined. Raises RowError for a row that no joiner made."""
    if PARTS not in row.value:
        raise RowError("not joined: the rows of this format must pass the joiner of their format first")
    found = [part.get("value") for part in objects_in(row.value[PARTS], PARTS)]
    return objects_in(found, PARTS)


def rows_behind(row: Row) -> int:
    """Return how many rows of the file a row stands for: 1, or as many as were joined."""
    parts = row.value.get(PARTS)
    return len(parts) if isinstance(parts, list) else 1


def rejected(row: Row, reason: str) -> list[BadRow]:
    """Return every row of the file behind a row as one that was not used, each with its own line."""
    parts = row.value.get(PARTS)
    if not isinstance(parts, list):
        return [row.rejected(reason)]
    return [Row(part["line"], part["value"], row.digest).rejected(reason) for part in parts]
