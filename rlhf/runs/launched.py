"""What Hydra knows of the run that it has started: the words, the choices, the sweep, the user's YAML files."""

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
    folders = [str(source.path) for source in hydra.runtime.config_sources if source.provider == "command-line"]
    return Asked(
        overrides=tuple(overrides),
        choices=choices,
        sweep=str(hydra.sweep.dir) if hydra.mode is RunMode.MULTIRUN else None,
        config_dir=folders[0] if folders else None,
        config_name=str(hydra.job.config_name),
    )
