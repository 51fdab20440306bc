"""The lines of the bias gate, read from a JSON whose parts may be missing."""

from typing import NamedTuple

from sft.core.values import Json, interval, items, number, text


class BiasCheck(NamedTuple):
    """One line of the bias gate."""

    name: str
    group: str
    effect: float | None
    low: float | None
    high: float | None
    n: int | None
    limit: float | None
    passed: bool


def bias_checks(value: object) -> list[BiasCheck]:
    """Read the `checks` of a bias result. A check without a clear pass counts as failed."""
    return [_bias_check(item) for item in items(value)]


def _bias_check(item: Json) -> BiasCheck:
    low, high = interval(item.get("ci"))
    n = number(item.get("n"))
    return BiasCheck(
        name=text(item.get("name")),
        group=text(item.get("group")),
        effect=number(item.get("effect")),
        low=low,
        high=high,
        n=None if n is None else int(n),
        limit=number(item.get("limit")),
        passed=item.get("passed") is True,
    )
