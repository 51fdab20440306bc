import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, event, func, select

from rlhf.labels.store import LabelStore, Project
from rlhf.labels.tables import ANNOTATOR, TASK
from rlhf.labels.task_rows import ModelAnswer, TaskRow, insert_columns, insert_rows, task_ids, task_row
from sft.core.text import Message, as_dicts, user


@pytest.fixture
def store(any_url: str) -> LabelStore:
    return LabelStore(any_url, create=True)


@pytest.fixture
def written(store: LabelStore) -> Iterator[tuple[Connection, Project]]:
    with store.changing("p") as opened:
        yield opened


def pair(project: Project, number: int) -> TaskRow:
    return task_row(project.id, user(f"question {number}"), ModelAnswer("b", "model"), ModelAnswer("a", None))


def ids_of(connection: Connection, *rows: TaskRow) -> list[int]:
    found = task_ids(connection, rows[0].project_id, {row.task_key: row for row in rows})
    return [found[row.task_key] for row in rows]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
"""The readers let no half of a character through."""


@given(st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), TEXTS), max_size=4))
def test_the_prompt_is_json_of_its_messages(messages):
    found = task_row(1, tuple(messages), ModelAnswer("a", None), ModelAnswer("b", None))
    assert found.prompt == json.dumps(as_dicts(tuple(messages)), ensure_ascii=False)


def test_the_key_is_of_the_texts_and_models_in_the_tasks_own_order():
    """The numbers stand in databases that are there: another key would store every task again."""
    prompt = (Message("system", "Be “brief”."), Message("user", 'Say "hi"\n'))
    first = task_row(1, prompt, ModelAnswer("Hi.", "m1"), ModelAnswer("Hello.", None))
    assert first == task_row(1, prompt, ModelAnswer("Hello.", None), ModelAnswer("Hi.", "m1"))
    assert (first.response_a, first.model_a, first.response_b, first.model_b) == ("Hello.", None, "Hi.", "m1")
    assert first.task_key.hex() == "46aa367c8626fe3ed5dce5cc2d7dc7c5d055ed0e77f16ade5ddfeb243e41bfdb"
    assert first.prompt_key.hex() == "eb84c4edc0c591a67da434975bccee296f60e2805c18ebbcd8f88075a7efd9e8"


def test_ids_of_new_and_of_older_tasks(written):
    connection, project = written
    one, two, three, four = (pair(project, number) for number in range(4))
    first = ids_of(connection, one, three)
    again = ids_of(connection, four, one, two, three)
    assert [again[1], again[3]] == first
    assert len(set(again)) == 4
    stored = {row.task_key: row.id for row in connection.execute(select(TASK.c.task_key, TASK.c.id))}
    assert stored == dict(zip([row.task_key for row in (four, one, two, three)], again, strict=True))
    assert task_ids(connection, project.id, {}) == {}


def test_ids_are_of_the_project_also_where_another_has_the_same_pair(store):
    with store.changing("p") as (connection, project):
        mine = ids_of(connection, pair(project, 1))
    with store.changing("q") as (connection, project):
        theirs = ids_of(connection, pair(project, 1))
    with store.changing("p") as (connection, project):
        assert ids_of(connection, pair(project, 1)) == mine
    assert mine != theirs


def test_a_pair_that_another_project_stores_meanwhile_is_not_taken_for_ours(postgresql_url):
    store, theirs = LabelStore(postgresql_url, create=True), []

    def store_theirs(_connection: object, _cursor: object, statement: str, *_given: object) -> None:
        if statement.startswith("INSERT INTO task ") and not theirs:
            with store.changing("q") as (other, project):
                theirs.append(None)
                theirs[:] = ids_of(other, pair(project, 1), pair(project, 2))

    with store.changing("p") as (connection, project):
        mine = ids_of(connection, pair(project, 1))
    with store.changing("p") as (connection, project):
        event.listen(connection, "before_cursor_execute", store_theirs)
        assert ids_of(connection, pair(project, 1)) == mine
    assert len(theirs) == 2


def test_a_null_among_values_is_stored_and_a_column_of_nulls_alone_too(written):
    connection, project = written
    columns = ("project_id", "name", "pseudonym", "next_position")
    insert_rows(connection, ANNOTATOR, columns, [(project.id, None, "x", None), (project.id, "Ada", "y", None)])
    chosen = select(ANNOTATOR.c.name, ANNOTATOR.c.pseudonym, ANNOTATOR.c.next_position).order_by(ANNOTATOR.c.id)
    assert [tuple(row) for row in connection.execute(chosen)] == [(None, "x", None), ("Ada", "y", None)]


def test_no_rows_are_no_statement(written):
    connection, _ = written
    insert_rows(connection, TASK, TaskRow._fields, [])
    insert_columns(connection, TASK, {name: [] for name in TaskRow._fields})
    assert connection.scalar(select(func.count()).select_from(TASK)) == 0
