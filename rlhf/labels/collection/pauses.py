"""Who gets no tasks and may change no answers: paused people, and what they are told of it."""

import re

from sqlalchemy import Connection, select

from rlhf.labels.store import Project
from rlhf.labels.tables import ACCOUNT, ANNOTATOR
from sft.core.errors import DataError

_WRONG_ANSWERS = re.compile(r"\d+ of the last \d+ tasks with a known answer were right")


def stop_reason(connection: Connection, project: Project, annotator_id: int) -> str | None:
    """Return why somebody gets no task at all; None: they may."""
    of_person = ANNOTATOR.outerjoin(ACCOUNT, ACCOUNT.c.annotator_id == ANNOTATOR.c.id)
    columns = (ANNOTATOR.c.erased_at, ACCOUNT.c.paused_at, ACCOUNT.c.paused_reason)
    mine = (ANNOTATOR.c.id == annotator_id, ANNOTATOR.c.project_id == project.id)
    row = connection.execute(select(*columns).select_from(of_person).where(*mine)).first()
    if row is None or row.erased_at is not None:
        return "you are not in this project any more"
    return None if row.paused_at is None else row.paused_reason or ""


def wrong_answers(right: int, n: int) -> str:
    """Return the reason of a pause for wrong answers, as owners read it."""
    return f"{right} of the last {n} tasks with a known answer were right"


def told(reason: str) -> str:
    """Return what the paused person reads of a reason: an owner's words, but not which tasks have a known answer."""
    return "" if _WRONG_ANSWERS.fullmatch(reason) else reason


def check_not_paused(connection: Connection, project: Project, annotator_id: int) -> None:
    """Raise DataError, with the reason, where somebody is paused."""
    stopped = stop_reason(connection, project, annotator_id)
    if stopped is not None:
        why = f" ({told(stopped)})" if told(stopped) else ""
        raise DataError(
            f"your work is paused{why}, so answers stay as they are; ask an owner of the project to let you go on"
        )
