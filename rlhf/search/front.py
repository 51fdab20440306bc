"""Which of the settings tried are best: the best one by one objective, the Pareto front by several."""

from collections.abc import Sequence

from rlhf.search.config import Objective
from rlhf.search.objectives import MAXIMIZED
from rlhf.search.study import Tried


def front(tried: Sequence[Tried], objectives: Sequence[str]) -> list[Tried]:
    """Return the complete trials that no other one beats in an objective without losing in another.

    Those of equal numbers stand beside each other, in order of place; by one objective these are the best.
    """
    complete = [trial for trial in tried if trial.state == "complete"]
    scores = {trial.place: _scores(trial, objectives) for trial in complete}
    return [trial for trial in complete if not any(_beats(scores[o.place], scores[trial.place]) for o in complete)]


def _scores(trial: Tried, objectives: Sequence[str]) -> tuple[float, ...]:
    return tuple(
        value if Objective(name) in MAXIMIZED else -value for name, value in zip(objectives, trial.values, strict=True)
    )


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))
