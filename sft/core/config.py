"""The rules that configuration dataclasses check themselves with. Imports no torch.

A section is a kw_only dataclass whose `problems()` lists its broken rules; they are raised all at once when one is
made, so plain Python gets the check that the command line gets.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sft.core.errors import ConfigError, ConfigProblem
from sft.core.urls import holds_password, without_password


def raise_problems(problems: Sequence[ConfigProblem]) -> None:
    """Raise ConfigError when there is any problem."""
    if problems:
        raise ConfigError(list(problems))


@dataclass(kw_only=True)
class Section:
    """A part of a configuration that checks itself."""

    def problems(self) -> list[ConfigProblem]:
        """Return every broken rule of this section."""
        return []

    def __post_init__(self) -> None:
        """Raise ConfigError with all problems."""
        raise_problems(self.problems())


def positive(**values: float | None) -> list[ConfigProblem]:
    """Each value must be greater than 0; None passes."""
    return [
        ConfigProblem(name, value, "must be greater than 0", "give a positive number")
        for name, value in values.items()
        if value is not None and not value > 0
    ]


def at_least(minimum: float, **values: float | None) -> list[ConfigProblem]:
    """Each value must be at least `minimum`; None passes."""
    return [
        ConfigProblem(name, value, f"must be at least {minimum}", f"use {minimum} or more")
        for name, value in values.items()
        if value is not None and not value >= minimum
    ]


def between(low: float, high: float, **values: float | None) -> list[ConfigProblem]:
    """Each value must lie in [low, high]; None passes."""
    return [
        ConfigProblem(name, value, f"must lie between {low} and {high}", f"choose a value in [{low}, {high}]")
        for name, value in values.items()
        if value is not None and not low <= value <= high
    ]


def multiple_of(field: str, value: int, divisor_field: str, divisor: int) -> list[ConfigProblem]:
    """`value` must be a multiple of `divisor`; the remedy names the nearest multiples."""
    if divisor <= 0 or value % divisor == 0:
        return []
    below, above = value - value % divisor, value - value % divisor + divisor
    choices = f"{below} or {above}" if below else f"{above}"
    return [ConfigProblem(field, value, f"is not a multiple of {divisor_field}={divisor}", f"use {choices}")]


def no_password(**urls: str | None) -> list[ConfigProblem]:
    """No URL may hold a password; the problem does not repeat it."""
    rule = "holds a password, which would be stored with every run"
    remedy = "leave it out and give it with PGPASSFILE, PGPASSWORD or PGSERVICE"
    return [
        ConfigProblem(name, without_password(url), rule, remedy)
        for name, url in urls.items()
        if url is not None and holds_password(url)
    ]
