import pytest
from queued import PLAIN, PROJECT, desk, fill, person
from sqlalchemy import select

from rlhf.labels.collection.queue import Lease, Nothing
from rlhf.labels.collection.study import Guidelines, Study, guidelines, set_guidelines, set_study, study
from rlhf.labels.store import LabelStore
from rlhf.labels.tables import QUEUE
from sft.core.errors import ConfigError, UsageError


@pytest.fixture
def store(any_url: str) -> LabelStore:
    return LabelStore(any_url, create=True)


def test_settings_come_back_as_they_were(store):
    wanted = Study(question="Ö?", attributes=("a", "b"), overlap=3, lease_minutes=0.5 + 1, seed=7)
    with desk(store) as (connection, project, _):
        with pytest.raises(UsageError, match="project 'p' has no tasks to label; make some with: rlhf labels create"):
            study(connection, project)
        set_study(connection, project, Study())
        set_study(connection, project, wanted)
        assert study(connection, project) == wanted
    with store.changing("other") as (connection, project), pytest.raises(UsageError, match="has no tasks to label"):
        study(connection, project)


@pytest.mark.parametrize(
    "wrong",
    [
        {"overlap": 0},
        {"lease_minutes": 0.5},
        {"lease_minutes": float("nan")},
        {"gold_share": 0.6},
        {"probe_share": -0.1},
        {"probe_after": -1},
        {"pause_window": 0},
        {"pause_below": 1.1},
        {"qualification_accuracy": -1.0},
        {"attributes": ("a", "a")},
        {"attributes": (" ",)},
    ],
)
def test_settings_that_cannot_be(wrong):
    with pytest.raises(ConfigError) as caught:
        Study(**wrong)
    assert {problem.field for problem in caught.value.problems} == set(wrong)


def test_guidelines_have_versions(store):
    with desk(store) as (connection, project, _):
        assert guidelines(connection, project) == Guidelines(0, "")
        assert set_guidelines(connection, project, "one") == Guidelines(1, "one")
        assert set_guidelines(connection, project, "one") == Guidelines(1, "one")
        assert set_guidelines(connection, project, "two") == Guidelines(2, "two")
        assert set_guidelines(connection, project, "one") == Guidelines(3, "one") == guidelines(connection, project)
    with store.changing("other") as (connection, project):
        assert guidelines(connection, project) == Guidelines(0, "")
        assert set_guidelines(connection, project, "") == Guidelines(1, "")


def overlaps(store: LabelStore) -> list[tuple[int, int]]:
    with store.reading(PROJECT) as labels:
        rows = labels.connection.execute(select(QUEUE.c.taken, QUEUE.c.overlap).order_by(QUEUE.c.position))
        return [(row.taken, row.overlap) for row in rows]


def test_a_raised_overlap_opens_places_and_a_lowered_one_closes_them(store):
    fill(store, 2)
    people = [person(store, name) for name in ("ann", "bob", "cat")]
    with desk(store) as now_open:
        first = [now_open.label(people[0]).task_id for _ in range(2)]
        assert now_open.claim(people[1]) == Nothing("done")
    more = Study(**{**vars(PLAIN), "overlap": 3})
    with desk(store, more) as now_open:
        set_study(now_open.connection, now_open.project, more)
        assert [now_open.label(people[1]).task_id for _ in range(2)] == first
    assert overlaps(store) == [(2, 3), (2, 3)]
    with desk(store) as now_open:
        set_study(now_open.connection, now_open.project, PLAIN)
        assert now_open.claim(people[2]) == Nothing("done")
    assert overlaps(store) == [(2, 1), (2, 1)]
    with store.reading(PROJECT) as labels:
        assert len(list(labels.labels())) == 4


def test_a_place_that_a_raised_overlap_opens_is_the_next_one(store):
    ids = fill(store, 3)
    ann, bob = person(store, "ann"), person(store, "bob")
    with desk(store) as now_open:
        assert [now_open.label(who).task_id for who in (ann, bob)] == ids[:2]
    more = Study(**{**vars(PLAIN), "overlap": 2})
    with desk(store, more) as now_open:
        set_study(now_open.connection, now_open.project, more)
        assert now_open.take(bob).task_id == ids[0]


def test_an_overlap_belongs_to_its_project(store):
    fill(store, 1)
    ann = person(store, "ann")
    with store.changing("other") as (connection, project):
        set_study(connection, project, Study(overlap=5))
    assert overlaps(store) == [(0, 1)]
    with desk(store) as now_open:
        assert isinstance(now_open.claim(ann), Lease)
