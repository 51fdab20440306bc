import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.labels.records import Choice, Judgement
from rlhf.labels.trust.quality import aggregate, judgements_per_annotator, label_rates
from sft.core.durable import text_digest
from sft.core.statistics import wilson_interval
from sft.core.text import user

# The pairs' own order is by hash; these two are in it, so that a choice below is the counted value itself.
FIRST, SECOND = sorted(["short", "a longer one"], key=text_digest)
A, B, TIE = Choice.A, Choice.B, Choice.TIE


def judge(prompt: str, choice: Choice, annotator: str | None = None, *, order_known: bool = True) -> Judgement:
    return Judgement(user(prompt), FIRST, SECOND, choice, annotator, 1, "d", order_known=order_known)


def test_majority_vote():
    found = aggregate(
        [
            judge("p", A, "ann"),
            judge("q", B, "bob"),
            judge("p", B, "cid"),
            judge("p", A, None).swapped(),
            judge("p", TIE, "bob"),
            judge("r", A, "ann"),
            judge("r", B, "bob"),
            judge("s", TIE, "bob"),
        ]
    )
    assert found.pairs == 4
    assert found.undecided == 2
    assert found.ties == 2
    assert found.contradictions == 0
    first, second = found.preferences
    assert first == (user("p"), FIRST, SECOND, 2, 1, 1, ("ann", "bob", "cid"))
    assert second == (user("q"), SECOND, FIRST, 1, 0, 0, ("bob",))


def test_contradictions_are_one_person_on_both_sides_of_one_pair():
    both = [judge("p", A, "ann"), judge("p", B, "ann"), judge("p", B, "ann"), judge("q", B, "ann")]
    assert aggregate(both).contradictions == 1
    assert aggregate([judge("p", A, "ann"), judge("p", A, "ann").swapped()]).contradictions == 0
    assert aggregate([judge("p", A), judge("p", B)]).contradictions == 0
    assert aggregate([judge("p", A, "ann"), judge("p", TIE, "ann")]).contradictions == 0


def test_nothing_gives_no_pair():
    assert aggregate([]) == ([], 0, 0, 0, 0)


judgements = st.lists(
    st.builds(judge, st.sampled_from("pqr"), st.sampled_from(Choice), st.sampled_from(["ann", "bob", None])),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(judgements, st.randoms(use_true_random=False))
def test_sides_change_nothing(given_judgements: list[Judgement], chance: random.Random):
    turned = [j.swapped() if chance.random() < 0.5 else j for j in given_judgements]
    assert aggregate(turned) == aggregate(given_judgements)


def test_label_rates():
    rates = label_rates(
        [judge("p", A), judge("p", A), judge("q", B), judge("r", TIE), judge("s", A, order_known=False)]
    )
    assert rates.tie == (0.2, wilson_interval(1, 5), 5)
    assert rates.left == (2 / 3, wilson_interval(2, 3), 3)
    longer = 0.75 if len(FIRST) > len(SECOND) else 0.25
    assert rates.longer is not None
    assert (rates.longer.value, rates.longer.n) == (longer, 4)


def test_label_rates_leave_out_what_cannot_be_known():
    only_winners = label_rates([judge("p", A, order_known=False)])
    assert only_winners.left is None
    assert label_rates([judge("p", TIE)]).longer is None
    equal = Judgement(user("p"), "abc", "abd", A, None, 1, "d")
    assert label_rates([equal]).longer is None
    with pytest.raises(ValueError, match="no items"):
        label_rates([])


def test_judgements_per_annotator():
    several = [judge("p", A, "ann"), judge("q", A, "bob"), judge("r", A, "bob"), judge("s", A)]
    assert list(judgements_per_annotator(several).items()) == [("bob", 2), ("ann", 1)]
