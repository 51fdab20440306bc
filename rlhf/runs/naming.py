"""What W&B calls a run, and which runs it shows together."""

from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from rlhf.runs.record import Asked
from rlhf.runs.revision import Revision
from sft.core.redaction import redact_text

_SAID_ELSEWHERE = ("experiment", "registry", "wandb", "resume", "hydra", "search")
"""First parts of words that say which run it is and where it is kept, not what it does."""
_SWEEP_FILE = "multirun.yaml"
"""Where Hydra keeps the words of a sweep as they were written."""
_NAME_LENGTH = 100


def label(asked: Asked, experiment: str) -> str:
    """Return the overrides that differ, such as `ppo.kl_coef=0.1,seed=1`, or the experiment's name without any.

    In a sweep these are the words that its points do not share, else all words but those that say where things are.
    """
    shared = _shared_words(asked.sweep)
    words = [word for word in asked.overrides if word not in shared and not _said_elsewhere(word)]
    name = ",".join(redact_text(word) for word in words)
    return (name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 1]}…") or experiment


def group(asked: Asked, experiment: str) -> str | None:
    """Return the W&B group of a sweep's runs, by experiment and the last parts of its folder; None outside a sweep."""
    return None if asked.sweep is None else "/".join([experiment, *Path(asked.sweep).parts[-2:]])


def revision_tags(revision: Revision) -> list[str]:
    """Return the git revision, and `git:dirty` where tracked files differ from it; nothing outside a checkout."""
    if revision.commit is None:
        return []
    return [f"git:{revision.commit[:12]}", *(["git:dirty"] if revision.dirty else [])]


def about(asked: Asked, run_id: str) -> dict[str, object]:
    """Return what W&B's configuration shows of a run beside its settings."""
    return {
        "run_id": run_id,
        "hydra": {"overrides": list(asked.overrides), "choices": dict(asked.choices), "sweep": asked.sweep},
    }


def _said_elsewhere(word: str) -> bool:
    return word.lstrip("+~").split("=")[0].split(".")[0].split("/")[0].split("@")[0] in _SAID_ELSEWHERE


def _shared_words(sweep: str | None) -> set[str]:
    path = None if sweep is None else Path(sweep) / _SWEEP_FILE
    if path is None or not path.is_file():
        return set()
    try:
        words = OmegaConf.select(OmegaConf.load(path), "hydra.overrides.task", default=[])
        return {str(word) for word in words}
    except (OSError, YAMLError, OmegaConfBaseException):
        return set()
