"""How one point of a sweep ended without a result, in a form that passes through Hydra and between processes."""

from typing import NamedTuple


class Stop(BaseException):
    """Carries an error through Hydra, which would go on with the next run of a sweep and print a line of its own."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class Failed(NamedTuple):
    """The result of a point that raised: an exception would make Hydra print a line of its own."""

    error: Exception
