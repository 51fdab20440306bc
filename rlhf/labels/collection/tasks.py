"""Tasks for people: pairs of answers are stored once and get a place in the queue, and a project gets its settings.

Every function but `reading_order` runs inside a write transaction of its project.
"""

import random
from collections.abc import Sequence
from dataclasses import asdict, replace
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from rlhf.labels.collection.queue import Purpose
from rlhf.labels.collection.study import Study, set_study, study
from rlhf.labels.origins import Texts
from rlhf.labels.records import Choice
from rlhf.labels.store import Project
from rlhf.labels.tables import QUEUE, STUDY, TASK
from rlhf.labels.task_rows import ModelAnswer, TaskRow, insert_rows, is_swapped, matching, task_ids, task_row
from sft.core.errors import DataError
from sft.core.text import Conversation

RANDOM_SHARE = 0.2
"""Share of tasks that is drawn at random where the others are chosen by score."""


class Select(StrEnum):
    """What decides which pairs are labelled first."""

    RANDOM = "random"
    UNCERTAINTY = "uncertainty"
    """The highest scores, and among them, evenly, a random share that stays fit for evaluation."""


class Pair(NamedTuple):
    """Two answers to compare, in any order."""

    prompt: Conversation
    response_a: str
    response_b: str
    model_a: str | None = None
    model_b: str | None = None
    score: float | None = None
    """How much a label would teach (the disagreement of reward models); None: not known."""
    gold: Choice | None = None
    """The known choice, in this pair's order; None: not known."""

    def answers(self) -> tuple[ModelAnswer, ModelAnswer]:
        """Return both answers with what wrote them."""
        return ModelAnswer(self.response_a, self.model_a), ModelAnswer(self.response_b, self.model_b)


class Enqueued(NamedTuple):
    """What became of the pairs: the first four counts add up to their number."""

    queued: int
    already: int
    """In the queue before, or twice among the pairs, by whatever models; such a task keeps its place and purpose."""
    identical: int
    """Left out: both answers are the same text."""
    empty: int
    """Left out: an answer has no text."""
    at_random: int
    """Of those queued; they stand without a score."""


class _Row(NamedTuple):
    """The columns of a place in the queue, in the table's order."""

    task_id: int
    project_id: int
    purpose: str
    position: int
    overlap: int
    taken: int
    gold_choice: str | None
    score: float | None


def enqueue(
    connection: Connection,
    project: Project,
    pairs: Sequence[Pair],
    *,
    purpose: Purpose = Purpose.LABEL,
    overlap: int,
    seed: int,
    order: Select = Select.RANDOM,
    random_share: float = RANDOM_SHARE,
) -> Enqueued:
    """Store pairs as tasks, behind those that the queue has for this purpose.

    The same prompt and texts are queued once, so that nobody is asked twice; a pair of other models that wrote them is
    stored too, and the ranking of models counts the labels for it.

    A task whose `score` is null was drawn at random, also where the order is by uncertainty: a reward model is
    evaluated without bias on the labels of these.

    Args:
        connection: inside a write transaction.
        project: that gets the tasks.
        pairs: to be compared.
        purpose: label, gold or qualification.
        overlap: how many people label each.
        seed: of the order.
        order: random, or by score.
        random_share: 0 to 1, of the tasks that are drawn at random where the order is by score.

    Raises:
        DataError: a gold or qualification pair has no known choice, or the order is by score and a pair has none.
    """
    _check(pairs, purpose, order)
    empty = [pair for pair in pairs if not (pair.response_a.strip() and pair.response_b.strip())]
    usable = [pair for pair in pairs if pair.response_a.strip() and pair.response_b.strip()]
    differing = [pair for pair in usable if pair.response_a != pair.response_b]
    rows_of = [(task_row(project.id, pair.prompt, *pair.answers()), pair) for pair in differing]
    ids = task_ids(connection, project.id, {row.task_key: row for row, _ in rows_of})
    known = _queued(connection, project, [row for row, _ in rows_of])
    found: dict[Texts, tuple[TaskRow, Pair]] = {}
    for row, pair in rows_of:
        found.setdefault(_texts(row), (row, pair))
    new = [(ids[row.task_key], pair) for texts, (row, pair) in found.items() if texts not in known]
    places = reading_order([pair.score for _, pair in new], order=order, random_share=random_share, seed=seed)
    first = _next_position(connection, project, purpose)
    rows = [
        _Row(new[number][0], project.id, purpose.value, first + n, overlap, 0, _gold(new[number][1]), score)
        for n, (number, score) in enumerate(places)
    ]
    insert_rows(connection, QUEUE, _Row._fields, rows)
    return Enqueued(
        queued=len(rows),
        already=len(differing) - len(rows),
        identical=len(usable) - len(differing),
        empty=len(empty),
        at_random=sum(row.score is None for row in rows),
    )


def task_ids_of(connection: Connection, project: Project, pairs: Sequence[Pair]) -> list[int]:
    """Return the ids of the queue's tasks with the texts of the pairs, each once, in ascending order."""
    rows = [task_row(project.id, pair.prompt, *pair.answers()) for pair in pairs]
    return sorted(number for numbers in _queued(connection, project, rows).values() for number in numbers)


class Place(NamedTuple):
    """A place in the order: the number of its pair, and the score where that put it there."""

    pair: int
    score: float | None


def reading_order(scores: Sequence[float | None], *, order: Select, random_share: float, seed: int) -> list[Place]:
    """Return in which order pairs are labelled; each index once.

    By uncertainty, a share of the pairs is drawn at random from all of them and stands evenly among the others, which
    come by score, the highest first: any first part of the order holds the same share, within one task.

    Args:
        scores: of the pairs; not None where the order is by uncertainty.
        order: random, or uncertainty.
        random_share: 0 to 1.
        seed: of the draw.
    """
    indices = list(range(len(scores)))
    random.Random(f"tasks-{seed}").shuffle(indices)
    if order is Select.RANDOM:
        return [Place(index, None) for index in indices]
    count = round(random_share * len(scores))
    drawn = [Place(index, None) for index in indices[:count]]
    scored = [Place(index, scores[index]) for index in indices[count:]]
    ranked = sorted(scored, key=lambda place: -(place.score or 0.0))
    return _mixed(drawn, ranked)


def _mixed(few: list[Place], many: list[Place]) -> list[Place]:
    """Return both lists in one, each in its own order and evenly spread."""
    spread = [((n + 0.5) / len(part), place) for part in (few, many) for n, place in enumerate(part)]
    return [place for _, place in sorted(spread, key=lambda item: item[0])]


def revise_study(
    connection: Connection,
    project: Project,
    *,
    question: str | None = None,
    attributes: Sequence[str] | None = None,
    overlap: int | None = None,
    seed: int = 0,
) -> list[str]:
    """Store a project's settings, what is None as it was; return what changed in settings it had, in words.

    `seed` is that of a project without settings; one that has some keeps its seed.
    """
    has_some = connection.scalar(select(STUDY.c.project_id).where(STUDY.c.project_id == project.id)) is not None
    before = study(connection, project) if has_some else Study(seed=seed)
    after = replace(
        before,
        question=before.question if question is None else question,
        attributes=before.attributes if attributes is None else tuple(attributes),
        overlap=before.overlap if overlap is None else overlap,
    )
    set_study(connection, project, after)
    old, new = asdict(before), asdict(after)
    return [f"{name}: {old[name]!r} -> {new[name]!r}" for name in new if has_some and old[name] != new[name]]


def _check(pairs: Sequence[Pair], purpose: Purpose, order: Select) -> None:
    if purpose is not Purpose.LABEL and any(pair.gold is None for pair in pairs):
        raise DataError(f"a task for {purpose.value} needs its known choice; give each row gold: a, b or tie")
    if order is Select.UNCERTAINTY and any(pair.score is None for pair in pairs):
        raise DataError("an order by uncertainty needs the scores of reward models; name one or more with --reward REF")


def _gold(pair: Pair) -> str | None:
    """Return the known choice in the task's order."""
    if pair.gold is None:
        return None
    return (pair.gold.swapped() if is_swapped(*pair.answers()) else pair.gold).value


def _queued(connection: Connection, project: Project, rows: Sequence[TaskRow]) -> dict[Texts, list[int]]:
    """Return the ids of the queue's tasks with the texts of some rows, whatever models wrote them."""
    wanted = {_texts(row) for row in rows}
    prompts = {row.prompt_key for row in rows}
    queued = select(TASK.c.id, TASK.c.prompt_key).join_from(QUEUE, TASK).where(QUEUE.c.project_id == project.id)
    near = [row.id for row in connection.execute(queued) if row.prompt_key in prompts]
    columns = (TASK.c.id, TASK.c.prompt, TASK.c.response_a, TASK.c.response_b)
    found: dict[Texts, list[int]] = {}
    for number, *texts in matching(
        connection, select(*columns).where(TASK.c.project_id == project.id), TASK.c.id, near
    ):
        if Texts(*texts) in wanted:
            found.setdefault(Texts(*texts), []).append(number)
    return found


def _texts(row: TaskRow) -> Texts:
    return Texts(row.prompt, row.response_a, row.response_b)


def _next_position(connection: Connection, project: Project, purpose: Purpose) -> int:
    mine = (QUEUE.c.project_id == project.id, QUEUE.c.purpose == purpose.value)
    last = connection.scalar(select(func.max(QUEUE.c.position)).where(*mine))
    return 0 if last is None else last + 1
