"""Tables and texts of a model card, in Markdown."""

import json
from collections.abc import Iterator, Sequence

from sft.core.markdown import one_line
from sft.core.values import Json, mapping, quantity
from sft.core.visible import visible


def safe(value: object) -> str:
    """Return a value of someone else's as one line of Markdown that does nothing, hidden characters written out."""
    return one_line(visible(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))


def metrics_table(metrics: Json) -> Iterator[str]:
    """Yield a table of numbers, each with what stands inside it."""
    return table(("number", "value"), [(safe(name), shown(value)) for name, value in _flat(metrics)])


def _flat(metrics: Json) -> Iterator[tuple[str, object]]:
    """Yield every number; what an estimate holds besides its value stands behind it under names of its own."""
    for name, value in metrics.items():
        fields = mapping(value)
        if not fields:
            yield name, value
            continue
        yield name, {part: fields[part] for part in ("value", "ci", "n") if part in fields}
        for part, inner in fields.items():
            if part in ("value", "ci", "n") or part.endswith("_ci"):
                continue
            yield f"{name}: {part}", {"value": inner, "ci": fields.get(f"{part}_ci"), "n": fields.get("n")}


def shown(value: object) -> str:
    """Return a number with about four digits, its interval and its n where they are known."""
    found = quantity(value)
    if found is None:
        return "not measured" if value is None or isinstance(value, dict) else safe(value)
    parts = [_digits(found.value)]
    if found.interval is not None:
        parts.append(f"[{_digits(found.interval[0])}, {_digits(found.interval[1])}]")
    if found.n is not None:
        parts.append(f"n={found.n}")
    return " ".join(parts)


def _digits(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else f"{value:.4g}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a table; its cells are Markdown."""
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
