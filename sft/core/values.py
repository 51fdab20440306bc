"""Reading of JSON whose parts may be missing, and how numbers are written for people.

Every reader takes any JSON value and returns an empty result instead of failing.
"""

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import NamedTuple

Json = Mapping[str, object]
_MOST_DIGITS = 6
"""Behind the point; a smaller number is written as 1.23e-07."""


def number(value: object) -> float | None:
    """Return a finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def mapping(value: object) -> Json:
    """Return a JSON object, or an empty one."""
    return value if isinstance(value, Mapping) else {}


def items(value: object) -> list[Json]:
    """Return the objects of a JSON list."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list | tuple) else []


def numbers(value: object) -> list[float]:
    """Return the finite numbers of a JSON list."""
    found = [number(item) for item in value] if isinstance(value, list | tuple) else []
    return [item for item in found if item is not None]


def text(value: object) -> str:
    """Return a value as text; nothing for null."""
    return "" if value is None else str(value)


class Quantity(NamedTuple):
    """A number with, where they are known, its 95 % interval and the n behind it."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval, when it is known."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def above(self, level: float) -> bool:
        """Return whether the whole interval lies above a level; False without an interval."""
        return self.low is not None and self.low > level

    def below(self, level: float) -> bool:
        """Return whether the whole interval lies below a level; False without an interval."""
        return self.high is not None and self.high < level


def quantity(value: object) -> Quantity | None:
    """Return `{value, ci: [lo, hi], n}` or a plain number as a quantity; None when there is no number."""
    plain = number(value)
    if plain is not None:
        return Quantity(plain)
    fields = mapping(value)
    estimate = number(fields.get("value"))
    if estimate is None:
        return None
    n = number(fields.get("n"))
    low, high = interval(fields.get("ci"))
    return Quantity(estimate, low, high, None if n is None else int(n))


def interval(value: object) -> tuple[float, float] | tuple[None, None]:
    """Return `[lo, hi]` as a pair, or a pair of None."""
    ends = numbers(value)
    return (ends[0], ends[1]) if len(ends) == 2 else (None, None)


def percent(value: float) -> str:
    """Return a rate (0 to 1) as `83.1 %`."""
    return f"{100 * value:.1f} %"


def plain(value: float) -> str:
    """Return a number with about four digits, whole numbers whole, thousands apart."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}".replace(",", "\u202f")
    if abs(value) >= 1e5 or abs(value) < 1e-3:
        return f"{value:.2e}"
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural where it is not one."""
    return f"{count} {noun}{'s' * (count != 1)}"


def shown_value(estimate: Quantity) -> str:
    """Return a number with the digits behind the point that `shown_interval` gives its interval; alone, as `plain`."""
    if estimate.interval is None:
        return plain(estimate.value)
    digits = max(-int(Decimal(f"{end:.3g}").as_tuple().exponent) for end in estimate.interval)
    return plain(estimate.value) if digits > _MOST_DIGITS else f"{estimate.value:z.{max(0, digits)}f}"


def shown_interval(estimate: Quantity, *, rate: bool) -> str:
    """Return `[79.0, 86.5]` in the unit of the value, or nothing without an interval."""
    if estimate.interval is None:
        return ""
    low, high = estimate.interval
    return f"[{100 * low:.1f}, {100 * high:.1f}]" if rate else f"[{low:.3g}, {high:.3g}]"


def duration(seconds: float) -> str:
    """Return `0.4 s`, `42 s` or `3 min 05 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return (
        f"{whole // 60} min {whole % 60:02d} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    )
