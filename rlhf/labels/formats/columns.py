"""Reading one value of a row: the value in its type, or RowError with the reason; nothing is guessed."""

import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import islice

from sft.core.rows import RowError, json_type

Fields = Mapping[str, object]

_ABSENT = {"", "nan", "none", "null"}
_LATEST_S = 2.0**32
"""The year 2106: a greater number counts milliseconds."""


def column(fields: Fields, name: str) -> object:
    """Return a value that must be there and not null."""
    value = fields.get(name)
    if value is None:
        raise RowError(f"missing column: {name!r} (found {listed(fields)})")
    return value


def listed(names: Iterable[object]) -> str:
    """Return names for a message, none of them and not all of them too long."""
    first = [str(name)[:40] for name in islice(names, 21)]
    return ", ".join([*first[:20], *(["and more"] if len(first) > 20 else [])]) or "none"


def objects_in(value: object, name: str) -> list[dict[str, object]]:
    """Return a list of objects."""
    return [object_of(item, f"an item of {name}") for item in list_of(value, name)]


def objects_at(fields: Fields, name: str) -> list[dict[str, object]]:
    """Return an optional list of objects; empty where absent."""
    return [object_of(item, f"an item of {name}") for item in list_at(fields, name)]


def list_of(value: object, name: str) -> list[object]:
    """Return a list."""
    if not isinstance(value, list):
        raise RowError(f"wrong type: {name} must be a list, found {json_type(value)}")
    return value


def list_at(fields: Fields, name: str) -> list[object]:
    """Return an optional list; empty where absent."""
    return [] if fields.get(name) is None else list_of(fields[name], name)


def object_of(value: object, name: str) -> dict[str, object]:
    """Return an object."""
    if not isinstance(value, dict):
        raise RowError(f"wrong type: {name} must be an object, found {json_type(value)}")
    return value


def is_absent(value: object) -> bool:
    """Whether an optional cell says nothing: null, empty, or how tables write that (nan, none, null)."""
    if value is None:
        return True
    if isinstance(value, float):
        return math.isnan(value)
    return isinstance(value, str) and value.strip().lower() in _ABSENT


def name_in(fields: Fields, name: str) -> str | None:
    """Return an optional name or number of a person, model or split as text; None where absent."""
    value = fields.get(name)
    if value is None or is_absent(value):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RowError(f"wrong type: {name!r} must be a text, found {json_type(value)}")
    return str(value).strip()


def shown(value: object) -> str:
    """Return a value for a message: shortened, quoted."""
    return repr(str(value)[:40])


def number_in(fields: Fields, name: str, low: float, high: float) -> float:
    """Return a number that must be there, `low` to `high`; a text that holds one counts, true and false do not."""
    return number(column(fields, name), name, low, high)


def number(value: object, name: str, low: float, high: float) -> float:
    """Return a value as a number from `low` to `high`, both included unless infinite."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RowError(f"wrong type: {name!r} must be a number, found {json_type(value)}")
    try:
        found = float(value)
    except (ValueError, OverflowError):
        found = math.nan
    if math.isinf(found) or not low <= found <= high:
        rule = f"of {low:g} or more" if high == math.inf else f"from {low:g} to {high:g}"
        raise RowError(f"wrong {name}: found {shown(value)}, it must be a number {rule}")
    return found


def strength_in(fields: Fields, name: str) -> float | None:
    """Return an optional number of 0 or more; None where absent."""
    value = fields.get(name)
    return None if is_absent(value) else number(value, name, 0, math.inf)


def time_in(fields: Fields, name: str) -> float | None:
    """Return an optional time in seconds since 1970: a number of them, or a text in ISO 8601 with its zone."""
    value = fields.get(name)
    if is_absent(value):
        return None
    if isinstance(value, str) and not _is_number(value):
        return _iso_time(value, name)
    return number(value, name, 0, _LATEST_S)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _iso_time(text: str, name: str) -> float:
    try:
        time = datetime.fromisoformat(text.strip())
        seconds = time.timestamp() if time.tzinfo else None
    except (ValueError, OverflowError):
        seconds = None
    if seconds is None:
        raise RowError(
            f"wrong {name}: found {shown(text)}, it must be seconds since 1970 or like 2024-05-01T12:00:00+00:00"
        )
    return seconds


def first_of(fields: Fields, names: tuple[str, ...]) -> object:
    """Return the value of the first of several names of one thing. Raises RowError that names them all."""
    for name in names:
        if fields.get(name) is not None:
            return fields[name]
    raise RowError(f"missing column: one of {', '.join(names)} (found {listed(fields)})")
