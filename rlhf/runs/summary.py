"""A run in a few words: what it was asked to do, how far it is, its headline numbers."""

from collections.abc import Sequence

from rlhf.runs.compare import run_line
from rlhf.runs.folder import Found, RunFolder
from rlhf.runs.measures import HEADLINES, evaluation, measured
from rlhf.runs.record import State
from sft.core.values import mapping, text

LISTED = ("win_rate", "policy_gold", "kl", "reward_model_accuracy")
"""Numbers of the list."""


def differing_overrides(runs: Sequence[RunFolder]) -> list[tuple[str, ...]]:
    """Return each run's overrides without those that all of them have; of a single run all, but its experiment."""
    every = [run.record.asked.overrides for run in runs]
    common = set.intersection(*(set(words) for words in every)) if len(every) > 1 else set()
    return [
        tuple(word for word in words if word not in common and not word.lstrip("+").startswith("experiment="))
        for words in every
    ]


def progress(run: RunFolder) -> str:
    """Return the state, with the machine of a run elsewhere, or where a run stands or stopped."""
    state = run.record.state
    if state is State.FINISHED or not run.record.stages:
        return state.value
    return f"{state.value} after {run.record.stages[-1].name}" if state is not State.RUNNING else state.value


def bias(run: RunFolder) -> str:
    """Return the bias gate's verdict; empty before it is known."""
    passed = mapping(run.results.get("bias")).get("passed")
    return {True: "passed", False: "failed"}.get(passed, "") if isinstance(passed, bool) else ""


def list_as_json(found: Found) -> dict[str, object]:
    """Return the list of runs as plain JSON."""
    rows = []
    for run, words in zip(found.runs, differing_overrides(found.runs), strict=True):
        numbers = {name: evaluation(run)[name] for name in LISTED if measured(run, name) is not None}
        rows.append(
            {
                **run_line(run),
                "experiment": run.record.experiment,
                "overrides": list(words),
                "sweep": run.record.asked.sweep,
                "numbers": numbers,
                "bias": bias(run) or None,
                "error": run.record.error,
            }
        )
    return {"runs": rows, "unreadable": found.unreadable, "older": found.older}


def run_as_json(run: RunFolder) -> dict[str, object]:
    """Return everything about one run as plain JSON: run.json with its true state, and results.json."""
    return {**run.record.as_dict(), "folder": str(run.path), "results": dict(run.results) or None}


def headline_names(run: RunFolder) -> list[tuple[str, str, bool]]:
    """Return (name, title, whether it is a share) of the headline numbers that a run has."""
    return [(m.name, m.title, m.rate) for m in HEADLINES if measured(run, m.name) is not None]


def alias(run: RunFolder) -> str:
    """Return what the registry calls the policy; empty where it has no alias."""
    return text(run.results.get("alias"))
