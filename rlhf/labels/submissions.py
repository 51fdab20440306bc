"""What an annotator does with a task becomes events: stored once, edited and undone by later events.

Every function runs inside a write transaction of its project. Times are seconds since 1970.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import Connection, Select, and_, func, select

from rlhf.labels.queue import Lease, Purpose, State, lease, qualification_is_over, record, set_state
from rlhf.labels.records import Choice, TieKind
from rlhf.labels.store import EventKind, Project
from rlhf.labels.study import Study, guidelines
from rlhf.labels.tables import ACCOUNT, EVENT, LEASE, TASK
from sft.core.errors import DataError


class Side(StrEnum):
    """Which answer is better, as it stood on the page."""

    LEFT = "left"
    EQUAL = "equal"
    RIGHT = "right"


class Verdict(StrEnum):
    """What the page offers for the answers as a whole."""

    LEFT_CLEARLY = "left_clearly"
    LEFT_SLIGHTLY = "left_slightly"
    TIE = "tie"
    BOTH_BAD = "both_bad"
    RIGHT_SLIGHTLY = "right_slightly"
    RIGHT_CLEARLY = "right_clearly"


CLEARLY, SLIGHTLY = 2.0, 1.0
"""Strength of a label."""
_VERDICTS: dict[Verdict, tuple[Side, float | None, TieKind | None]] = {
    Verdict.LEFT_CLEARLY: (Side.LEFT, CLEARLY, None),
    Verdict.LEFT_SLIGHTLY: (Side.LEFT, SLIGHTLY, None),
    Verdict.TIE: (Side.EQUAL, None, None),
    Verdict.BOTH_BAD: (Side.EQUAL, None, TieKind.BOTH_BAD),
    Verdict.RIGHT_SLIGHTLY: (Side.RIGHT, SLIGHTLY, None),
    Verdict.RIGHT_CLEARLY: (Side.RIGHT, CLEARLY, None),
}
_VERDICT_OF = {meaning: verdict for verdict, meaning in _VERDICTS.items()}


@dataclass(frozen=True)
class Answer:
    """What an annotator sends for one task: a verdict, or the reason why there is none."""

    verdict: Verdict | None
    """None: skipped; `reason` says why."""
    attributes: Mapping[str, Side] = field(default_factory=dict)
    """For those of the study's attributes that were answered; a skip has none."""
    reason: str = ""
    """Free text."""
    flag: str = ""
    """What is wrong with the task (unsafe, broken); empty: nothing."""
    guideline_version: int = 0
    """Of the guidelines that the page showed."""


class Status(StrEnum):
    """What became of an answer."""

    STORED = "stored"
    REPEATED = "repeated"
    """The very same was stored before: nothing is stored twice."""
    CONFLICT = "conflict"
    """Another answer was stored since the page was made, in another tab or before going back; nothing is stored."""
    UNKNOWN = "unknown"
    """No such task of this annotator's."""


class Receipt(NamedTuple):
    """What became of an answer; `revision` is the lease's now."""

    status: Status
    revision: int


class Past(NamedTuple):
    """One task of an annotator's history."""

    lease_id: int
    excerpt: str
    """The start of the last turn of its prompt."""
    state: State
    verdict: Verdict | None
    closed_at: float
    revision: int


class Progress(NamedTuple):
    """How far an annotator is."""

    done: int
    """Tasks answered or skipped, of every purpose."""
    today: int
    """Of these, in the last 24 hours."""


def submit(
    connection: Connection,
    project: Project,
    study: Study,
    annotator_id: int,
    lease_id: int,
    revision: int,
    answer: Answer,
    now: float,
) -> Receipt:
    """Store an answer as events, or say why not; an earlier answer of the lease stays as history.

    Args:
        connection: inside a write transaction.
        project: of the task.
        study: its settings.
        annotator_id: who answers.
        lease_id: of the task.
        revision: that the page showed; the same answer to the same revision is stored once.
        answer: what was chosen.
        now: seconds since 1970.

    Raises:
        DataError: an attribute that the study does not ask for, a skip without a reason, guidelines or a text that
            cannot be, or a change to a qualification that is over.
    """
    held = lease(connection, annotator_id, lease_id)
    if held is None:
        return Receipt(Status.UNKNOWN, 0)
    rows = list(_rows(held, answer))
    digest = _request(held.id, revision)
    if revision != held.revision:
        is_same = _stored(connection, project, digest) == rows
        return Receipt(Status.REPEATED if is_same else Status.CONFLICT, held.revision)
    _check(study, answer, guidelines(connection, project).version)
    _check_open(connection, project, held)
    seconds = now - held.created_at if held.revision == 0 else -1.0
    about = {
        "project_id": project.id,
        "task_id": held.task_id,
        "annotator_id": annotator_id,
        "lease_id": held.id,
        "shown_left": held.shown_left.value,
        "guideline_version": str(answer.guideline_version),
        # below 0: an edit, or a clock that went back
        "seconds": round(seconds, 3) if seconds >= 0 else None,
        "time": now,
        "row_digest": digest,
    }
    first, *others = ({**about, **row._asdict(), "row_part": part} for part, row in enumerate(rows))
    answer_id = connection.execute(EVENT.insert().values(first).returning(EVENT.c.id)).scalar_one()
    if others:
        connection.execute(EVENT.insert(), others)
    wanted = State.SKIPPED if answer.verdict is None else State.DONE
    set_state(connection, held.id, wanted, revision=held.revision + 1, closed_at=now, answer_id=answer_id)
    if held.purpose is Purpose.GOLD:
        _pause_if_wrong(connection, study, annotator_id, now)
    return Receipt(Status.STORED, held.revision + 1)


def undo(
    connection: Connection,
    project: Project,
    study: Study,
    annotator_id: int,
    now: float,
    *,
    lease_id: int | None = None,
    revision: int | None = None,
) -> int | None:
    """Take back an annotator's last answer, and return its lease, which can be answered again.

    Args:
        connection: inside a write transaction.
        project: of the annotator.
        study: its settings.
        annotator_id: whose answer.
        now: seconds since 1970.
        lease_id: of the answer that the page called the last; None: whichever is. A request that names it, and is
            sent again, takes back one answer.
        revision: of that lease, as the page showed it.

    Returns:
        None: there is no answer, or it is not the one that the page named, and nothing was taken back.
    """
    closed = [LEASE.c.annotator_id == annotator_id, LEASE.c.answer_id.is_not(None)]
    if qualification_is_over(connection, project, annotator_id):
        closed.append(LEASE.c.purpose != Purpose.QUALIFICATION)
    last = connection.scalar(select(LEASE.c.id).where(*closed).order_by(LEASE.c.answer_id.desc()).limit(1))
    held = None if last is None else lease(connection, annotator_id, last)
    if lease_id is not None and (held is None or (held.id, held.revision) != (lease_id, revision)):
        return _undone(connection, project, annotator_id, lease_id, revision)
    if held is None:
        return None
    connection.execute(
        EVENT.insert().values(
            project_id=project.id,
            task_id=held.task_id,
            annotator_id=annotator_id,
            lease_id=held.id,
            kind=EventKind.UNDO.value,
            time=now,
            row_digest=_request(held.id, held.revision),
            row_part=0,
        )
    )
    fresh = {"expires_at": now + study.lease_seconds, "closed_at": None, "answer_id": None}
    set_state(connection, held.id, State.OPEN, revision=held.revision + 1, **fresh)
    return held.id


def current(connection: Connection, held: Lease) -> Answer | None:
    """Return the answer of a lease that holds now, so that a page can show it again; None: there is none."""
    return _answer_of(connection, held, select(LEASE.c.answer_id).where(LEASE.c.id == held.id))


def taken_back(connection: Connection, held: Lease) -> Answer | None:
    """Return what a lease without an answer was answered before it was undone, to be offered again; None: nothing."""
    same = (EVENT.c.lease_id == held.id, EVENT.c.row_part == 0, EVENT.c.kind != EventKind.UNDO)
    return _answer_of(connection, held, select(func.max(EVENT.c.id)).where(*same))


def history(connection: Connection, annotator_id: int, limit: int = 50) -> list[Past]:
    """Return an annotator's answered tasks, newest first."""
    of_lease = (LEASE.c.id, LEASE.c.state, LEASE.c.shown_left, LEASE.c.closed_at, LEASE.c.revision)
    of_answer = (EVENT.c.choice, EVENT.c.strength, EVENT.c.tie_kind)
    tables = LEASE.join(EVENT, EVENT.c.id == LEASE.c.answer_id).join(TASK, TASK.c.id == LEASE.c.task_id)
    answered = select(*of_lease, *of_answer, TASK.c.prompt).select_from(tables)
    mine = answered.where(LEASE.c.annotator_id == annotator_id, LEASE.c.answer_id.is_not(None))
    rows = connection.execute(mine.order_by(LEASE.c.answer_id.desc()).limit(limit))
    return [
        Past(
            lease_id=row.id,
            excerpt=" ".join(json.loads(row.prompt)[-1]["content"].split())[:_EXCERPT],
            state=State(row.state),
            verdict=_verdict(Choice(row.shown_left), row.choice, row.strength, row.tie_kind),
            closed_at=row.closed_at,
            revision=row.revision,
        )
        for row in rows
    ]


def progress(connection: Connection, annotator_id: int, now: float) -> Progress:
    """Return how much an annotator has done."""
    answered = (LEASE.c.annotator_id == annotator_id, LEASE.c.answer_id.is_not(None))
    today = func.count().filter(LEASE.c.closed_at > now - _DAY)
    return Progress(*connection.execute(select(func.count(), today).where(*answered)).one())


_DAY = 86_400.0
_EXCERPT = 120
_KINDS = {
    Purpose.LABEL: EventKind.LABEL,
    Purpose.GOLD: EventKind.GOLD,
    Purpose.QUALIFICATION: EventKind.GOLD,
    Purpose.PROBE: EventKind.PROBE,
}


class _Row(NamedTuple):
    """The columns of an event that its annotator decides."""

    kind: str
    choice: str | None = None
    tie_kind: str | None = None
    strength: float | None = None
    attribute: str | None = None
    reason: str | None = None


def _request(lease_id: int, revision: int) -> bytes:
    """Return what stands for one answer: two tabs with the same page send the same."""
    return hashlib.sha256(f"page/{lease_id}/{revision}".encode()).digest()


def _check(study: Study, answer: Answer, newest_guidelines: int) -> None:
    unknown = sorted(set(answer.attributes) - set(study.attributes))
    if unknown:
        asked = ", ".join(study.attributes) or "none"
        raise DataError(f"{unknown[0]!r} is not asked in this project; its attributes are: {asked}")
    if answer.verdict is None and not answer.reason.strip():
        raise DataError("a skipped task needs a reason; choose or write one")
    if not 0 <= answer.guideline_version <= newest_guidelines:
        raise DataError(
            f"there are no guidelines of version {answer.guideline_version}, the newest is {newest_guidelines}; reload "
            "the page and answer again"
        )
    for written in (answer.reason, answer.flag):
        if "\0" in written or not _is_unicode(written):
            raise DataError("a text holds a character that cannot be stored; write it again without that")


def _is_unicode(text: str) -> bool:
    """Say whether a text is free of lone surrogates, which have no UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _check_open(connection: Connection, project: Project, held: Lease) -> None:
    is_test = held.purpose is Purpose.QUALIFICATION
    if is_test and qualification_is_over(connection, project, held.annotator_id):
        raise DataError("the qualification is over, its answers stand; go on with the next task")


def _rows(held: Lease, answer: Answer) -> Iterator[_Row]:
    """Yield the events of an answer: the verdict (or skip) first, then attributes, then the flag."""
    reason = answer.reason.strip() or None
    if answer.verdict is None:
        yield _Row(EventKind.SKIP.value, reason=reason)
    else:
        kind = _KINDS[held.purpose].value
        side, strength, tie_kind = _VERDICTS[answer.verdict]
        choice = _choice(held, side).value
        yield _Row(kind, choice, None if tie_kind is None else tie_kind.value, strength, reason=reason)
        for name, side in sorted(answer.attributes.items()):
            yield _Row(kind, _choice(held, side).value, attribute=name)
    if answer.flag.strip():
        yield _Row(EventKind.FLAG.value, reason=answer.flag.strip())


def _choice(held: Lease, side: Side) -> Choice:
    if side is Side.EQUAL:
        return Choice.TIE
    return held.shown_left if side is Side.LEFT else held.shown_left.swapped()


def _side(shown_left: Choice, choice: str) -> Side:
    if choice == Choice.TIE:
        return Side.EQUAL
    return Side.LEFT if choice == shown_left else Side.RIGHT


def _verdict(shown_left: Choice, choice: str | None, strength: float | None, tie_kind: str | None) -> Verdict | None:
    """Return what was chosen as a whole; None: skipped."""
    if choice is None:
        return None
    return _VERDICT_OF[_side(shown_left, choice), strength, None if tie_kind is None else TieKind(tie_kind)]


def _stored(connection: Connection, project: Project, digest: bytes) -> list[_Row]:
    """Return the events of one request, in the order in which `_rows` made them."""
    columns = (EVENT.c[name] for name in _Row._fields)
    same = (EVENT.c.project_id == project.id, EVENT.c.row_digest == digest)
    return [_Row(*row) for row in connection.execute(select(*columns).where(*same).order_by(EVENT.c.row_part))]


def _undone(
    connection: Connection, project: Project, annotator_id: int, lease_id: int, revision: int | None
) -> int | None:
    """Return a lease whose answer of a revision was taken back before; else None."""
    held = lease(connection, annotator_id, lease_id)
    if held is None or revision is None:
        return None
    rows = _stored(connection, project, _request(lease_id, revision))
    return lease_id if rows and rows[0].kind == EventKind.UNDO else None


def _answer_of(connection: Connection, held: Lease, event_id: Select[tuple[int]]) -> Answer | None:
    """Return the answer that an event belongs to; None: there is no such event."""
    first = EVENT.alias()
    whole = (EVENT.c.project_id == first.c.project_id, EVENT.c.row_digest == first.c.row_digest)
    columns = (*(EVENT.c[name] for name in _Row._fields), EVENT.c.guideline_version)
    chosen = select(*columns).select_from(first.join(EVENT, and_(*whole)))
    rows = connection.execute(chosen.where(first.c.id == event_id.scalar_subquery()).order_by(EVENT.c.row_part)).all()
    if not rows:
        return None
    return _answer(held.shown_left, [_Row(*row[:-1]) for row in rows], int(rows[0].guideline_version))


def _answer(shown_left: Choice, rows: list[_Row], guideline_version: int) -> Answer:
    first = rows[0]
    verdict = _verdict(shown_left, first.choice, first.strength, first.tie_kind)
    attributes = {row.attribute: _side(shown_left, row.choice) for row in rows if row.attribute and row.choice}
    flags = [row.reason or "" for row in rows if row.kind == EventKind.FLAG]
    return Answer(verdict, attributes, first.reason or "", "".join(flags), guideline_version)


def _pause_if_wrong(connection: Connection, study: Study, annotator_id: int, now: float) -> None:
    """Pause an annotator whose last gold tasks were too often wrong."""
    mine = ACCOUNT.c.annotator_id == annotator_id
    forgiven = connection.scalar(select(ACCOUNT.c.forgiven_id).where(mine)) or 0
    found = record(connection, annotator_id, Purpose.GOLD, last=study.pause_window, after=forgiven)
    if found.n == study.pause_window and found.right / found.n < study.pause_below:
        newest = select(func.max(LEASE.c.answer_id)).where(LEASE.c.annotator_id == annotator_id).scalar_subquery()
        why = f"{found.right} of the last {found.n} tasks with a known answer were right"
        paused = ACCOUNT.update().where(mine, ACCOUNT.c.paused_at.is_(None))
        connection.execute(paused.values(paused_at=now, paused_reason=why, forgiven_id=newest))
