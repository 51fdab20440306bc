from collections import Counter

import pytest
from label_removal import erase
from queued import LEFT, PLAIN, PROJECT, SKIP, Desk, chooses, desk, fill, pause, person, resume
from scipy.stats import binomtest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from rlhf.labels.collection.queue import Nothing, Purpose, Record, State, _open, draw, record, release_expired
from rlhf.labels.collection.study import Study
from rlhf.labels.collection.submissions import Status
from rlhf.labels.collection.verdicts import Answer, Verdict
from rlhf.labels.importing.batches import BatchWriter
from rlhf.labels.records import Choice, Judgement
from rlhf.labels.store import LabelStore
from rlhf.labels.tables import ANNOTATOR, EVENT, HOLDS_A_PLACE, LEASE, QUEUE
from sft.core.durable import text_digest
from sft.core.text import user


@pytest.fixture
def store(any_url: str) -> LabelStore:
    return LabelStore(any_url, create=True)


def settings(**changed: object) -> Study:
    return Study(**{**vars(PLAIN), **changed})


def taken(store: LabelStore) -> list[int]:
    with store.reading(PROJECT) as labels:
        return list(labels.connection.scalars(select(QUEUE.c.taken).order_by(QUEUE.c.position)))


def test_a_reload_gets_the_same_task_and_keeps_it_longer(store):
    ids = fill(store, 2)
    ann, bob = person(store, "ann"), person(store, "bob")
    minute = settings(lease_minutes=1.0)
    with desk(store, minute) as now_open:
        first = now_open.take(ann, 0.0)
        assert (first.task_id, first.state, first.revision, first.created_at) == (ids[0], State.OPEN, 0, 0.0)
        assert now_open.take(ann, 50.0) == first
        assert now_open.take(bob, 70.0).task_id == ids[1], "the reload at 50 s gave time until 110 s"
        assert now_open.claim(bob, 110.0).task_id == ids[1]
        assert now_open.take(ann, 110.0) == first, "expires_at itself is still inside"
        assert now_open.take(ann, 171.0)._replace(created_at=0.0) == first, "given back, and taken again"


def test_what_expired_goes_to_the_next_one_and_first(store):
    ids = fill(store, 2)
    ann, bob = person(store, "ann"), person(store, "bob")
    with desk(store) as now_open:
        mine = now_open.take(ann, 0.0)
        assert now_open.label(bob, now=1.0).task_id == ids[1]
        assert now_open.claim(bob, 1800.0) == Nothing("waiting")
        assert release_expired(now_open.connection, now_open.project, 1800.0) == 0
        assert now_open.take(bob, 1800.1).task_id == mine.task_id == ids[0]
        assert now_open.claim(ann, 1800.1) == Nothing("waiting")
        assert now_open.take_known(mine.id, ann).state is State.EXPIRED
    assert taken(store) == [1, 1]


def test_a_skip_gives_the_place_to_others_and_nobody_gets_it_twice(store):
    ids = fill(store, 1)
    ann, bob = person(store, "ann"), person(store, "bob")
    with desk(store) as now_open:
        now_open.label(ann, SKIP)
        assert now_open.claim(ann) == Nothing("done")
        assert now_open.label(bob, SKIP).task_id == ids[0]
        assert now_open.claim(bob) == now_open.claim(ann) == Nothing("done")
    assert taken(store) == [0]


def test_everybody_else_moves_on_while_one_stays_behind(store):
    """The search begins where the last one ended, and goes back for a place that became free before."""
    ids = fill(store, 6, settings=settings(overlap=2))
    ann, bob, cat = (person(store, name) for name in ("ann", "bob", "cat"))
    with desk(store, settings(overlap=2)) as now_open:
        for _ in range(4):
            now_open.label(ann)
            held = now_open.take(bob)
            now_open.submit(held)
        start = select(ANNOTATOR.c.next_position).where(ANNOTATOR.c.id == ann)
        assert now_open.connection.scalar(start) == 3
        assert now_open.label(cat).task_id == ids[4]
        assert now_open.submit(held, SKIP, revision=1).status is Status.STORED
        assert now_open.take(cat).task_id == ids[3]
        assert now_open.take(ann).task_id == ids[4]


def test_a_task_queued_before_the_others_is_not_overlooked(store):
    ids = fill(store, 2)
    ann = person(store, "ann")
    with desk(store) as now_open:
        now_open.label(ann)
        now_open.label(ann)
        assert now_open.claim(ann) == Nothing("done")
        row = now_open.connection.execute(select(QUEUE).where(QUEUE.c.task_id == ids[0])).one()
        now_open.connection.execute(LEASE.update().where(LEASE.c.task_id == ids[0]).values(state=State.EXPIRED))
        now_open.connection.execute(QUEUE.update().where(QUEUE.c.task_id == ids[0]).values(taken=0, position=-5))
        assert row.position == 0
        assert now_open.take(ann).task_id == ids[0]


def test_a_lease_that_is_not_expired_is_never_opened_again(store):
    fill(store, 1)
    ann = person(store, "ann")
    with desk(store) as now_open:
        held = now_open.label(ann)
    again = (PLAIN, ann, held.task_id, Purpose.LABEL, Choice.A, 5.0)
    with pytest.raises(IntegrityError), desk(store) as now_open:
        _open(now_open.connection, now_open.project, *again)


# Qualification, gold and probes


def test_qualification_comes_first_and_once(store):
    ids = fill(store, 1, qualification=[Choice.A, Choice.B])
    ann = person(store, "ann")
    with desk(store, settings(qualification_accuracy=1.0)) as now_open:
        for number, known in enumerate((Choice.A, Choice.B)):
            held = now_open.take(ann)
            assert (held.task_id, held.purpose) == (ids[number], Purpose.QUALIFICATION)
            now_open.submit(held, chooses(held, known))
        assert record(now_open.connection, ann, Purpose.QUALIFICATION) == Record(2, 2)
        assert now_open.take(ann).purpose is Purpose.LABEL


@pytest.mark.parametrize(("right", "wanted"), [(14, True), (13, False)])
def test_a_share_that_floats_cannot_hold_is_met_exactly(store, right, wanted):
    """0.56 * 25 is more than 14 for a computer."""
    fill(store, 1, qualification=[Choice.A] * 25)
    ann = person(store, "ann")
    with desk(store, settings(qualification_accuracy=0.56)) as now_open:
        for number in range(25):
            held = now_open.take(ann)
            now_open.submit(held, chooses(held, Choice.A if number < right else Choice.TIE))
        found = now_open.claim(ann)
    if wanted:
        assert found.purpose is Purpose.LABEL
    else:
        assert found == Nothing("unqualified", "13 of 25 qualification tasks were right")


def test_who_skips_the_qualification_is_not_qualified(store):
    fill(store, 1, qualification=[Choice.A])
    ann = person(store, "ann")
    with desk(store) as now_open:
        now_open.label(ann, SKIP)
        assert now_open.claim(ann) == Nothing("unqualified", "0 of 1 qualification tasks were right")


def test_a_tie_of_any_kind_is_a_tie_and_a_skipped_gold_task_does_not_count(store):
    fill(store, 9, gold=[Choice.TIE, Choice.TIE, Choice.A, Choice.B])
    ann = person(store, "ann")
    answers = [Answer(Verdict.TIE), Answer(Verdict.BOTH_BAD), SKIP]
    with desk(store, settings(gold_share=0.5)) as now_open:
        seen = 0
        while seen < 4:
            held = now_open.take(ann)
            if held.purpose is Purpose.GOLD:
                now_open.submit(held, answers[seen] if seen < 3 else chooses(held, Choice.A))
                seen += 1
            else:
                now_open.submit(held)
        assert record(now_open.connection, ann, Purpose.GOLD) == Record(2, 3)
        assert record(now_open.connection, ann, Purpose.GOLD, last=2) == Record(1, 2)


def test_shares_and_sides_are_as_asked(tmp_path):
    """250 tasks of one person; every count is inside what chance gives 999 times of 1,000."""
    study = settings(gold_share=0.2, probe_share=0.1, probe_after=3, pause_below=0.0, seed=3)
    store = LabelStore(f"sqlite:///{tmp_path / 'labels.sqlite'}", create=True)
    fill(store, 250, gold=[Choice.A] * 120, settings=study)
    ann = person(store, "ann")
    given, left = Counter(), Counter()
    order: list[tuple[Purpose, int]] = []
    with desk(store, study) as now_open:
        for _ in range(250):
            held = now_open.label(ann)
            given[held.purpose] += 1
            left[held.shown_left] += 1
            order.append((held.purpose, held.task_id))
    assert binomtest(given[Purpose.GOLD], 250, 0.2).pvalue > 0.001
    assert binomtest(given[Purpose.PROBE], 250, 0.1).pvalue > 0.001
    assert binomtest(left[Choice.A], 250, 0.5).pvalue > 0.001
    first = {task: number for number, (purpose, task) in enumerate(order) if purpose is Purpose.LABEL}
    probes = [(first[task], number) for number, (purpose, task) in enumerate(order) if purpose is Purpose.PROBE]
    assert len(set(probes)) == len(probes) == given[Purpose.PROBE]
    assert min(later - earlier for earlier, later in probes) == 4, "three other tasks lie between"


def test_a_probe_shows_the_other_side(store):
    study = settings(probe_share=0.5, probe_after=0)
    fill(store, 50, settings=study)
    ann = person(store, "ann")
    with desk(store, study) as now_open:
        held = {}
        for _ in range(60):
            found = now_open.label(ann)
            if found.purpose is Purpose.PROBE:
                assert found.shown_left is held[found.task_id].shown_left.swapped()
                assert (found.left, found.right) == (held[found.task_id].right, held[found.task_id].left)
                break
            held[found.task_id] = found
        assert found.purpose is Purpose.PROBE


def test_draws_are_fixed_and_even():
    assert draw(0, "side", 1, 2) == draw(0, "side", 1, 2) != draw(0, "side", 12)
    assert draw(1, 23) != draw(12, 3)
    values = [draw(0, "x", n) for n in range(2000)]
    assert all(0 <= value < 1 for value in values)
    assert binomtest(sum(value < 0.1 for value in values), 2000, 0.1).pvalue > 0.001


# People


def test_who_is_paused_gets_nothing_until_they_may_go_on(store):
    fill(store, 2)
    ann, bob = person(store, "ann"), person(store, "bob")
    with desk(store) as now_open:
        held = now_open.take(ann)
        pause(now_open, ann, "talk to me")
        assert now_open.claim(ann) == Nothing("paused", "talk to me")
        assert now_open.take(bob).task_id != held.task_id
        assert now_open.submit(held, now=7.0).status is Status.STORED, "what is in their hands is not lost"
        resume(now_open, ann)
        assert now_open.claim(ann) == Nothing("waiting")


def test_somebody_of_another_project_gets_nothing(store):
    fill(store, 1)
    ann = person(store, "ann")
    with store.changing("other") as (connection, project):
        other = Desk(connection, project, PLAIN)
        assert other.claim(ann) == Nothing("paused", "you are not in this project any more")
        assert other.claim(999) == Nothing("paused", "you are not in this project any more")


def test_an_erasure_opens_the_places_again(store):
    study = settings(overlap=2, gold_share=0.3, probe_share=0.3, probe_after=1)
    ids = fill(store, 8, gold=[Choice.A] * 3, settings=study)
    ann, bob = person(store, "ann"), person(store, "bob")
    with desk(store, study) as now_open:
        for number in range(9):
            now_open.label(ann, SKIP if number == 4 else LEFT)
            now_open.label(bob)
        now_open.take(ann)
        of_bob = select(LEASE.c.task_id).where(LEASE.c.annotator_id == bob, HOLDS_A_PLACE)
        bobs = set(now_open.connection.scalars(of_bob))
    erase(store, PROJECT, "ann")
    assert taken(store) == [0] * 3 + [int(task in bobs) for task in ids[3:]]
    with desk(store, study) as now_open:
        assert now_open.claim(ann) == Nothing("paused", "you are not in this project any more")
        for table in (LEASE, EVENT):
            mine = select(func.count()).where(table.c.annotator_id == ann)
            assert now_open.connection.scalar(mine) == 0
    cat = person(store, "cat")
    with desk(store, settings(overlap=2)) as now_open:
        assert [now_open.label(cat).task_id for _ in range(8)] == ids[3:]


def test_a_label_of_a_file_and_one_of_the_page_are_one_persons_label(store):
    """The later one holds, whichever it is; an undo on the page brings nothing back."""
    fill(store, 1)
    ann = person(store, "ann")
    with desk(store) as now_open:
        held = now_open.take(ann)

    def imports(choice: Choice, number: int) -> None:
        judged = Judgement(
            user(held.prompt[0].content), held.left, held.right, choice, "ann", 1, text_digest(str(number))
        )
        with store.changing(PROJECT) as (connection, project):
            BatchWriter(connection, project, file="f", format="pairwise").add([[judged]])

    def holding() -> list[tuple[str, str]]:
        with store.reading(PROJECT) as labels:
            texts = [(j, {Choice.A: j.response_a, Choice.B: j.response_b}) for j in labels.judgements()]
            return [(j.annotator, t[j.choice]) for j, t in texts]

    imports(Choice.B, 1)
    assert holding() == [("ann", held.right)]
    with desk(store) as now_open:
        now_open.submit(held)
    assert holding() == [("ann", held.left)]
    imports(Choice.B, 2)
    assert holding() == [("ann", held.right)]
