import json
import math

import pytest

from rlhf.config import Selection
from rlhf.ppo.selection import Look, SelectionState, observe_kl, observe_look, should_stop


def look(iteration: int, win_rate: float) -> Look:
    return Look(iteration, win_rate, win_rate - 0.1, win_rate + 0.1, 64)


def after_looks(*win_rates: float, select: Selection = Selection.WIN_RATE) -> list[SelectionState]:
    """Return the states after each of some looks, at iterations 5, 10, 15, ..."""
    states = [SelectionState()]
    for number, win_rate in enumerate(win_rates, start=1):
        states.append(observe_look(states[-1], look(5 * number, win_rate), select=select))
    return states[1:]


def test_the_best_win_rate_and_the_patience_by_hand():
    states = after_looks(0.4, 0.6, 0.5, 0.6, 0.7, 0.1)
    assert [state.best_iteration for state in states] == [5, 10, 10, 10, 25, 25]
    assert [state.best_value for state in states] == [0.4, 0.6, 0.6, 0.6, 0.7, 0.7]
    assert [state.looks_without_better for state in states] == [0, 0, 1, 2, 0, 1]
    assert [should_stop(state, 2) for state in states] == [False, False, False, True, False, False]
    assert not any(should_stop(state, None) for state in states)


def test_a_tie_is_not_better():
    assert [state.best_iteration for state in after_looks(0.5, 0.5)] == [5, 5]


@pytest.mark.parametrize("select", [Selection.LAST, Selection.KL])
def test_patience_counts_looks_whatever_selects(select: Selection):
    states = after_looks(0.6, 0.5, 0.4, select=select)
    assert [state.best_iteration for state in states] == [None] * 3
    assert [should_stop(state, 2) for state in states] == [False, False, True]


def test_the_last_policy_within_the_kl_limit():
    """Whether its KL is lower than another's does not matter; exactly at the limit is within."""
    state, kept = SelectionState(), []
    for iteration, kl in enumerate([0.0, 3.0, 10.0, 12.0, 4.0, math.nan, 10.001]):
        state = observe_kl(state, iteration, kl, select=Selection.KL, max_kl=10.0)
        kept.append(state.best_iteration)
    assert kept == [0, 1, 2, 2, 4, 4, 4]
    assert state.best_value == 4.0


@pytest.mark.parametrize("select", [Selection.LAST, Selection.WIN_RATE])
def test_the_kl_chooses_only_where_it_is_asked_to(select: Selection):
    for max_kl in (None, 10.0):
        assert observe_kl(SelectionState(), 3, 1.0, select=select, max_kl=max_kl) == SelectionState()


def test_looks_do_not_move_the_choice_of_the_kl():
    state = observe_kl(SelectionState(), 2, 1.5, select=Selection.KL, max_kl=2.0)
    state = observe_look(state, look(3, 0.9), select=Selection.KL)
    assert state == SelectionState(best_iteration=2, best_value=1.5, best_win_rate=0.9, looks_without_better=0)


@pytest.mark.parametrize("win_rate", [math.nan, -0.1, 1.1])
def test_what_is_no_win_rate_is_refused(win_rate: float):
    with pytest.raises(ValueError, match=r"a win rate lies between 0 and 1, found .* at iteration 5"):
        after_looks(win_rate)


def test_json_gives_the_same_state_and_the_same_future():
    for state in [SelectionState(), *after_looks(0.1 + 0.2, 1 / 3, 0.2)]:
        again = SelectionState.from_json(json.loads(json.dumps(state.as_json())))
        assert again == state
        assert [type(part) for part in again] == [type(part) for part in state]
        assert observe_look(again, look(40, 1 / 3), select=Selection.WIN_RATE) == observe_look(
            state, look(40, 1 / 3), select=Selection.WIN_RATE
        )
    with pytest.raises(KeyError, match="best_win_rate"):
        SelectionState.from_json({"best_iteration": None, "best_value": None, "looks_without_better": 0})
