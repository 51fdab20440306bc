"""What an annotator does with a task becomes events: stored once, edited and undone by later events.

Every function runs inside a write transaction of its project. Times are seconds since 1970.
"""

import hashlib
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from rlhf.labels.collection.pauses import check_not_paused, wrong_answers
from rlhf.labels.collection.queue import Lease, Purpose, State, lease, qualification_is_over, record, set_state
from rlhf.labels.collection.study import Study, guidelines
from rlhf.labels.collection.verdicts import Answer, AnswerRow, rows_of
from rlhf.labels.events import EventKind
from rlhf.labels.storable import check_storable
from rlhf.labels.store import Project
from rlhf.labels.tables import ACCOUNT, EVENT, LEASE
from sft.core.errors import DataError


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
            cannot be, a change to a qualification that is over, or of somebody who is paused.
    """
    held = lease(connection, annotator_id, lease_id)
    if held is None:
        return Receipt(Status.UNKNOWN, 0)
    rows = list(rows_of(held, answer))
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

    Raises:
        DataError: the annotator is paused.
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
    check_not_paused(connection, project, annotator_id)
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
    check_storable(answer.reason, answer.flag)


def closed_reason(connection: Connection, project: Project, held: Lease) -> str | None:
    """Return why a lease cannot be answered, or answered anew, now; None: it can."""
    try:
        _check_open(connection, project, held)
    except DataError as error:
        return str(error)
    return None


def _check_open(connection: Connection, project: Project, held: Lease) -> None:
    if held.state is not State.OPEN:  # what is in their hands is not lost
        check_not_paused(connection, project, held.annotator_id)
    is_test = held.purpose is Purpose.QUALIFICATION
    if is_test and qualification_is_over(connection, project, held.annotator_id):
        raise DataError("this task came before the work began, and its answer stands; go on with the next task")


def _stored(connection: Connection, project: Project, digest: bytes) -> list[AnswerRow]:
    """Return the events of one request, in the order in which `_rows` made them."""
    columns = (EVENT.c[name] for name in AnswerRow._fields)
    same = (EVENT.c.project_id == project.id, EVENT.c.row_digest == digest)
    return [AnswerRow(*row) for row in connection.execute(select(*columns).where(*same).order_by(EVENT.c.row_part))]


def _undone(
    connection: Connection, project: Project, annotator_id: int, lease_id: int, revision: int | None
) -> int | None:
    """Return a lease whose answer of a revision was taken back before; else None."""
    held = lease(connection, annotator_id, lease_id)
    if held is None or revision is None:
        return None
    rows = _stored(connection, project, _request(lease_id, revision))
    return lease_id if rows and rows[0].kind == EventKind.UNDO else None


def _pause_if_wrong(connection: Connection, study: Study, annotator_id: int, now: float) -> None:
    """Pause an annotator whose last gold tasks were too often wrong."""
    mine = ACCOUNT.c.annotator_id == annotator_id
    forgiven = connection.scalar(select(ACCOUNT.c.forgiven_id).where(mine)) or 0
    found = record(connection, annotator_id, Purpose.GOLD, last=study.pause_window, after=forgiven)
    if found.n == study.pause_window and found.right / found.n < study.pause_below:
        newest = select(func.max(LEASE.c.answer_id)).where(LEASE.c.annotator_id == annotator_id).scalar_subquery()
        paused = ACCOUNT.update().where(mine, ACCOUNT.c.paused_at.is_(None))
        why = wrong_answers(found.right, found.n)
        connection.execute(paused.values(paused_at=now, paused_reason=why, forgiven_id=newest))
