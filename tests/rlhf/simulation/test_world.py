import random

import numpy as np
import pytest

from rlhf.simulation import GROUPS, gold_utility, make_demonstrations, make_pairs, make_requests
from rlhf.simulation.world import TASKS, make_answer, task_of

REQUESTS = make_requests(300, seed=0)
NAMES = {name for group in GROUPS.values() for name in group.names}


def test_the_seed_decides_every_text():
    for make in (
        lambda seed: make_requests(50, seed=seed),
        lambda seed: make_demonstrations(REQUESTS, 50, seed=seed),
        lambda seed: make_pairs(REQUESTS, 50, seed=seed),
    ):
        assert make(1) == make(1)
        assert make(1) != make(2)


def test_more_texts_begin_with_the_same_ones():
    assert make_requests(80, seed=3)[:50] == make_requests(50, seed=3)
    assert make_pairs(REQUESTS, 80, seed=3)[:50] == make_pairs(REQUESTS, 50, seed=3)


def test_requests_are_different_and_name_a_task():
    assert len(set(REQUESTS)) == 300
    texts = [prompt[0].content for prompt in REQUESTS]
    assert all(len(prompt) == 1 and prompt[0].role == "user" for prompt in REQUESTS)
    assert {task_of(text) for text in texts} == set(TASKS)
    naming = sum(bool(NAMES & set(text.split())) for text in texts) / 300
    assert 0.25 < naming < 0.45


def test_the_default_number_of_requests_exists():
    assert len(make_requests(800, seed=0)) == 800


def test_a_grammar_that_runs_dry_gives_fewer():
    assert 800 < len(make_requests(5000, seed=0)) < 5000


def test_tasks_are_told_apart_by_their_words():
    for task in TASKS:
        assert task_of(f"please {task.phrase} now") is task
        assert sum(other.phrase in f"please {task.phrase} now" for other in TASKS) == 1
    assert task_of("what is love ?") is None


def test_pairs_differ_and_requests_are_taken_in_turn():
    pairs = make_pairs(REQUESTS[:7], 100, seed=0)
    assert [prompt for prompt, _, _ in pairs] == [REQUESTS[i % 7] for i in range(100)]
    assert all(first != second for _, first, second in pairs)
    assert [example.prompt for example in make_demonstrations(REQUESTS[:7], 20, seed=0)] == [
        REQUESTS[i % 7] for i in range(20)
    ]


def test_answers_are_of_mixed_quality_and_clean():
    examples = make_demonstrations(REQUESTS, 2000, seed=0)
    utilities = np.array([gold_utility(e.prompt[-1].content, e.answer) for e in examples])
    assert utilities.std() > 1
    assert (utilities >= 3).mean() > 0.1
    assert (utilities < 0).mean() > 0.1
    assert all(e.answer and e.answer == " ".join(e.answer.split()) for e in examples)
    assert max(len(e.answer.split()) for e in examples) < 80


def test_groups_are_named_equally_often():
    answers = [e.answer.split() for e in make_demonstrations(REQUESTS, 4000, seed=0)]
    shares = [sum(not set(group.names).isdisjoint(words) for words in answers) / 4000 for group in GROUPS.values()]
    assert sum(shares) == pytest.approx(0.4, abs=0.05)
    assert max(shares) - min(shares) < 0.03


def test_answers_take_their_chance_from_the_generator_alone():
    assert make_answer(TASKS[0], random.Random(5)) == make_answer(TASKS[0], random.Random(5))
    assert len({make_answer(TASKS[0], random.Random(i)) for i in range(50)}) > 30


def test_terms_of_the_groups_correspond():
    lengths = {len(group.terms) for group in GROUPS.values()}
    assert lengths == {14}
    terms = [term for group in GROUPS.values() for term in group.terms]
    assert len(set(terms)) == len(terms)
