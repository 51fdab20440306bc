import json
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from label_people import START, Worker, give, hire, open_study, pairs, work
from label_removal import erase
from sqlalchemy import select
from typer.testing import CliRunner

from rlhf.labels.accounts.users import DISABLED
from rlhf.labels.collection.monitor import (
    HOURS_SHOWN,
    Overview,
    contested,
    doubts,
    hourly,
    overview,
    pace,
    reported,
    status,
)
from rlhf.labels.collection.people import AnnotatorNumbers, Standing, change, difference, reading_seconds
from rlhf.labels.collection.queue import Lease, Purpose, claim, record
from rlhf.labels.collection.snapshot import Snapshot, mark, snapshot, texts, versions
from rlhf.labels.collection.study import Study, set_guidelines
from rlhf.labels.collection.submissions import undo
from rlhf.labels.collection.verdicts import Answer, Verdict
from rlhf.labels.commands import app
from rlhf.labels.events import EventKind
from rlhf.labels.importing.batches import BatchWriter
from rlhf.labels.records import Choice, Judgement
from rlhf.labels.store import LabelStore
from rlhf.labels.tables import ACCOUNT, ANNOTATOR
from rlhf.labels.trust.report import trust_report
from sft.core.durable import text_digest
from sft.core.errors import UsageError
from sft.core.statistics import Estimate, proportion
from sft.core.text import user

HOUR = 3600.0
PLAIN = Study(overlap=2, gold_share=0.0, probe_share=0.0)


def opened(folder: Path, url: str | None = None) -> LabelStore:
    return LabelStore(url or f"sqlite:///{folder / 'labels.sqlite'}", create=True)


def read(store: LabelStore, now: float = START, kept: Snapshot | None = None) -> Snapshot:
    with store.reading("p") as labels:
        return snapshot(labels.connection, labels.project, now, kept)


def numbers(store: LabelStore, now: float = START) -> Overview:
    return overview(read(store, now), resamples=100)


def person(found: Overview, name: str) -> AnnotatorNumbers:
    return next(one for one in found.annotators if one.name == name)


def prefers(held: Lease, letter: str) -> Answer:
    """Return the answer for a letter: the good or bad one (g, b), left (l), tie (t), skip (s), good and a flag (f)."""
    if letter == "s":
        return Answer(None, reason="unclear prompt")
    if letter == "t":
        return Answer(Verdict.TIE)
    left = letter == "l" or held.left.startswith("good") == (letter in "gf")
    verdict = Verdict.LEFT_CLEARLY if left else Verdict.RIGHT_CLEARLY
    return Answer(verdict, flag="broken" if letter == "f" else "")


def answers(
    store: LabelStore, settings: Study, rows: dict[str, str], *, gap: float = 60.0, take: float = 30.0
) -> float:
    """Let each person answer what the page gives them, one letter a task; return the time at the end."""
    time = START
    with store.changing("p") as (connection, project):
        known = dict(connection.execute(select(ANNOTATOR.c.name, ANNOTATOR.c.id)).tuples().all())
        for name, letters in rows.items():
            number = known.get(name) or hire(connection, project, name)
            for letter in letters:
                held = claim(connection, project, settings, number, time)
                assert isinstance(held, Lease), (name, letter, held)
                give(connection, project, settings, held, prefers(held, letter), time + take)
                time += gap
    return time


def by_prompt(found: Snapshot) -> dict[int, list[Choice | None]]:
    votes: dict[int, list[Choice | None]] = {}
    for answer in found.labels:
        votes.setdefault(answer.task_id, []).append(answer.choice)
    return votes


# By hand


def test_progress(tmp_path):
    store = opened(tmp_path)
    open_study(store, "p", PLAIN, label=pairs(4), gold=pairs(3, prefix="g", gold=True))
    end = answers(store, PLAIN, {"ann": "gggg", "ben": "gsf"})
    with store.changing("p") as (connection, project):
        assert isinstance(claim(connection, project, PLAIN, hire(connection, project, "eva"), end), Lease)
    found = numbers(store, end).progress
    assert (found.tasks, found.complete, found.by_labels, found.in_hands) == (4, 2, (0, 2, 2), 1)
    assert (found.labels, found.wanted, found.missing, found.from_files) == (6, 8, 2, 0)
    assert (found.skips, found.flags) == ((("unclear prompt", 1),), (("broken", 1),))
    assert numbers(store, end + PLAIN.lease_seconds + 1).progress.in_hands == 0


def reach(store: LabelStore, now: float) -> tuple[int, int, int, bool]:
    """Return the missing labels, those out of reach, the people short, and whether an end is foreseen."""
    found = numbers(store, now).progress
    return found.missing, found.out_of_reach, found.people_short, found.pace.hours_left is not None


def test_labels_that_nobody_is_left_to_give(tmp_path):
    """Four tasks for two people each: what one has had, another has to label."""
    store = opened(tmp_path)
    open_study(store, "p", PLAIN, label=pairs(4))
    assert reach(store, START) == (8, 8, 2, False)
    end = answers(store, PLAIN, {"ann": "gg"})
    assert reach(store, end) == (6, 4, 1, True), "of each task one label that ann cannot give"
    end = answers(store, PLAIN, {"ben": "gs"})
    assert reach(store, end) == (5, 1, 1, True), "ann and ben have had the second, and one label is missing"
    assert numbers(store, end).progress.pace.hours_left == pytest.approx(4 / 3)
    end = answers(store, PLAIN, {"ann": "gg", "ben": "gg"})
    assert reach(store, end) == (1, 1, 1, False)
    with store.changing("p") as (connection, project):
        hire(connection, project, "eva")
    assert reach(store, end) == (1, 0, 0, True)


@pytest.mark.parametrize("change", [{"paused_at": 1.0, "paused_reason": "away"}, {"password_hash": DISABLED}])
def test_who_gets_no_tasks_is_not_counted_on(tmp_path, change):
    store = opened(tmp_path)
    open_study(store, "p", PLAIN, label=pairs(1))
    end = answers(store, PLAIN, {"ann": "g", "ben": ""})
    assert reach(store, end) == (1, 0, 0, True)
    with store.changing("p") as (connection, _):
        connection.execute(ACCOUNT.update().where(ACCOUNT.c.name == "ben").values(change))
    assert reach(store, end) == (1, 1, 1, False)


def test_who_failed_the_qualification_is_not_counted_on_and_a_skip_of_it_is_wrong(tmp_path):
    store = opened(tmp_path)
    open_study(store, "p", PLAIN, label=pairs(1), qualification=pairs(2, prefix="q", gold=True))
    end = answers(store, PLAIN, {"ann": "ggg", "ben": "g", "eva": "ss"})
    assert reach(store, end) == (1, 0, 0, True), "ben is half way through it"
    end = answers(store, PLAIN, {"ben": "s"})
    assert reach(store, end) == (1, 1, 1, False)
    for name, right in (("ben", 1), ("eva", 0)):
        found = person(numbers(store, end), name)
        assert (found.standing, found.why) == (Standing.UNQUALIFIED, f"{right} of 2 qualification tasks were right")


def test_labels_over_the_wanted_number_of_one_task_do_not_count_for_another(tmp_path):
    store = opened(tmp_path)
    one = Study(overlap=1, gold_share=0.0, probe_share=0.0, lease_minutes=1)
    open_study(store, "p", one, label=pairs(2))
    with store.changing("p") as (connection, project):
        slow, quick = hire(connection, project, "slow"), hire(connection, project, "quick")
        late = claim(connection, project, one, slow, START)
        again = claim(connection, project, one, quick, START + 100)
        assert isinstance(late, Lease)
        assert isinstance(again, Lease)
        assert late.task_id == again.task_id
        give(connection, project, one, again, prefers(again, "g"), START + 110)
        give(connection, project, one, late, prefers(late, "g"), START + 120)
    found = numbers(store, START + 200).progress
    assert (found.labels, found.complete, found.by_labels, found.missing) == (2, 1, (1, 0, 1), 1)


def test_labels_of_files_count_for_agreement_alone(tmp_path):
    store = opened(tmp_path)
    open_study(store, "p", PLAIN, label=pairs(2))
    end = answers(store, PLAIN, {"ann": "gg"})
    with store.changing("p") as (connection, project):
        writer = BatchWriter(connection, project, file="f", format="pairwise", source=None, licence=None)
        said = [Judgement(user("q"), "x", "y", Choice.A, name, 1, text_digest(name)) for name in ("old", "older")]
        writer.add([[judgement] for judgement in said])
    found = numbers(store, end)
    assert (found.progress.labels, found.progress.from_files, found.progress.missing) == (2, 2, 2)
    assert found.agreement.pairs == 1
    assert person(found, "old").standing is Standing.FILE
    assert person(found, "old").agreement == proportion([1.0])


@pytest.mark.parametrize(
    ("ages_h", "missing", "wanted"),
    [
        ([30, 23, 10, 5, 1], 8, (4, 24.0, 4 / 24, 48.0)),
        ([2, 1], 3, (2, 2.0, 1.0, 3.0)),
        ([0.1, 0.2], 4, (2, 1.0, 2.0, 2.0)),
        ([30], 5, (0, 24.0, 0.0, None)),
        ([1], 0, (1, 1.0, 1.0, None)),
        ([], 5, (0, 1.0, 0.0, None)),
    ],
)
def test_pace(ages_h, missing, wanted):
    found = pace([START - age * HOUR for age in ages_h], missing, START)
    assert found == pytest.approx(wanted) if wanted[3] is not None else found == wanted


def test_hourly():
    found = hourly([START, START - 10, START - HOUR, START - 47.5 * HOUR, START - 49 * HOUR, START + 5], START)
    assert len(found) == HOURS_SHOWN
    assert (found[-1], found[-2], found[0], sum(found)) == (2, 1, 1, 4)


def test_difference_as_published():
    """Newcombe 1998, table II, rows (a) and (d), method 10."""
    found = difference(proportion([1.0] * 56 + [0.0] * 14), proportion([1.0] * 48 + [0.0] * 32))
    assert (found.value, *found.ci) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    assert found.n == 150
    found = difference(proportion([1.0] * 9 + [0.0]), proportion([1.0] * 3 + [0.0] * 7))
    assert (found.value, *found.ci) == pytest.approx((0.6, 0.1705, 0.8090), abs=5e-5)


def test_change_is_the_last_half_minus_the_first():
    assert change([1.0]) is None
    found = change([1.0, 1.0, 0.0, 1.0, 0.0])
    assert found is not None
    assert (found.value, found.n) == (pytest.approx(1 / 3 - 1), 5)
    assert change([0.0, 1.0]).value == 1.0


def test_reading_time():
    assert reading_seconds(6 * 700) == pytest.approx(60.0)


def test_gold_swaps_sides_and_times_by_hand(tmp_path):
    """Every fifth task or so is gold or a probe; what each kind says is counted from the events themselves."""
    store = opened(tmp_path)
    settings = Study(overlap=2, gold_share=0.3, probe_share=0.3, probe_after=1, pause_window=50, seed=3)
    open_study(store, "p", settings, label=pairs(30, words=70), gold=pairs(10, prefix="g", gold=True, words=70))
    answers(store, settings, {"ann": "g" * 28, "lefty": "l" * 28}, take=5.0)
    ann, lefty = (person(numbers(store), name) for name in ("ann", "lefty"))
    assert ann.gold.value == 1.0
    assert ann.gold.n >= 4
    assert (ann.same_again.value, lefty.same_again.value) == (1.0, 0.0)
    assert lefty.same_again.n >= 4
    assert (lefty.left.value, lefty.left.n) == (1.0, lefty.labels)
    assert 0.1 < ann.left.value < 0.9
    assert ann.labels + ann.gold.n + ann.same_again.n == 28
    # 140 words of about 5 characters: under 10 seconds at 700 a minute
    assert (ann.median_seconds, ann.fast) == (5.0, proportion([1.0] * 28))


def test_agreement_and_rates_by_hand(tmp_path):
    store = opened(tmp_path)
    open_study(store, "p", PLAIN, label=pairs(4))
    answers(store, PLAIN, {"ann": "gggt", "ben": "gbgt"})
    ann = person(numbers(store), "ann")
    assert ann.agreement == proportion([1, 0, 1, 1])
    assert ann.tie == proportion([0, 0, 0, 1])
    # the bad answer is shorter and longer in turn: the good ones that ann prefers are longer or not by their number
    good = [a for a in read(store).labels if a.annotator_id == ann.id and a.choice is not Choice.TIE]
    assert ann.longer.n == len(good) == 3


# Against another route


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> LabelStore:
    """Seven people, four of whom work badly, each in their own way."""
    store = opened(tmp_path_factory.mktemp("crowd"))
    open_study(store, "p", CROWD, label=pairs(130, words=60), gold=pairs(40, prefix="g", gold=True, words=60))
    work(store, "p", CROWD, WORKERS, answers=530, seed=5)
    return store


CROWD = Study(overlap=3, gold_share=0.15, probe_share=0.15, probe_after=5, pause_below=0.0, seed=2)
WORKERS = (
    Worker("ann", skill=0.95, skip=0.02),
    Worker("ben", skill=0.95, tie=0.05, flag=0.03),
    Worker("cai", skill=0.95),
    Worker("careless", skill=0.3),
    Worker("drifting", skill=1.0, later_skill=0.0, turning_point=38),
    Worker("fast", skill=0.9, seconds=2.0),
    Worker("lefty", skill=0.9, left=0.9),
)


def test_each_habit_shows_in_its_number_and_the_diligent_in_none(crowd):
    found = numbers(crowd, START + 1e5)
    named = {one.name: {concern.number for concern in one.attention} for one in found.annotators}
    assert {"gold", "agreement", "same_again"} & named["careless"]
    assert named["careless"] <= {"gold", "agreement", "same_again"}
    assert "agreement_drift" in named["drifting"]
    assert named["fast"] == {"fast"}
    assert {"left", "same_again"} <= named["lefty"]
    assert (named["ann"], named["ben"]) == (set(), set())
    assert [one.name for one in found.annotators][-3:] == ["ann", "ben", "cai"]
    assert person(found, "drifting").gold_drift.value < -0.3


def test_rates_and_agreement_are_those_of_the_report(crowd):
    found = numbers(crowd)
    with crowd.reading("p") as labels:
        report = trust_report(labels.judgements(), seed=0, resamples=100)
    assert found.agreement == report.agreement
    for wanted in report.annotators:
        one = person(found, wanted.name)
        assert (one.labels, one.agreement, one.left, one.longer, one.tie) == (
            wanted.n,
            wanted.agreement,
            wanted.left,
            wanted.longer,
            wanted.tie,
        )
    assert len(report.annotators) == 7


def test_gold_is_that_of_the_queue(crowd):
    with crowd.reading("p") as labels:
        right = {one.name: record(labels.connection, one.id, Purpose.GOLD) for one in read(crowd).people}
    for one in numbers(crowd).annotators:
        assert one.gold == proportion(
            [1.0] * right[one.name].right + [0.0] * (right[one.name].n - right[one.name].right)
        )
        assert one.gold.n >= 5


def test_counts_are_those_of_the_events(crowd):
    found = numbers(crowd)
    with crowd.reading("p") as labels:
        kinds = [event.kind for event in labels.events()]
    assert sum(one.labels for one in found.annotators) == found.progress.labels == kinds.count(EventKind.LABEL)
    skips, flags = (kinds.count(kind) for kind in (EventKind.SKIP, EventKind.FLAG))
    assert sum(one.skips for one in found.annotators) == sum(dict(found.progress.skips).values()) == skips > 0
    assert sum(one.flags for one in found.annotators) == dict(found.progress.flags)["broken"] == flags > 0
    assert len(reported(read(crowd))) == skips + flags
    assert sum(found.progress.by_labels) == found.progress.tasks
    assert sum(k * tasks for k, tasks in enumerate(found.progress.by_labels)) == found.progress.labels


def test_contested_tasks(crowd):
    found = read(crowd)
    split = contested(found)
    votes = by_prompt(found)
    both = {task for task, given in votes.items() if {Choice.A, Choice.B} <= set(given)}
    assert {row.task_id for row in split} == both
    assert all(
        row.votes == tuple(votes[row.task_id].count(c) for c in (Choice.A, Choice.TIE, Choice.B)) for row in split
    )
    shares = [min(row.votes[0], row.votes[2]) / sum(row.votes) for row in split]
    assert shares == sorted(shares, reverse=True)


def test_doubts_name_the_task_and_the_likely_answer_as_they_were_shown(crowd):
    found = doubts(read(crowd))
    everything = [doubt for own in found.values() for doubt in own]
    with crowd.reading("p") as labels:
        said = texts(labels.connection, labels.project, [doubt.task_id for doubt in everything])
    for doubt in everything:
        shown = {doubt.judgement.response_a, doubt.judgement.response_b}
        assert shown == {said[doubt.task_id].response_a, said[doubt.task_id].response_b}
        assert doubt.wrong > 0.5
    decided = [doubt for doubt in everything if doubt.likely is not Choice.TIE]
    likely = [d.judgement.response_a if d.likely is Choice.A else d.judgement.response_b for d in decided]
    assert sum(text.startswith("good") for text in likely) > 0.8 * len(likely) > 20
    assert len(found["lefty"]) > len(found.get("ann", []))


# What holds now


def test_an_edit_counts_once_with_its_new_choice_and_the_time_of_the_first(tmp_path):
    store = opened(tmp_path)
    open_study(store, "p", PLAIN, label=pairs(1))
    with store.changing("p") as (connection, project):
        ann = hire(connection, project, "ann")
        held = claim(connection, project, PLAIN, ann, START)
        give(connection, project, PLAIN, held, prefers(held, "g"), START + 12)
        give(connection, project, PLAIN, held._replace(revision=1), Answer(Verdict.BOTH_BAD), START + 500)
    (answer,) = read(store).answers
    assert (answer.choice, answer.seconds, answer.time) == (Choice.TIE, 12.0, START + 500)
    assert (person(numbers(store), "ann").labels, person(numbers(store), "ann").median_seconds) == (1, 12.0)
    with store.changing("p") as (connection, project):
        undo(connection, project, PLAIN, ann, START + 600)
    assert read(store).answers == ()
    assert person(numbers(store), "ann").tie is None


def test_nothing_of_an_erased_person_is_left(crowd, tmp_path):
    store = opened(tmp_path)
    open_study(store, "p", PLAIN, label=pairs(6))
    end = answers(store, PLAIN, {"ann": "ggsg", "gone": "bfbb"})
    before = mark_of(store)
    erase(store, "p", "gone")
    found = numbers(store, end)
    assert [one.name for one in found.annotators] == ["ann"]
    assert (found.progress.labels, found.progress.flags, found.agreement.pairs) == (3, (), 0)
    assert "gone" not in json.dumps(found.as_dict())
    assert mark_of(store) != before


def test_an_answer_of_an_erased_person_that_came_later_is_left_out(tmp_path):
    store = opened(tmp_path)
    open_study(store, "p", PLAIN, label=pairs(2))
    end = answers(store, PLAIN, {"ann": "gg", "gone": "gg"})
    with store.changing("p") as (connection, _):
        connection.execute(ANNOTATOR.update().where(ANNOTATOR.c.name == "gone").values(name=None, erased_at="2026"))
    found = read(store, end)
    assert (len(found.labels), len(found.judgements), len(found.people)) == (2, 2, 1)
    assert {judgement.annotator for judgement in found.judgements} == {"ann"}


def mark_of(store: LabelStore) -> object:
    with store.reading("p") as labels:
        return mark(labels.connection, labels.project)


def test_the_mark_moves_with_answers_and_pauses_alone(tmp_path):
    store = opened(tmp_path)
    open_study(store, "p", PLAIN, label=pairs(3))
    answers(store, PLAIN, {"ann": "g"})
    first = mark_of(store)
    assert mark_of(store) == first
    answers(store, PLAIN, {"ann": "g"})
    second = mark_of(store)
    with store.changing("p") as (connection, _):
        connection.execute(ACCOUNT.update().values(paused_at=1.0, paused_reason="why"))
    assert len({first, second, mark_of(store)}) == 3


def test_answers_are_kept_while_the_mark_holds(tmp_path):
    store = opened(tmp_path)
    open_study(store, "p", PLAIN, label=pairs(3))
    answers(store, PLAIN, {"ann": "g"})
    kept = read(store)
    again = read(store, START + 5, kept)
    assert again.judgements is kept.judgements
    assert again.time == START + 5
    answers(store, PLAIN, {"ann": "g"})
    assert len(read(store, START, kept).judgements) == 2


class Case(NamedTuple):
    tests: str
    paused: str | None
    standing: Standing
    why: str


@pytest.mark.parametrize(
    "case",
    [
        Case("ggg", None, Standing.ACTIVE, ""),
        Case("gg", None, Standing.QUALIFYING, "1 qualification tasks left"),
        Case("gbb", None, Standing.UNQUALIFIED, "1 of 3 qualification tasks were right"),
        Case("gbb", "too fast", Standing.PAUSED, "too fast"),
    ],
)
def test_standing(tmp_path, case):
    store = opened(tmp_path)
    open_study(store, "p", PLAIN, label=pairs(3), qualification=pairs(3, prefix="q", gold=True))
    answers(store, PLAIN, {"ann": case.tests})
    if case.paused:
        with store.changing("p") as (connection, _):
            connection.execute(ACCOUNT.update().values(paused_at=1.0, paused_reason=case.paused))
    ann = person(numbers(store), "ann")
    assert (ann.standing, ann.why) == (case.standing, case.why)
    assert (ann.gold, ann.labels) == (None, 0)
    assert ann.qualification == proportion([float(letter == "g") for letter in case.tests])
    assert bool(ann.attention) == (case.standing in (Standing.PAUSED, Standing.UNQUALIFIED))


@pytest.mark.parametrize(
    ("estimate", "is_named"),
    [(proportion([1.0] * 80 + [0.0] * 20), True), (proportion([1.0] * 8 + [0.0] * 2), False), (None, False)],
)
def test_a_whole_interval_beyond_the_limit_names_somebody(estimate: Estimate | None, is_named: bool):
    from rlhf.labels.collection.people import _above

    assert _above(estimate, 0.6) == is_named


# On both databases, and as a document


def test_on_both_databases(any_url, tmp_path):
    store = opened(tmp_path, any_url)
    settings = Study(overlap=2, gold_share=0.2, probe_share=0.2, probe_after=1, seed=1)
    open_study(store, "p", settings, label=pairs(10), gold=pairs(4, prefix="g", gold=True))
    with store.changing("p") as (connection, project):
        set_guidelines(connection, project, "one")
        set_guidelines(connection, project, "two")
    end = answers(store, settings, {"ann": "gggggs", "ben": "gbfgg"})
    found = status(store, "p", end).as_dict()
    assert found["progress"]["skips"] == {"unclear prompt": 1}
    assert [one["name"] for one in found["annotators"]] == ["ann", "ben"]
    json.dumps(found, allow_nan=False)
    with store.reading("p") as labels:
        assert [one.version for one in versions(labels.connection, labels.project)] == [2, 1]


def test_a_project_without_labels(tmp_path):
    store = opened(tmp_path)
    open_study(store, "p", PLAIN, label=pairs(2))
    found = numbers(store)
    assert (found.progress.complete, found.progress.by_labels, found.annotators) == (0, (2,), ())
    assert (found.agreement.raw, found.middle_agreement) == (None, None)
    json.dumps(found.as_dict(), allow_nan=False)


def test_a_project_without_tasks_says_how_to_make_some(tmp_path):
    store = opened(tmp_path)
    with store.changing("p"):
        pass
    with pytest.raises(UsageError, match="rlhf labels create"):
        status(store, "p", START)


def test_the_command_prints_one_document_or_tables(tmp_path):
    store = opened(tmp_path)
    open_study(store, "p", PLAIN, label=pairs(4))
    answers(store, PLAIN, {"ann": "gggt", "ben": "gbgs"})
    given = ["status", "--project", "p", "--database", f"sqlite:///{tmp_path / 'labels.sqlite'}"]
    as_json = CliRunner().invoke(app, [*given, "--json"])
    found = json.loads(as_json.stdout)
    assert (found["progress"]["labels"], found["progress"]["missing"]) == (7, 1)
    assert [one["name"] for one in found["annotators"]] == ["ann", "ben"]
    as_text = CliRunner().invoke(app, given)
    assert as_text.exit_code == 0
    assert re.search(r"labels +7 of 8\n", as_text.stdout)


def test_the_command_needs_no_web_package():
    web = {"fastapi", "starlette", "argon2", "nh3", "torch"}
    code = f"import sys, rlhf.labels.commands, rlhf.labels.collection.monitor; print(sorted({web} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
