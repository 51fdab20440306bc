"""Which task an annotator gets next, and for how long it is theirs.

Every function runs inside a write transaction of its project. Times are seconds since 1970.
"""

import hashlib
import json
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import Connection, Row, exists, func, select

from rlhf.labels.collection.pauses import stop_reason
from rlhf.labels.collection.study import Study
from rlhf.labels.records import Choice
from rlhf.labels.store import Project, search_again
from rlhf.labels.tables import ANNOTATOR, EVENT, LEASE, QUEUE, TASK
from sft.core.text import Conversation, Message


class Purpose(StrEnum):
    """Why a task is given to somebody; they do not see it."""

    LABEL = "label"
    GOLD = "gold"
    QUALIFICATION = "qualification"
    PROBE = "probe"
    """One's own task again, with the sides swapped."""


class State(StrEnum):
    """Of a lease."""

    OPEN = "open"
    DONE = "done"
    SKIPPED = "skipped"
    EXPIRED = "expired"
    """Given back, and open to others."""
    LATE = "late"
    """Answered after others had got the task; the label counts all the same."""


_LAST_ID = 2**31 - 1
"""No column of the server's holds a higher one."""
HOLDING = (State.OPEN, State.DONE)
"""States that count against a task's overlap."""


class Lease(NamedTuple):
    """A task in somebody's hands; of the pair only left and right are told, never what wrote them."""

    id: int
    task_id: int
    annotator_id: int
    purpose: Purpose
    shown_left: Choice
    state: State
    revision: int
    """How often it was answered or undone; an answer names the revision that its page showed."""
    created_at: float
    prompt: Conversation
    left: str
    right: str


class Nothing(NamedTuple):
    """Why there is no task for somebody now."""

    reason: str
    """"done", "waiting" (others hold the last ones), "paused" (also: removed from the project) or "unqualified"."""
    detail: str = ""


class Record(NamedTuple):
    """How many tasks with a known answer somebody got right."""

    right: int
    n: int


def claim(connection: Connection, project: Project, study: Study, annotator_id: int, now: float) -> Lease | Nothing:
    """Return the task that an annotator has open, or give them the next one.

    Whoever calls twice (a reload, a second tab) gets the same task. A task is never in more than `overlap` hands, and
    nobody gets one twice but as a probe.
    """
    release_expired(connection, project, now)
    stopped = stop_reason(connection, project, annotator_id)
    if stopped is not None:
        return Nothing("paused", stopped)
    mine = (LEASE.c.annotator_id == annotator_id, LEASE.c.answer_id.is_(None), LEASE.c.state == State.OPEN)
    opened = connection.scalar(select(LEASE.c.id).where(*mine).order_by(LEASE.c.id).limit(1))
    if opened is not None:
        connection.execute(LEASE.update().where(LEASE.c.id == opened).values(expires_at=now + study.lease_seconds))
        return _known(connection, opened)
    chosen = _choose(connection, project, study, annotator_id)
    if isinstance(chosen, Nothing):
        return chosen
    purpose, task_id, side = chosen
    return _known(connection, _open(connection, project, study, annotator_id, task_id, purpose, side, now))


def release_expired(connection: Connection, project: Project, now: float) -> int:
    """Give back the tasks whose time is over, and return how many."""
    over = (LEASE.c.project_id == project.id, LEASE.c.state == State.OPEN, LEASE.c.expires_at < now)
    found = connection.scalars(select(LEASE.c.id).where(*over)).all()
    for lease_id in found:
        set_state(connection, lease_id, State.EXPIRED)
    return len(found)


def set_state(connection: Connection, lease_id: int, wanted: State, **values: object) -> State:
    """Move a lease to another state and return it; `taken` of the task follows.

    One that wants a place which others have taken becomes late with its answer, and expired without one.
    """
    row = connection.execute(
        select(LEASE.c.state, LEASE.c.task_id, LEASE.c.purpose, QUEUE.c.project_id, QUEUE.c.position)
        .add_columns((QUEUE.c.taken < QUEUE.c.overlap).label("has_room"))
        .join_from(LEASE, QUEUE, QUEUE.c.task_id == LEASE.c.task_id)
        .where(LEASE.c.id == lease_id)
    ).one()
    counts = row.purpose == Purpose.LABEL
    if counts and wanted in HOLDING and row.state not in HOLDING and not row.has_room:
        wanted = State.LATE if wanted is State.DONE else State.EXPIRED
    change = (wanted in HOLDING) - (row.state in HOLDING)
    if counts and change:
        connection.execute(QUEUE.update().where(QUEUE.c.task_id == row.task_id).values(taken=QUEUE.c.taken + change))
    if counts and change < 0:
        search_again(connection, row.project_id, row.position)
    connection.execute(LEASE.update().where(LEASE.c.id == lease_id).values(state=wanted.value, **values))
    return wanted


def lease(connection: Connection, annotator_id: int, lease_id: int) -> Lease | None:
    """Return one of an annotator's own leases; None where there is none of that number among theirs."""
    found = _lease(connection, lease_id) if 0 < lease_id <= _LAST_ID else None
    return found if found is not None and found.annotator_id == annotator_id else None


def record(
    connection: Connection, annotator_id: int, purpose: Purpose, last: int | None = None, after: int = 0
) -> Record:
    """Return how many of an annotator's gold or qualification tasks (the `last` so many) were right.

    A tie is right where the known answer is a tie, of whatever kind. A skipped qualification task is not right; a
    skipped gold task does not count. `after`: only answers of higher ids.
    """
    counted = [LEASE.c.annotator_id == annotator_id, LEASE.c.purpose == purpose, LEASE.c.answer_id > after]
    if purpose is Purpose.GOLD:
        counted.append(EVENT.c.choice.is_not(None))
    rows = connection.execute(
        select(EVENT.c.choice, QUEUE.c.gold_choice)
        .select_from(LEASE.join(QUEUE, QUEUE.c.task_id == LEASE.c.task_id).join(EVENT, EVENT.c.id == LEASE.c.answer_id))
        .where(*counted)
        .order_by(LEASE.c.answer_id.desc())
        .limit(last)
    ).all()
    return Record(sum(row.choice == row.gold_choice for row in rows), len(rows))


def qualification_is_over(connection: Connection, project: Project, annotator_id: int) -> bool:
    """Say whether an annotator has answered or skipped every qualification task; their answers then stand."""
    answered = exists().where(
        LEASE.c.task_id == QUEUE.c.task_id,
        LEASE.c.annotator_id == annotator_id,
        LEASE.c.purpose == Purpose.QUALIFICATION,
        LEASE.c.answer_id.is_not(None),
    )
    tests = (QUEUE.c.project_id == project.id, QUEUE.c.purpose == Purpose.QUALIFICATION)
    left = select(QUEUE.c.task_id).where(*tests, QUEUE.c.gold_choice.is_not(None), ~answered)
    return connection.scalar(left.limit(1)) is None


def draw(*parts: object) -> float:
    """Return a number in [0, 1) that depends on its arguments alone."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


# What comes next

_Chosen = tuple[Purpose, int, Choice]


def _choose(connection: Connection, project: Project, study: Study, annotator_id: int) -> _Chosen | Nothing:
    """Qualification first; then, by a draw of the annotator's own: gold, a probe, or the first task with a place."""

    def with_side(purpose: Purpose, task_id: int) -> _Chosen:
        is_left = draw(study.seed, "side", annotator_id, task_id) < 0.5
        return purpose, task_id, Choice.A if is_left else Choice.B

    test = _first(connection, project, annotator_id, Purpose.QUALIFICATION)
    if test is not None:
        return with_side(Purpose.QUALIFICATION, test.task_id)
    passed = record(connection, annotator_id, Purpose.QUALIFICATION)
    if passed.n and passed.right / passed.n < study.qualification_accuracy:
        return Nothing("unqualified", f"{passed.right} of {passed.n} qualification tasks were right")
    task_id = _next_label(connection, project, annotator_id)
    if task_id is None:
        return Nothing("waiting" if _others_work(connection, project, annotator_id) else "done")
    answered = (LEASE.c.annotator_id == annotator_id, LEASE.c.answer_id.is_not(None))
    newest = connection.scalar(select(func.max(LEASE.c.answer_id)).where(*answered))
    at = draw(study.seed, "purpose", annotator_id, newest)
    if at < study.gold_share:
        gold = _first(connection, project, annotator_id, Purpose.GOLD)
        if gold is not None:
            return with_side(Purpose.GOLD, gold.task_id)
    elif at < study.gold_share + study.probe_share:
        probe = _probe(connection, annotator_id, study.probe_after)
        if probe is not None:
            return probe
    return with_side(Purpose.LABEL, task_id)


def _next_label(connection: Connection, project: Project, annotator_id: int) -> int | None:
    """Return the first task to label that has a free place and was not this annotator's yet; remember where it was."""
    mine = ANNOTATOR.c.id == annotator_id
    start = connection.scalar(select(ANNOTATOR.c.next_position).where(mine))
    found = _first(connection, project, annotator_id, Purpose.LABEL, start)
    if found is None and start is not None:
        found = _first(connection, project, annotator_id, Purpose.LABEL)
    if found is None:
        return None
    if found.position != start:
        connection.execute(ANNOTATOR.update().where(mine).values(next_position=found.position))
    return found.task_id


class _Place(NamedTuple):
    task_id: int
    position: int


def _first(
    connection: Connection, project: Project, annotator_id: int, purpose: Purpose, start: int | None = None
) -> _Place | None:
    """Return the first task of a purpose, from a position on, that has a place and was not this annotator's yet."""
    mine = exists().where(
        LEASE.c.task_id == QUEUE.c.task_id, LEASE.c.annotator_id == annotator_id, LEASE.c.state != State.EXPIRED
    )
    wanted = [QUEUE.c.project_id == project.id, QUEUE.c.purpose == purpose, ~mine]
    # each condition is that of an index, which holds no other tasks
    is_label = purpose is Purpose.LABEL
    wanted.append(QUEUE.c.taken < QUEUE.c.overlap if is_label else QUEUE.c.gold_choice.is_not(None))
    if start is not None:
        wanted.append(QUEUE.c.position >= start)
    in_order = select(QUEUE.c.task_id, QUEUE.c.position).where(*wanted).order_by(QUEUE.c.position, QUEUE.c.task_id)
    row = connection.execute(in_order.limit(1)).one_or_none()
    return None if row is None else _Place(*row)


def _probe(connection: Connection, annotator_id: int, after: int) -> _Chosen | None:
    """Return the newest of somebody's labels that `after` answers have followed and that has no probe yet, swapped."""
    before: int | None = _LAST_ID
    if after:
        of_person = (LEASE.c.annotator_id == annotator_id, LEASE.c.answer_id.is_not(None))
        newest_first = select(LEASE.c.answer_id).where(*of_person).order_by(LEASE.c.answer_id.desc())
        before = connection.scalar(newest_first.offset(after - 1).limit(1))
    if before is None:
        return None
    other = LEASE.alias()
    probed = exists().where(
        other.c.annotator_id == annotator_id, other.c.task_id == LEASE.c.task_id, other.c.purpose == Purpose.PROBE
    )
    labels = (LEASE.c.annotator_id == annotator_id, LEASE.c.purpose == Purpose.LABEL, LEASE.c.state == State.DONE)
    row = connection.execute(
        select(LEASE.c.task_id, LEASE.c.shown_left)
        .where(*labels, LEASE.c.answer_id < before, ~probed)
        .order_by(LEASE.c.answer_id.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else (Purpose.PROBE, row.task_id, Choice(row.shown_left).swapped())


def _others_work(connection: Connection, project: Project, annotator_id: int) -> bool:
    """Say whether somebody else's open task may come back to this annotator."""
    own = LEASE.alias()
    seen = exists().where(
        own.c.annotator_id == annotator_id, own.c.task_id == LEASE.c.task_id, own.c.state != State.EXPIRED
    )
    held = (LEASE.c.project_id == project.id, LEASE.c.state == State.OPEN, LEASE.c.purpose == Purpose.LABEL)
    return connection.scalar(select(LEASE.c.id).where(*held, ~seen).limit(1)) is not None


def _open(
    connection: Connection,
    project: Project,
    study: Study,
    annotator_id: int,
    task_id: int,
    purpose: Purpose,
    shown_left: Choice,
    now: float,
) -> int:
    """Open a lease, or open again the one that this annotator let expire."""
    same = (LEASE.c.task_id == task_id, LEASE.c.annotator_id == annotator_id, LEASE.c.purpose == purpose)
    times = {"created_at": now, "expires_at": now + study.lease_seconds}
    expired: int | None = connection.scalar(select(LEASE.c.id).where(*same, LEASE.c.state == State.EXPIRED))
    if expired is not None:
        set_state(connection, expired, State.OPEN, **times)
        return expired
    fresh = {"project_id": project.id, "task_id": task_id, "annotator_id": annotator_id, "purpose": purpose.value}
    opened = LEASE.insert().values(**fresh, **times, shown_left=shown_left.value, state=State.OPEN.value, revision=0)
    lease_id: int = connection.execute(opened.returning(LEASE.c.id)).scalar_one()
    if purpose is Purpose.LABEL:
        connection.execute(QUEUE.update().where(QUEUE.c.task_id == task_id).values(taken=QUEUE.c.taken + 1))
    return lease_id


def _known(connection: Connection, lease_id: int) -> Lease:
    found = _lease(connection, lease_id)
    assert found is not None
    return found


def _lease(connection: Connection, lease_id: int) -> Lease | None:
    columns = (*LEASE.c, TASK.c.prompt, TASK.c.response_a, TASK.c.response_b)
    of_task = LEASE.join(TASK, TASK.c.id == LEASE.c.task_id)
    row = connection.execute(select(*columns).select_from(of_task).where(LEASE.c.id == lease_id)).one_or_none()
    return None if row is None else _as_lease(row)


def _as_lease(row: Row[tuple[object, ...]]) -> Lease:
    first, second = row.response_a, row.response_b
    left, right = (first, second) if row.shown_left == Choice.A else (second, first)
    return Lease(
        id=row.id,
        task_id=row.task_id,
        annotator_id=row.annotator_id,
        purpose=Purpose(row.purpose),
        shown_left=Choice(row.shown_left),
        state=State(row.state),
        revision=row.revision,
        created_at=row.created_at,
        prompt=tuple(Message(turn["role"], turn["content"]) for turn in json.loads(row.prompt)),
        left=left,
        right=right,
    )
