"""A run in a few words: what it was asked to do, how far it is, its headline numbers."""

from collections import Counter
from collections.abc import Sequence

from rlhf.runs.compare import run_line
from rlhf.runs.folder import Found, RunFolder
from rlhf.runs.measures import HEADLINES, VALIDATION, evaluation, measured
from rlhf.runs.record import State
from sft.core.values import mapping, text

LISTED = ("win_rate", "policy_gold", "kl", "reward_model_accuracy")
"""Numbers of the list."""
_SAID_OTHERWISE = ("experiment",)
_SAID_BY_A_TRIAL = ("search.study", "search.storage", "search.trial")
"""Words that the search adds to a trial's; which trial it is, is said without them."""


def shared_words(runs: Sequence[RunFolder]) -> tuple[str, ...]:
    """Return the overrides that at least two thirds of several runs have, in the order of the first that has them."""
    counts = Counter(word for run in runs for word in _words(run).values())
    return tuple(word for word, count in counts.items() if count > 1 and 3 * count >= 2 * len(runs))


def own_words(run: RunFolder, shared: Sequence[str]) -> list[str]:
    """Return a run's overrides without the shared ones."""
    return [word for word in _words(run).values() if word not in shared]


def lacking(run: RunFolder, shared: Sequence[str]) -> list[str]:
    """Return the shared overrides whose setting a run leaves as it is: not those where it has a value of its own."""
    named = _words(run)
    return [word for word in shared if _setting(word) not in named]


def _words(run: RunFolder) -> dict[str, str]:
    """Return the setting -> the override that counts, which is the last of several."""
    hidden = _SAID_OTHERWISE if run.record.trial is None else (*_SAID_OTHERWISE, *_SAID_BY_A_TRIAL)
    words = {_setting(word): word for word in run.record.asked.overrides}
    return {setting: word for setting, word in words.items() if setting not in hidden}


def _setting(word: str) -> str:
    return word.lstrip("+").split("=", 1)[0]


def progress(run: RunFolder) -> str:
    """Return the state, and where a run stopped."""
    return f"{run.record.state.value} {stopped(run)}".rstrip()


def stopped(run: RunFolder) -> str:
    """Return the stage after which a run stopped short; nothing for one that runs, is finished or did not begin."""
    if run.record.state in (State.FINISHED, State.RUNNING) or not run.record.stages:
        return ""
    return f"after {run.record.stages[-1].name}"


def no_objectives(run: RunFolder) -> str:
    """Return why a trial has no objectives."""
    if run.record.state is State.PRUNED:
        return run.record.error or "its search ended it early"
    if run.record.state is State.FINISHED:
        return "results.json holds none" if run.results else "results.json is missing or of another run"
    return f"it is {run.record.state.value}"


def bias(run: RunFolder) -> str:
    """Return the bias gate's verdict; empty before it is known."""
    passed = mapping(run.results.get("bias")).get("passed")
    return {True: "passed", False: "failed"}.get(passed, "") if isinstance(passed, bool) else ""


def list_as_json(found: Found) -> dict[str, object]:
    """Return the list of runs as plain JSON, with every override of each."""
    rows = [
        {
            **run_line(run),
            "experiment": run.record.experiment,
            "overrides": list(run.record.asked.overrides),
            "sweep": run.record.asked.sweep,
            "trial": run.place,
            "numbers": {name: evaluation(run)[name] for name in listed_names(run)},
            "bias": bias(run) or None,
            "error": run.record.error,
        }
        for run in found.runs
    ]
    return {"runs": rows, "unreadable": found.unreadable, "older": found.older}


def listed_names(run: RunFolder) -> list[str]:
    """Return the names of those numbers of the list that a run has, a trial's on validation data."""
    names = [measure.name for measure in HEADLINES if measure.name in LISTED or measure.name.startswith(VALIDATION)]
    return [name for name in names if measured(run, name) is not None]


def run_as_json(run: RunFolder) -> dict[str, object]:
    """Return everything about one run as plain JSON: run.json with its true state, and results.json."""
    return {**run.record.as_dict(), "folder": str(run.path), "results": dict(run.results) or None}


def headline_names(run: RunFolder) -> list[tuple[str, str, bool]]:
    """Return (name, title, whether it is a share) of the headline numbers that a run has."""
    return [(m.name, m.title, m.rate) for m in HEADLINES if measured(run, m.name) is not None]


def alias(run: RunFolder) -> str:
    """Return what the registry calls the policy; empty where it has no alias."""
    return text(run.results.get("alias"))
