"""How people label in a project: what is asked of them, how many see a task, and when somebody is checked or paused."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, select

from rlhf.labels.store import Project, now, search_again
from rlhf.labels.tables import GUIDELINES, QUEUE, STUDY
from sft.core.config import Section, at_least, between
from sft.core.errors import ConfigProblem, DataError, UsageError


@dataclass
class Study(Section):
    """The settings of a project's label page."""

    question: str = "Which answer is better?"
    """What stands above the choice."""
    attributes: tuple[str, ...] = ()
    """Asked beside the question, such as "helpful"; each by left, equal or right."""
    overlap: int = 2
    """How many people label a task; what was labelled while it was higher stays."""
    lease_minutes: float = 30.0
    """How long a task waits for the one who opened it before others may get it."""
    gold_share: float = 0.1
    """Share of an annotator's tasks whose answer is known, while there are any."""
    probe_share: float = 0.05
    """Share of an annotator's tasks that are their own again, with the sides swapped."""
    probe_after: int = 10
    """How many other tasks lie at least between a task and its probe."""
    qualification_accuracy: float = 0.7
    """Share of the qualification tasks that must be right before the work begins."""
    pause_window: int = 10
    """An annotator's last so many gold tasks are looked at, once they have answered as many since a pause."""
    pause_below: float = 0.6
    """Who has a smaller share of them right is paused, until an owner lets them go on."""
    seed: int = 0
    """Of sides, gold tasks and probes."""

    def problems(self) -> list[ConfigProblem]:
        """Return every broken rule of this section."""
        shares = between(0, 1, qualification_accuracy=self.qualification_accuracy, pause_below=self.pause_below)
        shares += between(0, 0.5, gold_share=self.gold_share, probe_share=self.probe_share)
        counts = at_least(1, overlap=self.overlap, lease_minutes=self.lease_minutes, pause_window=self.pause_window)
        names = [name for name in self.attributes if not name.strip() or self.attributes.count(name) > 1]
        unclear = [ConfigProblem("attributes", name, "is empty or named twice", "name each once") for name in names]
        return shares + counts + at_least(0, probe_after=self.probe_after) + unclear

    @property
    def lease_seconds(self) -> float:
        """`lease_minutes` in seconds."""
        return 60 * self.lease_minutes


class Guidelines(NamedTuple):
    """The text (Markdown) that annotators follow; its version is stored on every label."""

    version: int
    text: str


class NoTasks(UsageError):
    """A project for which nobody has made any tasks."""


def study(connection: Connection, project: Project) -> Study:
    """Return a project's settings. Raises NoTasks where nobody has made any tasks."""
    found = connection.scalar(select(STUDY.c.settings).where(STUDY.c.project_id == project.id))
    if found is None:
        raise NoTasks(f"project {project.name!r} has no tasks to label; make some with: rlhf labels create")
    settings = json.loads(found)
    return Study(**{**settings, "attributes": tuple(settings["attributes"])})


def set_study(connection: Connection, project: Project, settings: Study) -> None:
    """Store a project's settings in place of those it had; the overlap holds for tasks that are queued already."""
    connection.execute(STUDY.delete().where(STUDY.c.project_id == project.id))
    connection.execute(STUDY.insert().values(project_id=project.id, settings=json.dumps(asdict(settings))))
    others = (QUEUE.c.project_id == project.id, QUEUE.c.purpose == "label", QUEUE.c.overlap != settings.overlap)
    if connection.execute(QUEUE.update().where(*others).values(overlap=settings.overlap)).rowcount:
        search_again(connection, project.id)


def guidelines(connection: Connection, project: Project) -> Guidelines:
    """Return the guidelines that hold; version 0 with an empty text where none were given."""
    columns = (GUIDELINES.c.version, GUIDELINES.c.text)
    mine = select(*columns).where(GUIDELINES.c.project_id == project.id).order_by(GUIDELINES.c.version.desc())
    row = connection.execute(mine.limit(1)).one_or_none()
    return Guidelines(0, "") if row is None else Guidelines(*row)


def read_guidelines(path: Path) -> str:
    """Return the text of a file of guidelines. Raises DataError where it is none."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the guidelines ({error}); give a text file in UTF-8") from error


def set_guidelines(connection: Connection, project: Project, text: str) -> Guidelines:
    """Make a text the guidelines that hold from now on; the same text again keeps its version."""
    current = guidelines(connection, project)
    if current.version and current.text == text:
        return current
    made = Guidelines(current.version + 1, text)
    connection.execute(GUIDELINES.insert().values(project_id=project.id, created_at=now(), **made._asdict()))
    return made
