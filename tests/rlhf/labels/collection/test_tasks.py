"""Tasks for people: what is queued, in which order, and what a file of answers gives."""

import gzip
import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from queued import PLAIN, desk, person
from sqlalchemy import select

from rlhf.labels.collection.pair_files import read_pairs
from rlhf.labels.collection.queue import Nothing, Purpose
from rlhf.labels.collection.study import Study, set_study, study
from rlhf.labels.collection.tasks import Enqueued, Pair, Select, enqueue, reading_order, revise_study, task_ids_of
from rlhf.labels.collection.verdicts import Answer, Verdict
from rlhf.labels.importing.batches import BatchWriter
from rlhf.labels.records import Choice, Judgement
from rlhf.labels.store import LabelStore
from rlhf.labels.tables import QUEUE, TASK
from rlhf.labels.trust.ranking import rank_models
from sft.core.errors import DataError
from sft.core.text import user

SELF_INSTRUCT = Path(__file__).parents[3] / "../shared/data/self_instruct"
needs_self_instruct = pytest.mark.skipif(
    not SELF_INSTRUCT.is_dir(), reason="real answers are not here: ../shared/data/self_instruct is absent"
)


def pair(number: int, score: float | None = None, gold: Choice | None = None) -> Pair:
    return Pair(user(f"prompt {number}"), f"good {number}", f"bad {number}", "m:1", "m:2", score, gold)


def put(
    store: LabelStore, pairs: Sequence[Pair], purpose: Purpose = Purpose.LABEL, order: Select = Select.RANDOM
) -> Enqueued:
    with store.changing("p") as (connection, project):
        return enqueue(connection, project, pairs, purpose=purpose, overlap=2, seed=3, order=order)


def queued(store: LabelStore, *columns: str) -> list[tuple[object, ...]]:
    """Return columns of tasks and queue, in the order in which they are given out."""
    chosen = [TASK.c[name] if name in TASK.c and name != "project_id" else QUEUE.c[name] for name in columns]
    with store.changing("p") as (connection, _):
        joined = select(*chosen).join_from(QUEUE, TASK, TASK.c.id == QUEUE.c.task_id)
        return [tuple(row) for row in connection.execute(joined.order_by(QUEUE.c.purpose, QUEUE.c.position))]


def test_every_pair_is_queued_once_or_counted(any_url: str) -> None:
    store = LabelStore(any_url, create=True)
    same = Pair(user("p"), "one text", "one text")
    blank = Pair(user("p"), " ", "text")
    other_way_round = pair(2)._replace(response_a="bad 2", response_b="good 2", model_a="m:2", model_b="m:1")
    found = put(store, [pair(1), pair(2), same, blank, other_way_round])
    assert found == Enqueued(queued=2, already=1, identical=1, empty=1, at_random=2)
    assert put(store, [pair(2), pair(3)]) == Enqueued(queued=1, already=1, identical=0, empty=0, at_random=1)
    rows = queued(store, "prompt", "position", "overlap", "taken", "purpose", "score")
    assert [row[1] for row in rows] == [0, 1, 2]
    assert json.loads(str(rows[2][0]))[0]["content"] == "prompt 3"  # later tasks stand behind earlier ones
    assert {row[2:] for row in rows} == {(2, 0, "label", None)}


def test_a_pair_that_was_imported_is_the_same_task(any_url: str) -> None:
    store = LabelStore(any_url, create=True)
    made = pair(1)
    judgement = Judgement(
        made.prompt, made.response_a, made.response_b, Choice.A, "ann", 1, "ab" * 32, made.model_a, made.model_b
    )
    with store.changing("p") as (connection, project):
        BatchWriter(connection, project, file="f", format="trl").add([[judgement]])
    assert put(store, [made]).queued == 1
    with store.changing("p") as (connection, project):
        (task,) = connection.execute(select(TASK)).all()
        assert task_ids_of(connection, project, [made, pair(2)]) == [task.id]
    assert (task.response_a, task.model_a, task.response_b) == ("bad 1", "m:2", "good 1")


def test_the_same_texts_of_other_models_are_one_task(any_url: str) -> None:
    store = LabelStore(any_url, create=True)
    others = [pair(1)._replace(model_a=a, model_b=b) for a, b in (("m:2", "m:1"), (None, None), ("m:3", "m:4"))]
    turned = Pair(user("prompt 1"), "bad 1", "good 1", "m:5", "m:6")
    elsewhere = pair(1)._replace(prompt=user("prompt 1 "))
    found = put(store, [pair(1), *others, turned, elsewhere, pair(2)])
    assert found == Enqueued(queued=3, already=4, identical=0, empty=0, at_random=3)
    assert put(store, [pair(1, gold=Choice.A)._replace(model_a="m:7")], Purpose.GOLD).already == 1
    assert len(queued(store, "position")) == 3
    with store.changing("p") as (connection, project):
        tasks = {row.response_a + row.prompt: row.id for row in connection.execute(select(TASK).join(QUEUE))}
        assert len(tasks) == 3
        (one,) = task_ids_of(connection, project, [others[2], turned])
        assert task_ids_of(connection, project, [pair(1)]) == [one]
        assert task_ids_of(connection, project, [pair(1), elsewhere, pair(2), pair(3)]) == sorted(tasks.values())


def test_a_label_counts_for_all_models_that_wrote_the_texts(any_url: str) -> None:
    store = LabelStore(any_url, create=True)
    other, turned = (
        pair(1)._replace(model_a="m:3", model_b=None),
        Pair(user("prompt 1"), "bad 1", "good 1", "m:4", "m:1"),
    )
    with store.changing("p") as (connection, project):
        set_study(connection, project, PLAIN)
    put(store, [pair(1), other, turned, pair(2)])
    ann, bob = person(store, "ann"), person(store, "bob")
    with desk(store) as now_open:
        for who in (ann, ann, bob, bob):
            held = now_open.take(who)
            now_open.submit(held, Answer(Verdict.LEFT_CLEARLY if "good" in held.left else Verdict.RIGHT_CLEARLY))
        assert [now_open.claim(who) for who in (ann, bob)] == [Nothing("done"), Nothing("done")]
    with store.reading("p") as labels:
        found = labels.judgements()
    assert len(found) == 4
    for label in found:
        ordered = label if label.response_a.startswith("good") else label.swapped()
        assert (ordered.choice, ordered.model_a, ordered.model_b) == (Choice.A, "m:1", "m:2")
        assert ordered.also_models == ((("m:1", "m:4"),) if "1" in label.response_a else ())
    ranking = rank_models(found)
    assert (ranking.games, ranking.left_out) == (6, 0)
    assert [(m.model, m.wins, m.losses) for m in ranking.models if m.model == "m:1"] == [("m:1", 6, 0)]
    assert {(m.model, m.losses) for m in ranking.models if m.model != "m:1"} == {("m:2", 4), ("m:4", 2)}


def test_a_known_choice_is_kept_in_the_order_of_the_task(any_url: str) -> None:
    store = LabelStore(any_url, create=True)
    ordered = Pair(user("p"), "a text", "b text", gold=Choice.A)
    put(store, [pair(1, gold=Choice.A), pair(2, gold=Choice.TIE), ordered], Purpose.GOLD)
    found = {row[0]: row[1:] for row in queued(store, "response_a", "gold_choice", "purpose")}
    assert found == {"bad 1": ("b", "gold"), "bad 2": ("tie", "gold"), "a text": ("a", "gold")}
    with pytest.raises(DataError, match="give each row gold"):
        put(store, [pair(3)], Purpose.QUALIFICATION)
    assert len(queued(store, "position")) == 3


def test_an_order_by_uncertainty_mixes_a_marked_random_share_in(any_url: str) -> None:
    store = LabelStore(any_url, create=True)
    scores = random.Random(1).sample(range(100), 100)
    found = put(store, [pair(n, float(score)) for n, score in enumerate(scores)], order=Select.UNCERTAINTY)
    assert (found.queued, found.at_random) == (100, 20)
    rows = [row[0] for row in queued(store, "score")]
    ranked = [score for score in rows if score is not None]
    assert ranked == sorted(ranked, reverse=True)
    for end in range(5, 101, 5):
        assert sum(score is None for score in rows[:end]) == end // 5
    with pytest.raises(DataError, match="--reward REF"):
        put(store, [pair(200)], order=Select.UNCERTAINTY)


@given(
    st.lists(st.floats(-9, 9), max_size=40),
    st.floats(0, 1),
    st.integers(0, 9),
    st.sampled_from(list(Select)),
)
def test_every_pair_has_one_place(scores: list[float], share: float, seed: int, order: Select) -> None:
    places = reading_order(scores, order=order, random_share=share, seed=seed)
    assert sorted(place.pair for place in places) == list(range(len(scores)))
    assert all(place.score is None or place.score == scores[place.pair] for place in places)
    expected = len(scores) if order is Select.RANDOM else round(share * len(scores))
    assert sum(place.score is None for place in places) == expected


def test_the_random_share_is_drawn_from_all_pairs() -> None:
    """The mean score of those drawn is that of all, not of the rest: 2000 draws of 2 from the scores 0 to 9."""
    drawn = [
        float(place.pair)
        for seed in range(1000)
        for place in reading_order(range(10), order=Select.UNCERTAINTY, random_share=0.2, seed=seed)
        if place.score is None
    ]
    assert len(drawn) == 2000
    assert abs(sum(drawn) / 2000 - 4.5) < 4 * (8.25 / 2000) ** 0.5


def test_the_order_depends_on_the_seed_alone() -> None:
    orders = [reading_order([None] * 30, order=Select.RANDOM, random_share=0.2, seed=seed) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


def test_settings_that_are_not_given_stay_and_changes_are_said(any_url: str) -> None:
    store = LabelStore(any_url, create=True)
    with store.changing("p") as (connection, project):
        assert revise_study(connection, project, attributes=["helpful"], seed=7) == []
        assert study(connection, project) == Study(attributes=("helpful",), seed=7)
        set_study(connection, project, Study(attributes=("helpful",), seed=7, gold_share=0.2))
        assert revise_study(connection, project, overlap=3, seed=8) == ["overlap: 2 -> 3"]
        assert study(connection, project) == Study(attributes=("helpful",), seed=7, gold_share=0.2, overlap=3)


def write(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def test_a_file_gives_pairs_and_says_which_rows_it_cannot_use(tmp_path: Path) -> None:
    rows = [
        {"prompt": "q1", "answers": ["x", " y "], "models": ["m1", "m2"]},
        {"prompt": [{"role": "user", "content": "q2"}], "response_a": "x", "response_b": "", "model_a": "m1"},
        {"prompt": "q3", "answers": ["x", "y", "z"]},
        {"prompt": "q4", "response_a": "x", "response_b": "y", "gold": "B"},
        {"prompt": "q5", "answers": ["only one"]},
        "{broken",
        {"prompt": "q6", "answers": ["x", "y", "z"], "gold": "a"},
        {"prompt": "q7", "answers": ["x", "y"], "models": ["m1"]},
        {"prompt": "q8", "answers": ["x", "y"], "gold": "perhaps"},
        {"prompt": "q9", "answers": ["x", None]},
        {"answers": ["x", "y"]},
    ]
    found = read_pairs(write(tmp_path / "f.jsonl", rows), seed=0)
    assert found.rows_in == 11
    assert [(p.prompt[0].content, p.response_a, p.response_b, p.model_a, p.model_b, p.gold) for p in found.pairs] == [
        ("q1", "x", "y", "m1", "m2", None),
        ("q2", "x", "", "m1", None, None),
        ("q3", "x", "y", None, None, None),
        ("q3", "x", "z", None, None, None),
        ("q3", "y", "z", None, None, None),
        ("q4", "x", "y", None, None, Choice.B),
    ]
    assert [(row.line, row.kind) for row, _ in found.bad] == [
        (5, "no pair of answers"),
        (6, "half-written or not JSON"),
        (7, "gold of several pairs"),
        (8, "wrong models"),
        (9, "unknown label"),
        (10, "wrong type"),
        (11, "missing column"),
    ]
    assert [digest is None for _, digest in found.bad] == [False, True] + [False] * 5


def test_a_known_choice_can_be_asked_for(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "answers": ["x", "y"]}, {"prompt": "q", "answers": ["x", "y"], "gold": "tie"}]
    found = read_pairs(write(tmp_path / "f.jsonl", rows), seed=0, needs_gold=True)
    assert [p.gold for p in found.pairs] == [Choice.TIE]
    assert [row.line for row, _ in found.bad] == [1]


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("more", "give the column gold to every row"),
        ("glod", "name 'glod' gold"),
        ("Gold", "name 'Gold' gold"),
        ("gold_label", "name 'gold_label' gold"),
    ],
)
def test_without_a_known_choice_the_remedy_is_said(tmp_path: Path, name: str, remedy: str) -> None:
    path = write(tmp_path / "g.jsonl", [{"prompt": "q", "answers": ["x", "y"], name: "a"}])
    with pytest.raises(DataError) as caught:
        read_pairs(path, seed=0, needs_gold=True)
    found = f"(found prompt, answers, {name})"
    assert (
        f"none of its 1 rows gives a pair of answers; the first: line 1: missing column: 'gold', a, b or tie {found}"
        in str(caught.value)
    )
    assert f"; {remedy}; repair it" in str(caught.value)


def test_an_empty_cell_is_no_known_choice(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text("prompt,response_a,response_b,gold\nq,x,y,\nr,x,y,b\n")
    assert [p.gold for p in read_pairs(path, seed=0).pairs] == [None, Choice.B]
    found = read_pairs(path, seed=0, needs_gold=True)
    assert ([p.gold for p in found.pairs], [row.line for row, _ in found.bad]) == ([Choice.B], [2])


def test_of_many_answers_some_pairs_are_drawn(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{n}", "answers": ["v", "w", "x", "y", "z"]} for n in range(50)]
    path = write(tmp_path / "f.jsonl", rows)
    first, again, other = (read_pairs(path, seed=seed, pairs_per_prompt=3).pairs for seed in (0, 0, 1))
    assert len(first) == 150
    assert len(set(first)) == 150
    assert first == again != other
    assert len({(p.response_a, p.response_b) for p in first}) == 10


@needs_self_instruct
def test_answers_of_six_real_models_become_tasks(tmp_path: Path) -> None:
    """252 prompts that experts wrote, each with the answers of six models: 15 pairs a prompt."""
    files = sorted(SELF_INSTRUCT.glob("*_predictions.jsonl.gz"))
    models = [file.name.removesuffix("_predictions.jsonl.gz") for file in files]
    answers = [[json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()] for file in files]
    rows = [
        {"prompt": said[0]["prompt"], "answers": [row["response"] for row in said], "models": models}
        for said in zip(*answers, strict=True)
    ]
    found = read_pairs(write(tmp_path / "f.jsonl", rows), seed=0)
    assert (found.rows_in, found.bad, len(found.pairs)) == (252, [], 252 * 15)
    store = LabelStore(f"sqlite:///{tmp_path / 'labels.sqlite'}", create=True)
    made = put(store, found.pairs)
    texts = [[row["response"].strip() for row in said] for said in zip(*answers, strict=True)]
    both = [(x, y) for said in texts for i, x in enumerate(said) for y in said[i + 1 :]]
    assert made.empty == sum(not (x and y) for x, y in both)
    assert made.identical == sum(x == y != "" for x, y in both)
    assert (made.queued, made.already, made.identical, made.empty) == SELF_INSTRUCT_COUNTS
    assert put(store, found.pairs)._replace(identical=0, empty=0) == Enqueued(0, made.queued, 0, 0, 0)


SELF_INSTRUCT_COUNTS = (3283, 0, 252, 245)
"""Queued, already, identical, empty; 3780 pairs in all."""
