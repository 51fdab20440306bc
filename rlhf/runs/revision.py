"""Which code runs: the git revision of the checkout that holds this package, and whether files were changed since."""

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

_TIMEOUT_S = 10.0


class Revision(NamedTuple):
    """The state of a checkout."""

    commit: str | None
    """None: the code is installed without its repository, or git is absent."""
    dirty: bool | None
    """Whether tracked files differ from the commit; None without one."""


_PACKAGE = Path(__file__).parents[1] / "__init__.py"


def revision(file: Path = _PACKAGE) -> Revision:
    """Return the revision of the repository that tracks a file; nothing is written, also not git's own index."""
    commit = _git(file.parent, "rev-parse", "HEAD") if _git(file.parent, "ls-files", file.name) else None
    changes = _git(file.parent, "status", "--porcelain", "--untracked-files=no") if commit else None
    return Revision(commit or None, None if changes is None else changes != "")


def _git(folder: Path, *words: str) -> str | None:
    """Return what git prints; None where it fails or is absent."""
    # A hook of another repository exports variables that would point git there.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment["GIT_OPTIONAL_LOCKS"] = "0"
    command = ["git", "-C", str(folder), *words]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, env=environment, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
