import pytest
from queued import LEFT, PLAIN, PROJECT, SKIP, chooses, desk, fill, pause, person, resume
from sqlalchemy import select

from rlhf.labels.collection.history import Past, Progress, current, history, taken_back, tasks_in_all
from rlhf.labels.collection.history import progress as progress_of
from rlhf.labels.collection.pauses import told, wrong_answers
from rlhf.labels.collection.queue import Lease, Nothing, Purpose, State, release_expired
from rlhf.labels.collection.study import Study, set_guidelines
from rlhf.labels.collection.submissions import Receipt, Status, closed_reason, undo
from rlhf.labels.collection.verdicts import Answer, Side, Verdict
from rlhf.labels.records import Choice, TieKind
from rlhf.labels.store import LabelStore
from rlhf.labels.tables import EVENT
from rlhf.labels.trust.report import trust_report
from sft.core.errors import DataError

HONEST = Study(**{**vars(PLAIN), "attributes": ("honest", "kind")})


@pytest.fixture
def store(any_url: str) -> LabelStore:
    return LabelStore(any_url, create=True)


@pytest.fixture
def ann(store: LabelStore) -> int:
    fill(store, 3)
    return person(store, "ann")


def events(store: LabelStore) -> list[tuple[object, ...]]:
    columns = (EVENT.c.kind, EVENT.c.attribute, EVENT.c.choice, EVENT.c.tie_kind, EVENT.c.strength, EVENT.c.reason)
    with store.reading(PROJECT) as labels:
        return [tuple(row) for row in labels.connection.execute(select(*columns).order_by(EVENT.c.id))]


def labels(store: LabelStore, attribute: str | None = None) -> list[str]:
    """Return the better answers, x or y, that hold now."""
    with store.reading(PROJECT) as found:
        judged = [event.judgement for event in found.labels(attribute)]
    texts = [{Choice.A: j.response_a, Choice.B: j.response_b, Choice.TIE: "tie"}[j.choice] for j in judged]
    return [text.split()[-1] for text in texts]


@pytest.mark.parametrize(
    ("verdict", "side", "strength", "tie_kind"),
    [
        (Verdict.LEFT_CLEARLY, "left", 2.0, None),
        (Verdict.LEFT_SLIGHTLY, "left", 1.0, None),
        (Verdict.TIE, "tie", None, None),
        (Verdict.BOTH_BAD, "tie", None, TieKind.BOTH_BAD),
        (Verdict.RIGHT_SLIGHTLY, "right", 1.0, None),
        (Verdict.RIGHT_CLEARLY, "right", 2.0, None),
    ],
)
def test_a_verdict_is_stored_as_it_was_meant(store, ann, verdict, side, strength, tie_kind):
    with desk(store) as now_open:
        for _ in range(3):
            held = now_open.take(ann, 10.0)
            assert now_open.submit(held, Answer(verdict), now=12.3456) == Receipt(Status.STORED, 1)
    with store.reading(PROJECT) as found:
        for event in found.labels():
            judged = event.judgement
            shown = {"left": judged.response_a, "right": judged.response_b, "tie": "tie"}[side]
            texts = {Choice.A: judged.response_a, Choice.B: judged.response_b, Choice.TIE: "tie"}
            assert texts[judged.choice] == shown
            assert (judged.strength, judged.tie_kind, judged.order_known) == (strength, tie_kind, True)
            assert (event.seconds, judged.time, event.guideline_version) == (2.346, 12.3456, "0")
        last = next(e.judgement for e in found.labels() if e.judgement.prompt == held.prompt)
        assert (last.response_a, last.response_b) == (held.left, held.right), "as it was shown"


def test_one_request_is_one_verdict_its_attributes_and_its_flag(store, ann):
    given = Answer(Verdict.TIE, {"kind": Side.RIGHT, "honest": Side.EQUAL}, reason=" so ", flag=" odd ")
    with desk(store, HONEST) as now_open:
        held = now_open.take(ann)
        now_open.submit(held, given)
        again = now_open.take_known(held.id, ann)
        shown = Answer(Verdict.TIE, {"kind": Side.RIGHT, "honest": Side.EQUAL}, reason="so", flag="odd")
        assert current(now_open.connection, again) == shown
        assert current(now_open.connection, held) == shown
    right = held.shown_left.swapped().value
    assert events(store) == [
        ("label", None, "tie", None, None, "so"),
        ("label", "honest", "tie", None, None, None),
        ("label", "kind", right, None, None, None),
        ("flag", None, None, None, None, "odd"),
    ]
    assert (labels(store), labels(store, "honest")) == (["tie"], ["tie"])


def test_an_edit_without_an_attribute_takes_it_away(store, ann):
    with desk(store, HONEST) as now_open:
        held = now_open.take(ann)
        now_open.submit(held, Answer(Verdict.TIE, {"honest": Side.LEFT, "kind": Side.LEFT}))
        edited = now_open.submit(held, Answer(Verdict.TIE, {"kind": Side.EQUAL}), now=9.0, revision=1)
        assert edited == Receipt(Status.STORED, 2)
    assert (labels(store), labels(store, "honest"), labels(store, "kind")) == (["tie"], [], ["tie"])
    with store.reading(PROJECT) as found:
        assert [event.seconds for event in found.events()] == [1.0] * 3 + [None] * 2
        assert found.attributes() == {None: 2, "kind": 2, "honest": 1}


def test_a_clock_that_goes_back_gives_no_seconds_and_keeps_the_order(store, ann):
    with desk(store) as now_open:
        first = now_open.label(ann, now=5000.0)
        held = now_open.take(ann, 5000.0)
        now_open.submit(held, now=10.0)
        assert [past.lease_id for past in history(now_open.connection, now_open.project, ann)] == [held.id, first.id]
        assert undo(now_open.connection, now_open.project, PLAIN, ann, 10.0) == held.id
    with store.reading(PROJECT) as found:
        assert [event.seconds for event in found.events()] == [0.0, None, None]


def test_the_same_request_again_gets_the_same_answer(store, ann):
    with desk(store) as now_open:
        held = now_open.take(ann)
        assert now_open.submit(held) == Receipt(Status.STORED, 1)
    for now in (2.0, 3.0):
        with desk(store) as now_open:
            assert now_open.submit(held, now=now) == Receipt(Status.REPEATED, 1)
            assert now_open.submit(held, SKIP, now) == Receipt(Status.CONFLICT, 1)
            flagged = Answer(Verdict.LEFT_CLEARLY, flag="odd")
            assert now_open.submit(held, flagged, now) == Receipt(Status.CONFLICT, 1)
    assert len(events(store)) == 1


def test_a_request_is_repeated_also_when_the_study_asks_other_things_by_then(store, ann):
    asked = Answer(Verdict.TIE, {"honest": Side.LEFT})
    with desk(store, HONEST) as now_open:
        held = now_open.take(ann)
        now_open.submit(held, asked)
    with desk(store, PLAIN) as now_open:
        assert now_open.submit(held, asked) == Receipt(Status.REPEATED, 1)
        with pytest.raises(DataError, match="'honest' is not asked in this project; its attributes are: none"):
            now_open.submit(held, asked, revision=1)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(Verdict.TIE, {"hones": Side.LEFT}), "'hones' is not asked in this project; its attributes are: honest"),
        (Answer(None, reason="  "), "a skipped task needs a reason; choose or write one"),
        (Answer(Verdict.TIE, guideline_version=2), "there are no guidelines of version 2, the newest is 1; reload"),
        (Answer(Verdict.TIE, guideline_version=-1), "there are no guidelines of version -1"),
        (Answer(Verdict.TIE, reason="a\0b"), r"U\+0000, which cannot be stored"),
        (Answer(Verdict.TIE, flag="\ud800"), r"U\+D800, which cannot be stored"),
    ],
)
def test_what_cannot_be_stored(store, ann, answer, said):
    with desk(store, HONEST) as now_open:
        set_guidelines(now_open.connection, now_open.project, "text")
        held = now_open.take(ann)
        with pytest.raises(DataError, match=said):
            now_open.submit(held, answer)
        assert now_open.submit(held, Answer(Verdict.TIE, guideline_version=1)).status is Status.STORED
    assert len(events(store)) == 1


def test_anothers_lease_is_unknown(store, ann):
    bob = person(store, "bob")
    with desk(store) as now_open:
        held = now_open.take(ann)
        for other in (held._replace(annotator_id=bob), *(held._replace(id=n) for n in (0, -1, 99, 2**31, 2**80))):
            assert now_open.submit(other) == Receipt(Status.UNKNOWN, 0)
    assert events(store) == []


# Late answers


def test_a_late_answer_is_kept_and_holds_no_place(store, ann):
    bob = person(store, "bob")
    with desk(store) as now_open:
        late = now_open.take(ann, 0.0)
        other = now_open.label(bob, now=3600.0)
        assert other.task_id == late.task_id
        assert now_open.submit(late, chooses(late, Choice.A), 3601.0) == Receipt(Status.STORED, 1)
        assert now_open.take_known(late.id, ann).state is State.LATE
        assert now_open.claim(ann, 3602.0).task_id != late.task_id
    assert sorted(labels(store)) == sorted(["x", "x" if other.shown_left is Choice.A else "y"])


def test_an_answer_after_its_time_holds_the_place_where_nobody_took_it(store, ann):
    with desk(store) as now_open:
        held = now_open.take(ann, 0.0)
        assert release_expired(now_open.connection, now_open.project, 3600.0) == 1
        assert now_open.take_known(held.id, ann).state is State.EXPIRED
        now_open.submit(held, now=3601.0)
        assert now_open.take_known(held.id, ann).state is State.DONE


def test_a_late_answer_takes_a_place_that_is_free_again(store, ann):
    bob = person(store, "bob")
    with desk(store) as now_open:
        late = now_open.take(ann, 0.0)
        taken = now_open.take(bob, 3600.0)
        now_open.submit(late, now=3601.0)
        now_open.submit(taken, SKIP, now=3602.0)
        now_open.submit(late, Answer(Verdict.TIE), now=3603.0, revision=1)
        assert now_open.take_known(late.id, ann).state is State.DONE
        now_open.submit(taken, now=3604.0, revision=1)
        assert now_open.take_known(taken.id, bob).state is State.LATE
    assert len(labels(store)) == 2


def test_an_undone_late_answer_is_gone_and_can_be_given_again(store, ann):
    bob = person(store, "bob")
    with desk(store) as now_open:
        first = now_open.label(ann, now=0.0)
        late = now_open.take(ann, 0.0)
        now_open.label(bob, now=3600.0)
        now_open.submit(late, now=3601.0)
        take_back = (now_open.connection, now_open.project, PLAIN, ann, 3602.0)
        assert undo(*take_back) == late.id
        assert now_open.take_known(late.id, ann).state is State.EXPIRED
        assert undo(*take_back) == first.id, "not the same one for ever"
        assert now_open.submit(late, SKIP, now=3603.0, revision=2) == Receipt(Status.STORED, 3)
    assert len(labels(store)) == 1


# Undo


def test_undo_goes_back_step_by_step(store, ann):
    with desk(store) as now_open:
        take_back = (now_open.connection, now_open.project, PLAIN, ann, 5.0)
        assert undo(*take_back) is None
        held = [now_open.label(ann, LEFT if n else SKIP) for n in range(3)]
        assert [undo(*take_back) for _ in range(4)] == [held[2].id, held[1].id, held[0].id, None]
        assert now_open.take(ann).id == held[0].id
        assert [current(now_open.connection, one) for one in held] == [None] * 3
        assert history(now_open.connection, now_open.project, ann) == []
    assert labels(store) == []
    with desk(store) as now_open:
        assert now_open.submit(held[1], revision=1).status is Status.CONFLICT
        assert now_open.submit(held[1], now=6.0, revision=2) == Receipt(Status.STORED, 3)
    assert len(labels(store)) == 1


def test_what_was_undone_last_can_be_offered_again(store, ann):
    first = Answer(Verdict.TIE, {"kind": Side.LEFT}, "both fine", flag="odd")
    second = Answer(None, reason="not my field")
    study = Study(attributes=("kind",), probe_share=0.0, gold_share=0.0)
    with desk(store, study) as now_open:
        held = now_open.take(ann)
        assert taken_back(now_open.connection, held) is None
        for revision, given in enumerate((first, None, second, None)):
            if given is None:
                undo(now_open.connection, now_open.project, study, ann, 5.0)
                found = taken_back(now_open.connection, now_open.take(ann))
                assert found == (first if revision == 1 else second)
            else:
                now_open.submit(held, given, revision=revision)
    assert labels(store) == []


def test_an_undo_that_is_sent_twice_takes_back_one_answer(store, ann):
    with desk(store) as now_open:
        first, last = now_open.label(ann), now_open.label(ann)
        take_back = (now_open.connection, now_open.project, PLAIN, ann, 5.0)
        named = {"lease_id": last.id, "revision": 1}
        assert [undo(*take_back, **named) for _ in range(3)] == [last.id] * 3
        assert undo(*take_back, lease_id=first.id, revision=0) is None
        assert undo(*take_back, lease_id=99, revision=1) is None
        assert [past.lease_id for past in history(now_open.connection, now_open.project, ann)] == [first.id]


def test_what_is_undone_goes_back_to_the_queue_after_its_time(store, ann):
    bob = person(store, "bob")
    with desk(store) as now_open:
        held = now_open.label(ann)
        undo(now_open.connection, now_open.project, PLAIN, ann, 100.0)
        assert now_open.take(bob, 1800.0).task_id != held.task_id
        assert now_open.label(bob, now=1850.0).task_id != held.task_id
        assert now_open.take(bob, 1901.0).task_id == held.task_id


# What measures people


def test_gold_and_probes_train_nothing(store):
    study = Study(overlap=1, gold_share=0.4, probe_share=0.4, probe_after=1, pause_below=0.0)
    fill(store, 6, gold=[Choice.A] * 6, qualification=[Choice.A], settings=study)
    ann = person(store, "ann")
    given = []
    with desk(store, study) as now_open:
        while isinstance(held := now_open.claim(ann), Lease):
            now_open.submit(held, chooses(held, Choice.A))
            given.append(held)
        assert held == Nothing("done")
    purposes = {held.purpose for held in given}
    assert purposes == set(Purpose)
    tasks = {held.task_id for held in given if held.purpose is Purpose.LABEL}
    with store.reading(PROJECT) as found:
        assert {event.task_id for event in found.labels()} == tasks
        assert len(list(found.labels())) == len(found.judgements()) == len(tasks) == 6
        assert found.attributes() == {None: 6}
        report = trust_report(found.judgements(), seed=0)
        assert (report.judgements, report.repeated) == (6, 0)


def test_wrong_gold_tasks_pause_and_count_no_more_after_that(store):
    study = Study(**{**vars(PLAIN), "gold_share": 0.5, "pause_window": 2, "pause_below": 0.6})
    fill(store, 100, gold=[Choice.A] * 8, settings=study)
    ann = person(store, "ann")

    def work(choice: Choice, golds: int) -> object:
        found = None
        while golds:
            found = now_open.claim(ann, 10.0 * len(done))
            if not isinstance(found, Lease):
                return found
            now_open.submit(found, chooses(found, choice), 10.0 * len(done))
            done.append(found)
            golds -= found.purpose is Purpose.GOLD
        return now_open.claim(ann, 10.0 * len(done))

    done: list[Lease] = []
    with desk(store, study) as now_open:
        why = "1 of the last 2 tasks with a known answer were right"
        assert isinstance(work(Choice.A, 2), Lease)
        assert work(Choice.B, 1) == Nothing("paused", why)
        resume(now_open, ann)
        assert isinstance(work(Choice.B, 1), Lease), "what was wrong before the pause is forgiven"
        assert work(Choice.A, 1) == Nothing("paused", why)


def test_a_qualification_that_is_over_stays_as_it_is(store):
    """Else the last answers could be changed until the test is passed."""
    fill(store, 1, qualification=[Choice.A, Choice.A])
    ann = person(store, "ann")
    with desk(store) as now_open:
        take_back = (now_open.connection, now_open.project, PLAIN, ann, 5.0)
        first = now_open.take(ann)
        now_open.submit(first, chooses(first, Choice.B))
        assert undo(*take_back) == first.id
        again = now_open.take(ann)
        now_open.submit(again, chooses(again, Choice.B))
        now_open.submit(again, chooses(again, Choice.A), revision=3)
        second = now_open.take(ann)
        now_open.submit(second, chooses(second, Choice.B))
        assert now_open.claim(ann).reason == "unqualified"
        assert undo(*take_back) is None
        assert now_open.submit(second, chooses(second, Choice.B)) == Receipt(Status.REPEATED, 1)
        with pytest.raises(DataError, match="came before the work began, and its answer stands"):
            now_open.submit(second, chooses(second, Choice.A), revision=1)


# Pages


def test_history_and_progress(store, ann):
    day = 86_400.0
    with desk(store) as now_open:
        mine = (now_open.connection, now_open.project, ann)
        first = now_open.label(ann, SKIP, now=1.0)
        second = now_open.label(ann, Answer(Verdict.BOTH_BAD), now=2.0)
        third = now_open.label(ann, Answer(Verdict.TIE), now=day)
        assert history(*mine) == [
            Past(third.id, third.prompt[0].content, State.DONE, Verdict.TIE, day, 1, False),
            Past(second.id, second.prompt[0].content, State.DONE, Verdict.BOTH_BAD, 2.0, 1, False),
            Past(first.id, first.prompt[0].content, State.SKIPPED, None, 1.0, 1, False),
        ]
        assert [past.lease_id for past in history(*mine, limit=1)] == [third.id]
        assert progress_of(*mine, day) == Progress(labels=2, today=2, skipped=1, stands=0)
        assert progress_of(*mine, day + 2.0) == Progress(2, 1, 1, 0)
        assert progress_of(*mine[:2], ann + 1, day) == Progress(0, 0, 0, 0)
        assert tasks_in_all(*mine[:2]) == 3


def test_no_count_tells_what_a_task_is_for_before_its_purpose_is_over(store):
    """Known answers and probes count as labels, and those before the work until it begins."""
    settings = Study(overlap=1, gold_share=0.5, probe_share=0.5, probe_after=0, qualification_accuracy=0.0)
    fill(store, 4, gold=[Choice.A] * 3, qualification=[Choice.A] * 2, settings=settings)
    ann = person(store, "ann")
    seen, purposes = [], []
    with desk(store, settings) as now_open:
        mine = (now_open.connection, now_open.project, ann)
        while isinstance(held := now_open.claim(ann, float(len(seen))), Lease):
            purposes.append(held.purpose)
            now_open.submit(held, now=float(len(seen)))
            seen.append(progress_of(*mine, float(len(seen))))
            if len(seen) == 1:
                assert [past.stands for past in history(*mine)] == [False]
        assert [past.stands for past in history(*mine)] == [False] * (len(seen) - 2) + [True] * 2
        assert tasks_in_all(*mine[:2]) == 7
    assert {Purpose.GOLD, Purpose.PROBE, Purpose.LABEL} <= set(purposes)
    assert [(one.labels, one.stands) for one in seen] == [(1, 0), (0, 2), *((n + 1, 2) for n in range(len(seen) - 2))]


def test_who_is_paused_changes_nothing_and_reads_why(store, ann):
    with desk(store) as now_open:
        take_back = (now_open.connection, now_open.project, PLAIN, ann, 5.0)
        held = now_open.label(ann)
        pause(now_open, ann, "talk to me")
        for answer in (SKIP, LEFT):
            with pytest.raises(
                DataError, match=r"your work is paused \(talk to me\), so answers stay as they are; ask"
            ):
                now_open.submit(held, answer, revision=1)
        with pytest.raises(DataError, match="your work is paused"):
            undo(*take_back)
        assert now_open.submit(held) == Receipt(Status.REPEATED, 1)
        assert "talk to me" in closed_reason(now_open.connection, now_open.project, now_open.take_known(held.id, ann))
        resume(now_open, ann)
        assert now_open.submit(held, SKIP, revision=1) == Receipt(Status.STORED, 2)
        assert closed_reason(now_open.connection, now_open.project, now_open.take_known(held.id, ann)) is None
        named = {"lease_id": held.id, "revision": 2}
        assert undo(*take_back, **named) == held.id
        pause(now_open, ann)
        assert undo(*take_back, **named) == held.id, "the same request again"


def test_a_task_that_went_back_is_not_answered_by_who_is_paused(store, ann):
    with desk(store) as now_open:
        held = now_open.take(ann)
        release_expired(now_open.connection, now_open.project, PLAIN.lease_seconds + 1)
        pause(now_open, ann)
        with pytest.raises(DataError, match="your work is paused"):
            now_open.submit(held)


def test_what_paused_somebody_by_itself_does_not_tell_of_known_answers():
    assert told(wrong_answers(3, 10)) == ""
    assert told("talk to me, 3 of the last 10 were odd") == "talk to me, 3 of the last 10 were odd"
