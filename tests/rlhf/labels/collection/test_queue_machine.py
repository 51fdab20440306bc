"""Random sequences of what annotators and owners do, against a model in plain Python that says what must come of each.

The model knows no SQL and no cursor: it looks at everything that ever happened.
"""

import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from label_removal import erase
from queued import PROJECT, desk, fill, pause, person, resume, side_of
from sqlalchemy import Connection, func, select

from rlhf.labels.collection.history import current, history, progress
from rlhf.labels.collection.queue import Lease, Nothing, Purpose, Record, State, lease, record
from rlhf.labels.collection.study import Study, set_study
from rlhf.labels.collection.submissions import Receipt, Status, undo
from rlhf.labels.collection.verdicts import Answer, Side, Verdict
from rlhf.labels.events import EventKind
from rlhf.labels.records import Choice, Judgement, TieKind
from rlhf.labels.store import LabelStore, Project, ProjectLabels, pseudonym
from rlhf.labels.tables import EVENT, LEASE, QUEUE
from sft.core.errors import DataError

MEMORY = Path("/dev/shm")
"""Where fsync costs nothing, so that more can be tried."""
ACTS = 12
"""In one step."""
NAMES = ("ann", "bob", "cat")
STUDY = Study(
    attributes=("honest", "kind"),
    overlap=2,
    lease_minutes=1.0,
    gold_share=0.3,
    probe_share=0.3,
    probe_after=2,
    qualification_accuracy=0.5,
    pause_window=3,
    pause_below=0.5,
)
HOLDING = (State.OPEN, State.DONE)

TEXTS = ("", "", " ", "why", "ö: =1")


def an_answer(chance: Random) -> Answer:
    """Return any answer; one of six is a skip."""
    if chance.random() < 1 / 6:
        return Answer(None, reason="no idea", flag=chance.choice(TEXTS))
    asked = {name: chance.choice(list(Side)) for name in STUDY.attributes if chance.random() < 0.5}
    return Answer(chance.choice(list(Verdict)), asked, chance.choice(TEXTS), chance.choice(TEXTS))


@dataclass
class Held:
    """A lease as the model knows it."""

    id: int
    task: int
    person: str
    purpose: Purpose
    left: Choice
    expires: float
    state: State = State.OPEN
    sent: list[Answer | None] = field(default_factory=list)
    """By revision; None: an undo."""
    order: int = 0
    """Of its last answer among all."""

    @property
    def answer(self) -> Answer | None:
        return self.sent[-1] if self.sent else None

    def choice(self, side: Side) -> Choice:
        other = Choice.B if self.left is Choice.A else Choice.A
        return {Side.LEFT: self.left, Side.RIGHT: other, Side.EQUAL: Choice.TIE}[side]

    @property
    def chosen(self) -> Choice | None:
        verdict = self.answer.verdict if self.answer else None
        return None if verdict is None else self.choice(side_of(verdict))


def said(answer: Answer) -> tuple[object, ...]:
    """Return what of an answer is stored: the same for two answers that are the same request."""
    asked = {} if answer.verdict is None else dict(answer.attributes)
    return answer.verdict, asked, answer.reason.strip(), answer.flag.strip()


class Labelling(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.now, self.steps, self.checks = 1000.0, 0, 0
        self.held: dict[int, Held] = {}
        self.people: dict[str, int] = {}
        self.names = {name: name for name in NAMES}
        self.paused: set[str] = set()
        self.forgiven = dict.fromkeys(NAMES, 0)

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @initialize(
        labels=st.integers(3, 8), golds=st.integers(0, 2), tests=st.integers(0, 1), overlap=st.sampled_from([1, 1, 2])
    )
    def start(self, labels: int, golds: int, tests: int, overlap: int) -> None:
        self.store = LabelStore(f"sqlite:///{self.folder / 'labels.sqlite'}", create=True)
        known = {"gold": [Choice.A, Choice.TIE, Choice.B][:golds], "qualification": [Choice.A, Choice.B][:tests]}
        self.study = replace(STUDY, overlap=overlap)
        ids = fill(self.store, labels, settings=self.study, **known)
        purposes = [Purpose.QUALIFICATION] * tests + [Purpose.GOLD] * golds + [Purpose.LABEL] * labels
        self.tasks = dict(zip(ids, purposes, strict=True))
        self.known = dict(zip(ids, [*known["qualification"], *known["gold"]], strict=False))
        self.people = {name: person(self.store, name) for name in NAMES}

    # What the model says

    def of(self, name: str, *purposes: Purpose) -> list[Held]:
        return [h for h in self.held.values() if h.person == name and (not purposes or h.purpose in purposes)]

    def answered(self, name: str, *purposes: Purpose) -> list[Held]:
        """Oldest answer first."""
        return sorted((h for h in self.of(name, *purposes) if h.answer), key=lambda h: h.order)

    def taken(self, task: int) -> int:
        return sum(h.task == task and h.purpose is Purpose.LABEL and h.state in HOLDING for h in self.held.values())

    def has_room(self, task: int) -> bool:
        return self.taken(task) < self.study.overlap

    def unseen(self, name: str, purpose: Purpose) -> list[int]:
        seen = {h.task for h in self.of(name) if h.state is not State.EXPIRED}
        return [task for task, wanted in self.tasks.items() if wanted is purpose and task not in seen]

    def right(self, name: str, purpose: Purpose) -> list[bool]:
        counted = [h for h in self.answered(name, purpose) if purpose is Purpose.QUALIFICATION or h.chosen]
        return [h.chosen is self.known[h.task] for h in counted]

    def tests_are_over(self, name: str) -> bool:
        done = {h.task for h in self.answered(name, Purpose.QUALIFICATION)}
        return done == {task for task, purpose in self.tasks.items() if purpose is Purpose.QUALIFICATION}

    def move(self, held: Held, wanted: State) -> None:
        counts = held.purpose is Purpose.LABEL
        if counts and wanted in HOLDING and held.state not in HOLDING and not self.has_room(held.task):
            wanted = State.LATE if wanted is State.DONE else State.EXPIRED
        held.state = wanted

    def release_expired(self) -> None:
        """Every claim does this first, whoever asks."""
        for held in self.held.values():
            if held.state is State.OPEN and held.expires < self.now:
                held.state = State.EXPIRED

    def expected(self, name: str) -> tuple[str, set[int]]:
        """Return what a claim may give: a reason for nothing, or "task" and the ids of tasks."""
        self.release_expired()
        opened = [h.id for h in self.of(name) if h.state is State.OPEN]
        if name in self.paused:
            return "paused", set()
        if opened:
            return "lease", {min(opened)}
        tests, right = self.unseen(name, Purpose.QUALIFICATION), self.right(name, Purpose.QUALIFICATION)
        if tests:
            return "task", {tests[0]}
        if right and sum(right) / len(right) < self.study.qualification_accuracy:
            return "unqualified", set()
        free = [task for task in self.unseen(name, Purpose.LABEL) if self.has_room(task)]
        if not free:
            mine = {h.task for h in self.of(name) if h.state is not State.EXPIRED}
            open_now = {h.task for h in self.held.values() if h.state is State.OPEN and h.purpose is Purpose.LABEL}
            return "waiting" if open_now - mine else "done", set()
        probes = {h.task for h in self.of(name, Purpose.PROBE)}
        order = [h.order for h in self.answered(name)]
        old = order[-self.study.probe_after] if len(order) >= self.study.probe_after else -1
        labels = [h for h in self.answered(name, Purpose.LABEL) if h.order < old and h.state is State.DONE]
        fresh = [h.task for h in labels if h.task not in probes]
        return "task", {free[0], *self.unseen(name, Purpose.GOLD)[:1], *fresh[-1:]}

    # What people do

    @rule(seed=st.integers(0, 2**32))
    def some_time(self, seed: int) -> None:
        """Let several things happen; what is likely leads far, what is not is tried all the same."""
        chance = Random(seed)
        happens = {
            self.label: 8,
            self.claim: 2,
            self.leave: 4,
            self.edit: 3,
            self.send_again: 2,
            self.send_nonsense: 1,
            self.undo: 3,
            self.undo_what_is_not_last: 1,
            self.time_passes: 2,
            self.pause_or_resume: 2,
            self.change_overlap: 1,
            self.erase: 0.3,
        }
        for act in chance.choices(list(happens), list(happens.values()), k=ACTS):
            note(act.__name__)
            act(chance)
            self.check()

    def a_lease(self, chance: Random, *, sent: bool = False) -> Held | None:
        """Return any lease; `sent`: one with an answer or an undo."""
        found = [held for held in self.held.values() if held.sent or not sent]
        return chance.choice(found) if found else None

    def claim(self, chance: Random) -> None:
        self.claim_for(chance.choice(NAMES))

    def label(self, chance: Random) -> None:
        """What annotators do most: take the next task and answer it."""
        name = chance.choice(NAMES)
        self.claim_for(name)
        opened = [h for h in self.of(name) if h.state is State.OPEN]
        if opened:
            self.answer(opened[0], an_answer(chance))

    def leave(self, chance: Random) -> None:
        """One goes away from an open task, others work, and the first comes back too late."""
        name = chance.choice(NAMES)
        self.claim_for(name)
        opened = [h for h in self.of(name) if h.state is State.OPEN]
        self.now += 61.0
        for _ in range(chance.randrange(3)):
            self.label(chance)
        if opened:
            self.edit_one(opened[0], an_answer(chance))

    def edit(self, chance: Random) -> None:
        """Answer, or edit, at the revision that holds now; whatever became of the lease meanwhile."""
        held = self.a_lease(chance)
        if held:
            self.edit_one(held, an_answer(chance))

    def edit_one(self, held: Held, answer: Answer) -> None:
        if held.person in self.paused and held.state is not State.OPEN:
            with pytest.raises(DataError, match="your work is paused"):
                self.send(held, len(held.sent), answer)
        elif held.purpose is not Purpose.QUALIFICATION or not self.tests_are_over(held.person):
            self.answer(held, answer)

    def send_again(self, chance: Random) -> None:
        """The same request again stores nothing, another one to an old page neither."""
        held = self.a_lease(chance, sent=True)
        if held is None:
            return
        revision = chance.randrange(len(held.sent))
        before, answer = held.sent[revision], an_answer(chance)
        sent = before if before is not None and chance.random() < 0.7 else answer
        is_repeated = before is not None and said(before) == said(sent)
        status = Status.REPEATED if is_repeated else Status.CONFLICT
        assert self.send(held, revision, sent) == Receipt(status, len(held.sent))

    def send_nonsense(self, chance: Random) -> None:
        """To a revision that is not there yet, to another's task, to a task that is not there."""
        held = self.a_lease(chance)
        if held is None:
            return
        answer, ahead = an_answer(chance), chance.randrange(1, 4)
        assert self.send(held, len(held.sent) + ahead, answer) == Receipt(Status.CONFLICT, len(held.sent))
        other = next(self.people[name] for name in NAMES if name != held.person)
        with desk(self.store, self.study) as now_open:
            found = now_open.take_known(held.id, self.people[held.person])
            for stranger in (found._replace(annotator_id=other), found._replace(id=10**6), found._replace(id=2**70)):
                assert now_open.submit(stranger, answer, self.now) == Receipt(Status.UNKNOWN, 0)

    def undo(self, chance: Random) -> None:
        """Take the last answer back; a page that names it may send its request again."""
        name, is_named = chance.choice(NAMES), chance.random() < 0.7
        is_over = self.tests_are_over(name)
        closed = [h for h in self.answered(name) if not (is_over and h.purpose is Purpose.QUALIFICATION)]
        last = closed[-1] if closed else None
        named = {"lease_id": last.id, "revision": len(last.sent)} if is_named and last else {}
        if last and name in self.paused:
            with desk(self.store, self.study) as (connection, project, study), pytest.raises(DataError, match="paused"):
                undo(connection, project, study, self.people[name], self.now, **named)
            return
        for _ in range(chance.randrange(1, 3) if named else 1):
            with desk(self.store, self.study) as (connection, project, study):
                found = undo(connection, project, study, self.people[name], self.now, **named)
            assert found == (last.id if last else None)
        if last:
            last.sent.append(None)
            last.expires = self.now + self.study.lease_seconds
            self.move(last, State.OPEN)

    def undo_what_is_not_last(self, chance: Random) -> None:
        held = self.a_lease(chance, sent=True)
        if held is None:
            return
        revision = chance.randrange(len(held.sent))
        was_undone = held.sent[revision] is None
        with desk(self.store, self.study) as (connection, project, study):
            named = {"lease_id": held.id, "revision": revision}
            found = undo(connection, project, study, self.people[held.person], self.now, **named)
        assert found == (held.id if was_undone else None)

    def time_passes(self, chance: Random) -> None:
        """Also backwards, as clocks do; what came last stays last."""
        self.now += chance.choice([1.0, 59.0, 61.0, -3000.0])

    def pause_or_resume(self, chance: Random) -> None:
        name = chance.choice(sorted(self.paused) or NAMES)
        is_paused = name not in self.paused and chance.random() < 0.3
        with desk(self.store, self.study) as now_open:
            (pause if is_paused else resume)(now_open, self.people[name])
        (self.paused.add if is_paused else self.paused.discard)(name)

    def change_overlap(self, chance: Random) -> None:
        self.study = replace(self.study, overlap=chance.choice([1, 2, 2, 3]))
        with desk(self.store, self.study) as (connection, project, study):
            set_study(connection, project, study)

    def erase(self, chance: Random) -> None:
        """A person goes for good, and another one comes."""
        name = chance.choice(NAMES)
        labels = self.of(name, Purpose.LABEL)
        stored = sum(1 + len(a.attributes) for h in labels for a in h.sent if a and a.verdict)
        assert erase(self.store, PROJECT, self.names[name]).labels == stored
        with desk(self.store, self.study) as now_open:
            assert now_open.claim(self.people[name], self.now).reason == "paused"
        self.release_expired()
        self.held = {number: h for number, h in self.held.items() if h.person != name}
        self.paused.discard(name)
        self.forgiven[name] = 0
        self.names[name] += " again"
        self.people[name] = person(self.store, self.names[name])

    def claim_for(self, name: str) -> None:
        wanted, ids = self.expected(name)
        with desk(self.store, self.study) as now_open:
            found = now_open.claim(self.people[name], self.now)
            assert now_open.claim(self.people[name], self.now) == found
        expires = self.now + self.study.lease_seconds
        if isinstance(found, Nothing):
            assert (found.reason, set()) == (wanted, ids)
            return
        assert found.state is State.OPEN
        assert {found.left, found.right} == {f"{found.prompt[-1].content} {side}" for side in "xy"}
        assert found.left.endswith("x" if found.shown_left is Choice.A else "y")
        known = self.held.get(found.id)
        if wanted == "lease":
            assert ids == {found.id}
        else:
            assert wanted == "task"
            assert found.task_id in ids
            self.check_given(name, found)
        if known is None:
            known = Held(found.id, found.task_id, name, found.purpose, found.shown_left, expires)
            self.held[found.id] = known
        assert (known.task, known.person, known.left) == (found.task_id, name, found.shown_left)
        assert found.revision == len(known.sent)
        known.state, known.expires = State.OPEN, expires

    def check_given(self, name: str, found: Lease) -> None:
        earlier = [h for h in self.of(name) if h.task == found.task_id]
        if found.purpose is Purpose.PROBE:
            assert [(h.purpose, h.left) for h in earlier] == [(Purpose.LABEL, found.shown_left.swapped())]
        else:
            assert found.purpose is self.tasks[found.task_id]
            assert all(h.id == found.id and h.state is State.EXPIRED for h in earlier)

    def answer(self, held: Held, answer: Answer) -> None:
        assert self.send(held, len(held.sent), answer) == Receipt(Status.STORED, len(held.sent) + 1)
        held.sent.append(answer)
        self.steps += 1
        held.order = self.steps
        self.move(held, State.SKIPPED if answer.verdict is None else State.DONE)
        golds = [h for h in self.answered(held.person, Purpose.GOLD) if h.chosen]
        last = [h for h in golds if h.order > self.forgiven[held.person]][-self.study.pause_window :]
        right = sum(h.chosen is self.known[h.task] for h in last)
        is_full = len(last) == self.study.pause_window
        if held.purpose is Purpose.GOLD and is_full and right / len(last) < self.study.pause_below:
            if held.person not in self.paused:
                self.forgiven[held.person] = self.steps
            self.paused.add(held.person)

    def send(self, held: Held, revision: int, answer: Answer) -> Receipt:
        with desk(self.store, self.study) as now_open:
            found = now_open.take_known(held.id, self.people[held.person])
            return now_open.submit(found, answer, self.now, revision)

    # What always holds

    def check(self) -> None:
        with self.store.reading(PROJECT) as labels:
            self.check_leases(labels.connection)
            self.check_events(labels.connection)
            self.check_pages(labels.connection, labels.project)
            self.check_labels(labels)

    def check_leases(self, connection: Connection) -> None:
        rows = connection.execute(select(LEASE)).all()
        wanted = {h.id: (h.state, len(h.sent), h.answer is None) for h in self.held.values()}
        assert {row.id: (row.state, row.revision, row.answer_id is None) for row in rows} == wanted
        assert all((row.answer_id is None) == (row.closed_at is None) for row in rows)
        queue = connection.execute(
            select(QUEUE.c.task_id, QUEUE.c.taken, QUEUE.c.overlap).where(QUEUE.c.purpose == Purpose.LABEL)
        )
        labels = [task for task, purpose in self.tasks.items() if purpose is Purpose.LABEL]
        assert {tuple(row) for row in queue} == {(task, self.taken(task), self.study.overlap) for task in labels}
        given = Counter((h.person, h.task) for h in self.held.values() if h.purpose is not Purpose.PROBE)
        assert set(given.values()) <= {1}

    def check_events(self, connection: Connection) -> None:
        """Every answer is stored once."""
        kinds = {Purpose.LABEL: EventKind.LABEL, Purpose.PROBE: EventKind.PROBE}
        wanted: Counter[object] = Counter()
        for held in self.held.values():
            for answer in held.sent:
                kind = kinds.get(held.purpose, EventKind.GOLD)
                if answer is None:
                    wanted[held.id, EventKind.UNDO] += 1
                elif answer.verdict is None:
                    wanted[held.id, EventKind.SKIP] += 1
                else:
                    wanted[held.id, kind] += 1 + len(answer.attributes)
                wanted[held.id, EventKind.FLAG] += bool(answer and answer.flag.strip())
        columns = (EVENT.c.lease_id, EVENT.c.kind)
        rows = connection.execute(select(*columns, func.count()).group_by(*columns))
        assert {(row[0], EventKind(row[1])): row[2] for row in rows} == {k: n for k, n in wanted.items() if n}

    def check_pages(self, connection: Connection, project: Project) -> None:
        for name, number in self.people.items():
            closed = self.answered(name)[::-1]
            past = history(connection, project, number)
            assert [(p.lease_id, p.revision, p.state) for p in past] == [(h.id, len(h.sent), h.state) for h in closed]
            assert [p.verdict for p in past] == [h.answer.verdict for h in closed]
            is_over = self.tests_are_over(name)
            standing = [h for h in closed if is_over and h.purpose is Purpose.QUALIFICATION]
            assert [p.lease_id for p in past if p.stands] == [h.id for h in standing]
            done = progress(connection, project, number, self.now)
            skipped = sum(h.answer.verdict is None for h in closed if h not in standing)
            assert done[2:] == (skipped, len(standing))
            assert done.labels == len(closed) - skipped - len(standing)
            for purpose in (Purpose.GOLD, Purpose.QUALIFICATION):
                right = self.right(name, purpose)
                assert record(connection, number, purpose) == Record(sum(right), len(right))
        if self.held:
            held = self.held[max(self.held, key=lambda n: (self.held[n].order, n))]
            shown = current(connection, lease(connection, self.people[held.person], held.id))
            assert (shown and said(shown)) == (held.answer and said(held.answer))

    def check_labels(self, found: ProjectLabels) -> None:
        labels = [h for h in self.held.values() if h.purpose is Purpose.LABEL and h.answer and h.answer.verdict]
        people = {pseudonym(found.project.pseudonym_key, written): name for name, written in self.names.items()}
        wanted = sorted((h.task, h.person, *self.meant(h, side_of(h.answer.verdict))) for h in labels)
        assert sorted(self.seen(e.task_id, e.judgement, people) for e in found.labels()) == wanted
        self.checks += 1
        for name in self.study.attributes[self.checks % 3 : self.checks % 3 + 1]:
            asked = [h for h in labels if name in h.answer.attributes]
            wanted = sorted((h.task, h.person, *self.meant(h, h.answer.attributes[name])) for h in asked)
            assert sorted(self.seen(e.task_id, e.judgement, people) for e in found.labels(name)) == wanted
        judgements = found.judgements()
        names = {written: name for name, written in self.names.items()}
        in_order = sorted(labels, key=lambda h: h.order)
        assert [self.seen(h.task, j, names) for h, j in zip(in_order, judgements, strict=True)] == [
            (h.task, h.person, *self.meant(h, side_of(h.answer.verdict))) for h in in_order
        ]
        fine = {"clearly": 2.0, "slightly": 1.0, "bad": TieKind.BOTH_BAD}
        assert [j.tie_kind or j.strength for j in judgements] == [
            fine.get(h.answer.verdict.value.split("_")[-1]) for h in in_order
        ]

    def meant(self, held: Held, side: Side) -> tuple[str, str]:
        """Return the better answer of a pair and the one that stood left."""
        choice = held.choice(side)
        better = "tie" if choice is Choice.TIE else {"a": "x", "b": "y"}[choice]
        return better, "x" if held.left is Choice.A else "y"

    def seen(self, task: int, judgement: Judgement, people: dict[str, str]) -> tuple[int, str, str, str]:
        texts = {Choice.A: judgement.response_a, Choice.B: judgement.response_b, Choice.TIE: "tie"}
        left = judgement.response_a.split()[-1]
        return task, people[judgement.annotator], texts[judgement.choice].split()[-1], left


Labelling.TestCase.settings = settings(
    max_examples=12, stateful_step_count=4, deadline=None, suppress_health_check=list(HealthCheck)
)
test_what_annotators_do = Labelling.TestCase
