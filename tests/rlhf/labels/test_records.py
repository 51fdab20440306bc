from dataclasses import replace

import pytest

from rlhf.labels.records import Choice, Judgement, TieKind
from sft.core.text import user


def judgement(prompt: str = "p", a: str = "one", b: str = "two", choice: Choice = Choice.A) -> Judgement:
    return Judgement(user(prompt), a, b, choice, "ann", 1, "d", model_a="x", model_b="y", strength=2.0)


def test_swapped_changes_sides_models_and_choice_but_not_the_opinion():
    swapped = judgement().swapped()
    assert (swapped.response_a, swapped.response_b, swapped.choice) == ("two", "one", Choice.B)
    assert (swapped.model_a, swapped.model_b, swapped.strength) == ("y", "x", 2.0)
    assert judgement(choice=Choice.TIE).swapped().choice is Choice.TIE
    assert swapped.swapped() == judgement()


def test_pair_key_does_not_depend_on_sides_and_depends_on_every_text():
    keys = {
        judgement().pair_key,
        judgement().swapped().pair_key,
        judgement(choice=Choice.TIE).pair_key,
    }
    assert len(keys) == 1
    others = {
        judgement("q").pair_key,
        judgement(a="o").pair_key,
        judgement(b="t").pair_key,
        judgement("po", "ne").pair_key,
    }
    assert len(others - keys) == 4


def test_only_a_tie_has_a_kind():
    tie = replace(judgement(choice=Choice.TIE), tie_kind=TieKind.BOTH_BAD, time=7.0, attribute="harmless", split="s")
    turned = tie.swapped()
    assert (turned.tie_kind, turned.time, turned.attribute, turned.split) == (TieKind.BOTH_BAD, 7.0, "harmless", "s")
    with pytest.raises(ValueError, match="tie_kind=both_good with choice=a; only a tie has a kind"):
        replace(judgement(), tie_kind=TieKind.BOTH_GOOD)
