"""What an owner of a label project watches: progress, pace, agreement, everybody's numbers.

Pure functions of a snapshot; `rlhf labels status` prints them, the dashboard draws them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rlhf.labels.collection.people import AnnotatorNumbers, annotator_numbers, middle_agreement, who_may_label
from rlhf.labels.collection.queue import Purpose
from rlhf.labels.collection.snapshot import Answered, Snapshot, snapshot
from rlhf.labels.events import EventKind
from rlhf.labels.records import Choice, Judgement
from rlhf.labels.store import LabelStore
from rlhf.labels.trust.aggregation import dawid_skene
from rlhf.labels.trust.agreement import Agreement, agreement
from rlhf.labels.trust.noise import doubtful_judgements
from rlhf.labels.trust.votes import tabulate

DAY, HOUR = 86_400.0, 3600.0
HOURS_SHOWN = 48
SEED = 0
"""Of the intervals of agreement; `rlhf labels report` has the same, so that both say the same."""


class Pace(NamedTuple):
    """How fast labels come in, and when the last one would."""

    labels: int
    """Labels of the last `hours`."""
    hours: float
    """24, or less where the first label is younger; 1 at least."""
    per_hour: float
    """Mean of these hours, nights and pauses included."""
    hours_left: float | None
    """At the same pace around the clock, when nobody skips a task for good; None: no label came, or none can come."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a project is. Labels are of the page and hold now; those of erased people do not count."""

    tasks: int
    """To be labelled; gold and qualification tasks left out."""
    complete: int
    """Tasks with as many labels as are wanted."""
    by_labels: tuple[int, ...]
    """How many tasks have 0, 1, 2, ... labels."""
    in_hands: int
    """Tasks that somebody has open now."""
    labels: int
    wanted: int
    """Labels that all tasks need together."""
    missing: int
    """Labels still to come; what is over the wanted number on one task does not count for another."""
    out_of_reach: int
    """Of the missing, those that nobody can give: all who may label now have labelled or skipped the task."""
    people_short: int
    """How many more people would put all of them within reach."""
    from_files: int
    """Labels that imported files brought."""
    skips: tuple[tuple[str, int], ...]
    """Reason and number, the most frequent first."""
    flags: tuple[tuple[str, int], ...]
    pace: Pace
    hourly: tuple[int, ...]
    """Labels in each of the last 48 hours, the last one up to now."""

    def as_dict(self) -> dict[str, object]:
        """Return the fields for JSON."""
        reasons = {"skips": dict(self.skips), "flags": dict(self.flags)}
        lists = {"by_labels": list(self.by_labels), "hourly": list(self.hourly)}
        return {**vars(self), **reasons, **lists, "pace": self.pace._asdict()}


@dataclass(frozen=True, kw_only=True)
class Overview:
    """All numbers of the dashboard."""

    project: str
    time: float
    """Of the snapshot, in seconds since 1970."""
    newest_event: int
    progress: Progress
    agreement: Agreement
    middle_agreement: float | None
    """The median of the annotators' agreement with the others."""
    annotators: tuple[AnnotatorNumbers, ...]
    """Those that need attention most first."""

    def as_dict(self) -> dict[str, object]:
        """Return the numbers for JSON."""
        return {
            "project": self.project,
            "time": self.time,
            "newest_event": self.newest_event,
            "progress": self.progress.as_dict(),
            "agreement": self.agreement.as_dict(),
            "middle_agreement": self.middle_agreement,
            "annotators": [annotator.as_dict() for annotator in self.annotators],
        }


class Contested(NamedTuple):
    """A task on which people disagree."""

    task_id: int
    votes: tuple[int, int, int]
    """For a, tie, b, in the task's own order."""


class Reported(NamedTuple):
    """A task that somebody skipped or flagged."""

    task_id: int
    kind: EventKind
    reason: str
    annotator_id: int | None


class Doubt(NamedTuple):
    """A label that is more likely wrong than right, by all votes and how far each annotator can be believed."""

    task_id: int
    judgement: Judgement
    """Answer a was shown left."""
    likely: Choice
    """The most probable right choice, in the order of the judgement."""
    wrong: float
    """Probability."""


def overview(found: Snapshot, *, resamples: int = 1000) -> Overview:
    """Return all numbers of a snapshot; `resamples` (100 or more) are those of each interval of agreement."""
    votes = tabulate(found.judgements)
    return Overview(
        project=found.project,
        time=found.time,
        newest_event=found.mark.newest,
        progress=progress(found),
        agreement=agreement(votes, seed=SEED, resamples=resamples),
        middle_agreement=middle_agreement(votes),
        annotators=annotator_numbers(found, votes),
    )


def status(store: LabelStore, project: str, now: float) -> Overview:
    """Return the numbers of a project, for the command line. Raises UsageError without tasks."""
    with store.reading(project) as labels:
        found = snapshot(labels.connection, labels.project, now)
    return overview(found)


def progress(found: Snapshot) -> Progress:
    """Return how far a project is."""
    labels = [answer for answer in found.labels if answer.purpose is Purpose.LABEL]
    on_task = Counter(answer.task_id for answer in labels)
    counts = [on_task[wanted.task_id] for wanted in found.queue]
    missing = sum(max(0, wanted.overlap - count) for wanted, count in zip(found.queue, counts, strict=True))
    short = shortages(found)
    how_often = Counter(counts)
    times = [answer.time for answer in labels if answer.time is not None]
    return Progress(
        tasks=len(found.queue),
        complete=sum(count >= wanted.overlap for wanted, count in zip(found.queue, counts, strict=True)),
        by_labels=tuple(how_often[number] for number in range(max(counts, default=0) + 1)),
        in_hands=found.in_hands,
        labels=len(labels),
        wanted=sum(wanted.overlap for wanted in found.queue),
        missing=missing,
        out_of_reach=sum(short),
        people_short=max(short, default=0),
        from_files=len(found.labels) - len(labels),
        skips=_reasons(found.answers, EventKind.SKIP),
        flags=_reasons(found.answers, EventKind.FLAG),
        pace=pace(times, missing - sum(short), found.time),
        hourly=hourly(times, found.time),
    )


def shortages(found: Snapshot) -> list[int]:
    """Return for each queued task how many more people its missing labels need, beyond those who may still get it."""
    able = who_may_label(found)
    given: Counter[int] = Counter()
    had: dict[int, set[int]] = {}
    for answer in found.answers:
        if answer.purpose is Purpose.LABEL and answer.kind in (EventKind.LABEL, EventKind.SKIP):
            given[answer.task_id] += answer.kind is EventKind.LABEL
            if answer.annotator_id in able:
                had.setdefault(answer.task_id, set()).add(answer.annotator_id)
    free = {wanted.task_id: len(able) - len(had.get(wanted.task_id, ())) for wanted in found.queue}
    return [max(0, wanted.overlap - given[wanted.task_id] - free[wanted.task_id]) for wanted in found.queue]


def pace(times: Sequence[float], missing: int, now: float) -> Pace:
    """Return how fast labels of these times came, and how long so many more would take."""
    hours = min(DAY, max(HOUR, now - min(times, default=now))) / HOUR
    recent = sum(now - DAY < time <= now for time in times)
    per_hour = recent / hours
    return Pace(recent, hours, per_hour, missing / per_hour if missing and recent else None)


def hourly(times: Sequence[float], now: float) -> tuple[int, ...]:
    """Return how many of the times fall into each of the last 48 hours, oldest first."""
    ago = Counter(int((now - time) // HOUR) for time in times)
    return tuple(ago[hour] for hour in reversed(range(HOURS_SHOWN)))


def contested(found: Snapshot) -> list[Contested]:
    """Return the tasks on which labels name different answers, the most evenly split first, then the most votes."""
    votes: dict[int, Counter[Choice | None]] = {}
    for answer in found.labels:
        votes.setdefault(answer.task_id, Counter())[answer.choice] += 1
    rows = [Contested(task, (given[Choice.A], given[Choice.TIE], given[Choice.B])) for task, given in votes.items()]
    split = [row for row in rows if row.votes[0] and row.votes[2]]
    return sorted(split, key=lambda row: (-min(row.votes[0], row.votes[2]) / sum(row.votes), -sum(row.votes)))


def reported(found: Snapshot) -> list[Reported]:
    """Return the skips and flags that hold now, newest first."""
    kinds = (EventKind.SKIP, EventKind.FLAG)
    mine = [Reported(a.task_id, a.kind, a.reason, a.annotator_id) for a in found.answers if a.kind in kinds]
    return mine[::-1]


def doubts(found: Snapshot) -> dict[str, list[Doubt]]:
    """Return for each annotator, by name, the labels that are probably wrong, the most doubtful first.

    Source: the posterior of `rlhf.labels.trust.aggregation.dawid_skene`.
    """
    votes = tabulate(found.judgements)
    doubtful = doubtful_judgements(found.judgements, votes, dawid_skene(votes))
    wanted = {doubt.digest for doubt in doubtful}
    known = {
        (judgement.digest, judgement.annotator, judgement.pair_key): (answer.task_id, judgement)
        for judgement, answer in zip(found.judgements, found.labels, strict=True)
        if judgement.digest in wanted
    }
    rows: dict[str, list[Doubt]] = {}
    for doubt in doubtful:
        if doubt.annotator is not None:
            task_id, judgement = known[doubt.digest, doubt.annotator, doubt.pair]
            rows.setdefault(doubt.annotator, []).append(Doubt(task_id, judgement, doubt.likely, doubt.wrong))
    return rows


def _reasons(answers: Sequence[Answered], kind: EventKind) -> tuple[tuple[str, int], ...]:
    counts = Counter(answer.reason or "no reason given" for answer in answers if answer.kind is kind)
    return tuple(counts.most_common())
