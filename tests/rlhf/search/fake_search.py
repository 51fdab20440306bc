"""A search whose runs take no time: the task returns what a trial would, computed from its settings alone.

    python tests/rlhf/search/fake_search.py SECONDS WORD...

runs a search in the current folder, each trial so many seconds, and appends its settings to calls.txt when it starts.
"""

import json
import math
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rlhf.config import ExperimentConfig
from rlhf.launch import launch
from rlhf.search.pruning import listener
from sft.core.errors import DataError, Interrupted, Pruned, RLHFError

WORDS = [
    "-m",
    "hydra/sweeper=optuna",
    "reward.judge_fraction=0.3",
    "ppo.kl_coef=tag(log,interval(0.005,0.5))",
    "ppo.lam=range(0.85,1.0,0.05)",
    "search.startup_trials=4",
]


def quality(config: ExperimentConfig) -> float:
    """Return a win rate that is best at kl_coef = 0.05 and lam = 0.95."""
    return 0.9 - 0.2 * abs(math.log10(config.ppo.kl_coef / 0.05)) - abs(config.ppo.lam - 0.95)


def task(seconds: float, config: ExperimentConfig, name: str, folder: Path, overrides: list[str]) -> dict[str, object]:
    """Behave as a trial does: report looks, end early where the search says so, fail with a lam below 0.81."""
    trial = config.search.trial
    assert trial is not None
    with Path("calls.txt").open("a") as calls:
        calls.write(json.dumps([trial, folder.name, config.ppo.kl_coef, config.ppo.lam]) + "\n")
    hear = listener(config.search, "policy")
    value = quality(config)
    done: dict[str, object] = {"trial": trial, "state": "complete"}
    try:
        for step in (1, 2, 3):
            time.sleep(seconds / 3)
            if hear is not None:
                hear(step, {"eval/win_rate": value * step / 3})
    except Pruned as stop:
        return done | {"state": "pruned", "pruned": str(stop), "objectives": {}}
    if config.ppo.lam < 0.81:
        raise DataError("this lam does not work")
    kl = {"value": 1 / config.ppo.kl_coef, "ci": [0.0, 200.0], "n": 10}
    win_rate = {"value": value, "ci": [value - 0.05, value + 0.05], "n": 10}
    return done | {"objectives": {"win_rate": win_rate, "kl": kl}, "gold": None, "stages": []}


def interrupted_at_third(config: ExperimentConfig, name: str, folder: Path, overrides: list[str]) -> dict[str, object]:
    """Do as `task`, but for the trial in folder 002, which is stopped from outside."""
    result = task(0.0, config, name, folder, overrides)
    if folder.name == "002":
        raise Interrupted("interrupted by SIGTERM")
    return result


def search(*words: str, seconds: float = 0.0) -> Sequence[object]:
    """Run the search in this process, in the current folder."""
    return launch([*WORDS, *words], partial(task, seconds))


if __name__ == "__main__":
    try:
        search(*sys.argv[2:], seconds=float(sys.argv[1]))
    except RLHFError as error:
        sys.exit(f"{error}")
