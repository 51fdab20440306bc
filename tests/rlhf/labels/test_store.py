import json
import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_removal import erase
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from rlhf.labels.events import Event, count_ids, holds, ranges
from rlhf.labels.importing.batches import BatchWriter
from rlhf.labels.records import Choice, Judgement, TieKind
from rlhf.labels.store import Exported, LabelStore, default_url, pseudonym, record_export
from rlhf.labels.tables import ANNOTATOR, EVENT, TASK
from sft.core.durable import text_digest
from sft.core.errors import UsageError
from sft.core.text import user


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    return LabelStore(f"sqlite:///{tmp_path / 'labels.sqlite'}", create=True)


def judged(number: int, choice: Choice = Choice.A, annotator: str | None = "ann", **columns: object) -> Judgement:
    given = {"prompt": user("p"), "response_a": "x", "response_b": "y", "line": number, **columns}
    return Judgement(choice=choice, annotator=annotator, digest=text_digest(str(number)), **given)


def add(store: LabelStore, *judgements: Judgement, project: str = "p") -> None:
    with store.changing(project) as (connection, row):
        writer = BatchWriter(connection, row, file="f", format="pairwise", source="somewhere", licence="MIT")
        writer.add([[judgement] for judgement in judgements])


def add_event(store: LabelStore, kind: str, annotator: str, number: int, reason: str | None = None) -> None:
    """As the page will: about the first task."""
    with store.changing("p") as (connection, project):
        values = {
            "project_id": project.id,
            "task_id": connection.scalar(select(TASK.c.id)),
            "annotator_id": connection.scalar(select(ANNOTATOR.c.id).where(ANNOTATOR.c.name == annotator)),
            "kind": kind,
            "reason": reason,
            "row_digest": bytes.fromhex(text_digest(f"request {number}")),
            "row_part": 0,
        }
        connection.execute(EVENT.insert().values(values))


def labels(store: LabelStore, **asked: object) -> list[Event]:
    with store.reading("p") as found:
        return list(found.labels(**asked))


def judgements(store: LabelStore) -> list[Judgement]:
    with store.reading("p") as found:
        return found.judgements()


@pytest.mark.parametrize("order_known", [True, False])
@pytest.mark.parametrize("texts", [("x", "y"), ("y", "x")])
def test_a_judgement_comes_back_as_it_was(store, texts, order_known):
    wanted = judged(
        3,
        response_a=texts[0],
        response_b=texts[1],
        model_a="m",
        model_b=None,
        strength=2.5,
        order_known=order_known,
        time=12.5,
        attribute=None,
        split="train",
    )
    add(store, wanted)
    assert judgements(store) == [wanted]


def test_a_tie_and_its_kind_come_back(store):
    wanted = judged(1, Choice.TIE, response_a="y", response_b="x", tie_kind=TieKind.BOTH_BAD)
    add(store, wanted)
    assert judgements(store) == [wanted]


def test_swapped_answers_are_the_same_task(store):
    add(store, judged(1), judged(2, Choice.B, "other", response_a="y", response_b="x"))
    first, second = labels(store)
    assert first.task_id == second.task_id
    with store.reading("p") as found:
        rows = found.connection.execute(select(EVENT.c.choice, EVENT.c.shown_left)).tuples().all()
    assert rows == [("a", "a"), ("a", "b")]


def test_other_models_are_another_task(store):
    add(store, judged(1, model_a="m"), judged(2, model_a="n"))
    assert len({event.task_id for event in labels(store)}) == 2


def test_the_last_label_of_an_annotator_holds_and_history_stays(store):
    add(store, judged(1), judged(2, Choice.B), judged(3, Choice.A, "other"))
    add(store, judged(4, Choice.A, None), judged(5, Choice.B, None))
    held = [(event.judgement.line, event.judgement.choice.value) for event in labels(store)]
    assert held == [(2, "b"), (3, "a"), (4, "a"), (5, "b")]
    with store.reading("p") as found:
        assert [event.id for event in found.events()] == [1, 2, 3, 4, 5]


def test_attributes_do_not_replace_each_other(store):
    add(store, judged(1), judged(2, Choice.B, attribute="honest"), judged(3, Choice.TIE, attribute="honest"))
    assert [event.judgement.line for event in labels(store)] == [1]
    assert [event.judgement.line for event in labels(store, attribute="honest")] == [3]
    with store.reading("p") as found:
        assert found.attributes() == {"honest": 2, None: 1}
        with pytest.raises(UsageError, match=r"no labels for 'kind'; give --attribute one that it has: honest, none"):
            found.check_attribute("kind")


@pytest.mark.parametrize(("kind", "left"), [("skip", [2]), ("undo", [2]), ("flag", [1, 2])])
def test_skip_and_undo_end_a_label_and_a_flag_does_not(store, kind, left):
    add(store, judged(1), judged(2, Choice.B, "other"))
    add_event(store, kind, "ann", 1)
    assert [event.judgement.line for event in labels(store)] == left
    add(store, judged(3, Choice.TIE))
    assert [event.judgement.line for event in labels(store)] == [2, 3]


def test_projects_are_apart(store):
    add(store, judged(1))
    add(store, judged(1), judged(2, Choice.B), project="q")
    assert len(judgements(store)) == 1
    with pytest.raises(UsageError, match=r"no project 'r' in .*; there are: p, q; name one with --project"):
        erase(store, "r", "ann")


@pytest.mark.parametrize("name", ["", "A", "../x", "a" * 65, "-a", "ä", "a\n"])
def test_names_of_projects(store, name):
    with pytest.raises(UsageError, match="is not allowed: use 1 to 64 of a-z"), store.changing(name):
        pass


def test_the_same_request_is_stored_once(store):
    add(store, judged(1))
    add_event(store, "skip", "ann", 7)
    with pytest.raises(IntegrityError):
        add_event(store, "skip", "ann", 7)


def test_erasure_leaves_no_trace_of_a_person(store, tmp_path):
    add(store, judged(1, annotator="Wilhelmina"), judged(2, Choice.B, "Wilhelmina", prompt=user("q")))
    add(store, judged(3, annotator="other"), project="p")
    add(store, judged(1, annotator="Wilhelmina"), project="q")
    add_event(store, "skip", "Wilhelmina", 1, reason="my cousin Leopoldine wrote it")
    with store.changing("p") as (connection, project):
        record_export(connection, project, Exported("used", "trl", None, [(2, 2)]))
        record_export(connection, project, Exported("not", "trl", None, [(3, 3)]))
        expected = pseudonym(project.pseudonym_key, "Wilhelmina")
    erased = erase(store, "p", "Wilhelmina")
    assert erased == (expected, 2, 1, ["used"], ["q"])
    assert [event.judgement.annotator for event in labels(store)] != []
    assert len(labels(store)) == 1
    erase(store, "q", "Wilhelmina")
    content = (tmp_path / "labels.sqlite").read_bytes()
    assert b"Wilhelmina" not in content
    assert b"Leopoldine" not in content
    assert os.listdir(tmp_path) == ["labels.sqlite"]
    with pytest.raises(UsageError, match="project 'p' knows no annotator 'Wilhelmina'; give the name as the imported"):
        erase(store, "p", "Wilhelmina")


def test_an_unknown_person_is_named_where_known(store):
    add(store, judged(1), project="p")
    add(store, judged(1, annotator="Bo"), project="q")
    with pytest.raises(UsageError, match="knows no annotator 'Bo'; the projects q do"):
        erase(store, "p", "Bo")


def test_a_pseudonym_needs_the_key_of_its_project(store):
    assert pseudonym(b"k", "Bo") == pseudonym(b"k", "Bo") != pseudonym(b"l", "Bo")
    add(store, judged(1))
    add(store, judged(1), project="q")
    with store.reading("p") as one, store.reading("q") as other:
        assert len({one.project.pseudonym_key, other.project.pseudonym_key}) == 2
        assert next(one.labels()).pseudonym != next(other.labels()).pseudonym


def test_an_export_is_remembered_once_and_found_by_a_start(store):
    add(store, judged(1))
    with store.changing("p") as (connection, project):
        for _ in range(2):
            record_export(connection, project, Exported("abc", "trl", None, [(1, 1)]))
        record_export(connection, project, Exported("abd", "csv", "honest", [(1, 1)]))
    with store.reading("p") as found:
        assert found.export("abd") == Exported("abd", "csv", "honest", [(1, 1)])
        assert found.export("abc").digest == "abc"
        with pytest.raises(UsageError, match="2 exports of project 'p' have a digest that starts with 'ab'"):
            found.export("ab")
        with pytest.raises(UsageError, match="give more of it"):
            found.export("")


@given(st.sets(st.integers(1, 60)))
def test_ranges_hold_exactly_their_ids(ids):
    spans = ranges(ids)
    assert {n for n in range(-1, 65) if holds(spans, n)} == ids
    assert count_ids(spans) == len(ids)
    assert all(second[0] > first[1] + 1 for first, second in pairwise(spans))
    assert json.loads(json.dumps(spans)) == [list(span) for span in spans]


def test_the_default_stands_beside_the_registry(tmp_path):
    assert default_url(tmp_path / "registry") == f"sqlite:///{tmp_path}/labels.sqlite"
