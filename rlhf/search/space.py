"""What a search varies: Hydra's override grammar as axes, each with the values it may take.

`a=interval(0.01,0.3)` is a real axis, with `tag(log,interval(...))` on a logarithmic scale; `int(interval(1,8))` and
`range(start,stop,step)` are numbers in steps; `a=x,y` and `choice(x,y)` are choices.
"""

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep

from sft.core.errors import ConfigProblem

Value = float | int | str
_DIGITS = 12


class Scale(StrEnum):
    """What lies between two values of an axis."""

    REAL = "real"
    STEPS = "steps"
    CHOICE = "choice"


class Axis(NamedTuple):
    """One setting that a search varies."""

    key: str
    """As it is written before the equals sign."""
    scale: Scale
    low: float | int = 0
    high: float | int = 0
    """The largest value itself, not one beyond it."""
    step: float | int | None = None
    log: bool = False
    choices: tuple[str, ...] = ()

    @property
    def ends(self) -> tuple[str, ...]:
        """Words with the outermost values, or every choice: where a configuration can be wrong."""
        values: Sequence[Value] = self.choices if self.scale is Scale.CHOICE else (self.low, self.high)
        return tuple(dict.fromkeys(self.word(value) for value in values))

    def word(self, value: Value) -> str:
        """Return the override that sets the axis to a value."""
        return f"{self.key}={value!r}" if isinstance(value, float) else f"{self.key}={value}"

    def place(self, value: object) -> Value | None:
        """Return a configuration's value as one of this axis; None where the axis does not reach it."""
        if self.scale is Scale.CHOICE:
            spelled = {_as_written(choice.strip("'\"")): choice for choice in self.choices}
            return spelled.get(_spelled(value))
        if not isinstance(value, int | float) or isinstance(value, bool) or not self.low <= value <= self.high:
            return None
        if self.step is None:
            return float(value)
        steps = (value - self.low) / self.step
        if not math.isclose(steps, round(steps), abs_tol=1e-9):
            return None
        return int(value) if isinstance(self.low, int) and isinstance(self.step, int) else float(value)


def axis_of(override: Override) -> Axis | ConfigProblem:
    """Return the axis that a sweeping override stands for, or why it is none."""
    key, value = override.get_key_element(), override.value()
    if isinstance(value, IntervalSweep):
        return _interval(key, value)
    if isinstance(value, ChoiceSweep | RangeSweep) and (value.tags or value.shuffle):
        rule = "is shuffled or has a tag, which nothing here follows"
        return ConfigProblem(key, override.get_value_string(), rule, "list the values alone; tags are for intervals")
    if isinstance(value, RangeSweep):
        return _range(key, value)
    choices = tuple(override.sweep_string_iterator())
    if not choices:
        return ConfigProblem(key, override.get_value_string(), "is an empty sweep", "list values: a,b,c")
    return Axis(key, Scale.CHOICE, choices=choices)


def _interval(key: str, found: IntervalSweep) -> Axis | ConfigProblem:
    low, high = found.start, found.end
    assert low is not None
    assert high is not None
    log = "log" in found.tags
    written = f"interval({low},{high})"
    unknown = sorted(found.tags - {"log"})
    if unknown:
        return ConfigProblem(key, written, f"has the tag {', '.join(unknown)}", "the only tag is log")
    if not low < high:
        return ConfigProblem(key, written, "has no values between its ends", "write the lower end first")
    if log and low <= 0:
        return ConfigProblem(key, written, "cannot be logarithmic below 0", "raise the lower end, or leave out log")
    if isinstance(low, int) and isinstance(high, int):
        return Axis(key, Scale.STEPS, low, high, 1, log)
    return Axis(key, Scale.REAL, float(low), float(high), None, log)


def _range(key: str, found: RangeSweep) -> Axis | ConfigProblem:
    assert found.stop is not None
    values = [value for value in found.range() if not math.isclose(value, found.stop)]  # 0.1 + 3 * 0.1 is 0.4
    if not values:
        return ConfigProblem(key, f"range({found.start},{found.stop})", "has no values", "write range(start,stop,step)")
    ends = (min(values), max(values))
    if all(isinstance(number, int) for number in (*ends, found.step)):
        return Axis(key, Scale.STEPS, *ends, abs(found.step))
    low, high, step = (round(float(number), _DIGITS) for number in (*ends, abs(found.step)))  # 0.8 + 3 * 0.05 is 0.95
    return Axis(key, Scale.STEPS, low, high, step)


def defaults(axes: Sequence[Axis], config: Mapping[str, object]) -> dict[str, Value] | None:
    """Return the values that a configuration has without the search; None where an axis does not reach its own.

    Args:
        axes: of the search.
        config: dotted name -> value, with the chosen file of each group.
    """
    placed = {axis.key: axis.place(config.get(axis.key.lstrip("+"))) for axis in axes}
    return {key: value for key, value in placed.items() if value is not None} if None not in placed.values() else None


def _as_written(choice: str) -> str:
    """Return a choice as YAML writes it: Hydra turns `true,false` into `True,False`."""
    return choice.lower() if choice in ("True", "False") else choice


def _spelled(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
