"""Which policy of a run is kept, and when to stop: pure states that a checkpoint can hold. Gold never enters.

The training loop tells the state what was measured, saves the weights whose iteration became the best, and stops when
patience ends:

    state = observe_kl(state, done, kl, select=select, max_kl=max_kl)   # of the policy that sampled, before its update
    state = observe_look(state, look, select=select)                    # after an update, where a look is due
    if state.best_iteration == done: ...                                # keep these weights
    if should_stop(state, patience): ...
"""

from collections.abc import Mapping
from typing import NamedTuple

from rlhf.config import Selection


class Look(NamedTuple):
    """The win rate of a policy against the start, by a reward model that it is not trained on."""

    iteration: int
    """Iterations of training behind the policy; 0 is the start."""
    win_rate: float
    low: float
    """Low end of the 95 % interval."""
    high: float
    n: int
    """Answers that were compared."""


class SelectionState(NamedTuple):
    """What has been seen so far."""

    best_iteration: int | None = None
    """Iterations behind the policy to keep; None: nothing was chosen, keep the last."""
    best_value: float | None = None
    """Its win rate, or its KL in nats per sequence."""
    best_win_rate: float | None = None
    """Highest of all looks, whatever selects: patience counts against it."""
    looks_without_better: int = 0

    def as_json(self) -> dict[str, float | None]:
        """Return the state as JSON takes it."""
        return dict(zip(self._fields, self, strict=True))

    @classmethod
    def from_json(cls, stored: Mapping[str, float | None]) -> "SelectionState":
        """Return the state that `as_json` gave. Raises KeyError when a part is missing."""
        iteration, looks = stored["best_iteration"], stored["looks_without_better"]
        assert looks is not None
        return cls(
            None if iteration is None else int(iteration), stored["best_value"], stored["best_win_rate"], int(looks)
        )


def observe_look(state: SelectionState, look: Look, *, select: Selection) -> SelectionState:
    """Return the state after a look: a strictly higher win rate than in all looks before is better.

    With `Selection.WIN_RATE` the better policy becomes the best. The first look is better than none, also below 0.5.

    Raises:
        ValueError: the win rate is not between 0 and 1, as NaN is not.
    """
    if not 0 <= look.win_rate <= 1:
        raise ValueError(f"a win rate lies between 0 and 1, found {look.win_rate} at iteration {look.iteration}")
    if state.best_win_rate is not None and look.win_rate <= state.best_win_rate:
        return state._replace(looks_without_better=state.looks_without_better + 1)
    state = state._replace(best_win_rate=look.win_rate, looks_without_better=0)
    if select is Selection.WIN_RATE:
        state = state._replace(best_iteration=look.iteration, best_value=look.win_rate)
    return state


def observe_kl(
    state: SelectionState, iteration: int, kl_nats_per_sequence: float, *, select: Selection, max_kl: float | None
) -> SelectionState:
    """Return the state after a KL was measured: with `Selection.KL`, the last policy within `max_kl` is the best.

    Args:
        state: before.
        iteration: iterations of training behind the policy that sampled. A rollout measures the policy from before
            its update, so these weights must be kept before they change.
        kl_nats_per_sequence: mean over its answers; NaN is not within any limit.
        select: what chooses; another choice leaves the state as it is.
        max_kl: `ppo.max_kl`, which is set where KL selects.
    """
    if select is not Selection.KL:
        return state
    assert max_kl is not None, "the configuration asks for ppo.max_kl where KL selects"
    if kl_nats_per_sequence <= max_kl:
        return state._replace(best_iteration=iteration, best_value=kl_nats_per_sequence)
    return state


def should_stop(state: SelectionState, patience: int | None) -> bool:
    """Return whether as many looks as patience allows were no better than the best before; None: never."""
    return patience is not None and state.looks_without_better >= patience
