"""`python -m rlhf` is `rlhf`: it answers signals from its first lines on, while the command line is still imported."""

import sys
from typing import NoReturn

from sft.core.interruption import leave_at_signals

COMPUTING = ("run", "resume")
"""Commands that a scheduler may interrupt and start again."""


def main() -> NoReturn:
    """Run the command line."""
    if sys.argv[1:2] and sys.argv[1] in COMPUTING:
        leave_at_signals(75, "interrupted before anything began; give the same command again\n")
    from rlhf.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
