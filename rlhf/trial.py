"""What a trial of a search says of itself in results.json: its objectives, measured on validation data."""

from dataclasses import dataclass
from pathlib import Path

from rlhf.report import StageResult
from rlhf.run import Run
from rlhf.search.config import Objective
from rlhf.search.objectives import gold, measured
from rlhf.search.places import place_of
from sft.core.values import Quantity, plain, shown_interval


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """A trial that ended, or that its search ended early."""

    experiment: str
    run_id: str
    seed: int
    trial: int
    """Its place in the search, which its folder is named after."""
    stages: tuple[StageResult, ...]
    """Those that are finished."""
    objectives: dict[str, Quantity]
    """Empty for one that was ended early."""
    gold: Quantity | None
    """Mean true utility of the policy's answers, where it is known; it chooses nothing."""
    pruned: str | None = None
    """Why it was ended early."""

    def as_dict(self) -> dict[str, object]:
        """Return results.json."""
        return {
            "experiment": self.experiment,
            "run_id": self.run_id,
            "seed": self.seed,
            "trial": self.trial,
            "state": "complete" if self.pruned is None else "pruned",
            "pruned": self.pruned,
            "stages": [stage.as_dict() for stage in self.stages],
            "objectives": {name: _shown(found) for name, found in self.objectives.items()},
            "gold": None if self.gold is None else _shown(self.gold),
        }

    def message(self) -> str:
        """Return one line for a person."""
        if self.pruned is not None:
            return f"trial {self.trial}: {self.pruned}"
        found = self.objectives.items()
        said = [f"{name} {plain(value.value)} {shown_interval(value, rate=False)}".strip() for name, value in found]
        return f"trial {self.trial}: {', '.join(said)}"


def trial_result(run: Run, experiment: str, run_id: str, folder: Path, *, pruned: str | None = None) -> TrialResult:
    """Return what the trial in a folder has come to, from what its stages reported."""
    config = run.config
    assert config.search.trial is not None
    found = {}
    if pruned is None:
        for name in config.search.objectives:
            value = measured(Objective(name), run.reports, seed=config.seed)
            if value is not None:
                found[name] = value
    return TrialResult(
        experiment=experiment,
        run_id=run_id,
        seed=config.seed,
        trial=place_of(folder, config.search.trial),
        stages=tuple(run.stages.values()),
        objectives=found,
        gold=gold(run.reports),
        pruned=pruned,
    )


def _shown(found: Quantity) -> dict[str, object]:
    return {"value": found.value, "ci": None if found.interval is None else list(found.interval), "n": found.n}
