"""The errors a user can cause, each with the exit code that schedulers and scripts rely on.

A message names what was found, the rule that it breaks and what to do next. `assert` is for our own invariants only.
"""

from typing import NamedTuple

from sft.core.redaction import looks_secret
from sft.core.urls import holds_password, without_password
from sft.core.values import counted


class ConfigProblem(NamedTuple):
    """One broken rule of a configuration: `field` is dotted, `value` is what was given."""

    field: str
    value: object
    rule: str
    remedy: str

    def under(self, prefix: str) -> "ConfigProblem":
        """Return the same problem with `prefix.` before its field."""
        return self._replace(field=f"{prefix}.{self.field}")

    def without_password(self) -> "ConfigProblem":
        """Return the same problem with `***` in place of a password in a URL, or of a field that names a secret."""
        if self.value is not None and looks_secret(self.field):
            return self._replace(value="***")
        if not holds_password(f"{self.field} {self.value}"):
            return self
        shown = self.value if isinstance(self.value, str) else str(self.value)
        return ConfigProblem(*(without_password(text) for text in (self.field, shown, self.rule, self.remedy)))

    def __str__(self) -> str:
        """Return the problem as one line: field, value, rule, remedy."""
        return f"{self.field}={self.value!r}: {self.rule}; {self.remedy}"


class RLHFError(Exception):
    """Base of all errors meant for users; `exit_code` is the exit code of the process."""

    exit_code = 1


class DataError(RLHFError, ValueError):
    """Data that cannot be used: unreadable, empty, or too much of it broken."""


class ConfigError(RLHFError, ValueError):
    """A configuration that cannot run; carries every problem found, not the first, and repeats no password."""

    exit_code = 2

    def __init__(self, problems: list[ConfigProblem]) -> None:
        self.problems = [problem.without_password() for problem in problems]
        super().__init__(self.problems)  # args stay picklable: joblib sends errors between processes

    def __str__(self) -> str:
        """Return a heading and one line per problem."""
        heading = counted(len(self.problems), "configuration problem")
        return "\n".join([heading, *(f"  {problem}" for problem in self.problems)])


class UsageError(RLHFError, ValueError):
    """A command that asks for something that does not exist, such as an unknown model reference."""

    exit_code = 2


class StorageError(RLHFError, OSError):
    """A disk or database that refuses: full, read-only, locked, corrupt."""

    exit_code = 74


class Interrupted(RLHFError):
    """A run stopped from outside; the same command carries on."""

    exit_code = 75

    def __init__(self, message: str, *, signal: str | None = None) -> None:
        super().__init__(message)
        self.signal = signal
        """Name of the signal that asked for it, where one did."""


class Pruned(RLHFError):
    """A trial that its search ended early, since it does worse than others; nothing of it carries on."""
