"""What Hydra knows of the run that it has started: the words, the choices, the sweep."""

from collections.abc import Sequence

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from rlhf.runs.record import Asked


def asked_of_hydra(overrides: Sequence[str]) -> Asked:
    """Return what a command line asked for; call it inside a job of Hydra, in whatever process that runs.

    Args:
        overrides: the job's words as they were written.
    """
    hydra = HydraConfig.get()
    choices = {str(group): str(name) for group, name in hydra.runtime.choices.items() if name is not None}
    return Asked(tuple(overrides), choices, str(hydra.sweep.dir) if hydra.mode is RunMode.MULTIRUN else None)
