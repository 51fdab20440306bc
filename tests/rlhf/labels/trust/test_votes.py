from dataclasses import replace

import numpy as np
from voters import judge

from rlhf.labels.records import Choice, Judgement
from rlhf.labels.trust.votes import tabulate
from sft.core.text import user

A, B, TIE = Choice.A, Choice.B, Choice.TIE


def test_table_of_votes():
    swapped = judge("q", A, "bob").swapped()
    votes = tabulate([judge("p", A, "bob"), swapped, judge("p", B, "ann"), judge("P ", B), judge("p", TIE, "bob")])
    assert votes.annotators == ("ann", "bob")
    assert votes.item_N.tolist() == [0, 1, 0, 2]
    assert votes.annotator_N.tolist() == [1, 1, 0, -1]
    assert votes.source_N.tolist() == [4, 1, 2, 3]  # bob's later word on p
    assert votes.value_N[0] == 1
    assert votes.prompt_I.tolist() == [0, 1, 0]  # "P " is the prompt "p", but another pair
    assert (votes.a_is_N == votes.left_is_N).all()
    assert (votes.repeated, votes.identical) == (1, 0)


def test_identical_answers_are_counted_but_no_vote():
    same = Judgement(user("p"), "x", "x", A, "ann", 1, "d")
    votes = tabulate([same, judge("p", A, "ann")])
    assert (votes.identical, len(votes.pairs), len(votes.item_N)) == (1, 1, 1)


def test_an_answer_has_one_number_in_all_pairs_of_its_prompt():
    def pair(first: str, second: str) -> Judgement:
        return Judgement(user("p"), first, second, A, "ann", 1, "d")

    numbers = tabulate([pair("x", "y"), pair("y", "z"), pair("z", "x")]).answers_I2
    assert sorted(numbers.ravel().tolist()) == [0, 0, 1, 1, 2, 2]


def test_grades_are_signed_strengths():
    given = [
        replace(judge("p", A, "ann"), strength=2.0),
        replace(judge("q", B, "ann"), strength=1.0),
        replace(judge("r", A, "ann").swapped(), strength=3.0),
        judge("s", TIE, "ann"),
        judge("t", B, "ann"),
        replace(judge("u", B, "ann"), strength=0.0),
    ]
    assert tabulate(given).grade_N.tolist()[:4] == [2.0, -1.0, 3.0, 0.0]
    assert np.isnan(tabulate(given).grade_N[4:]).all()
