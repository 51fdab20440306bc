"""The numbers of a label project for reading: what says something, in sections; `--json` has all of them."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from rlhf.labels.collection.monitor import HOURS_SHOWN, Overview, Progress
from rlhf.labels.collection.people import AnnotatorNumbers, Standing
from rlhf.labels.trust.render import UNKNOWN, Section, known_columns, share, zeros
from rlhf.labels.trust.report_text import agreement_section
from sft.core.statistics import Estimate

_HOURS_TOGETHER = 6


def status_sections(found: Overview) -> list[Section]:
    """Return the numbers as sections."""
    return [_progress(found), _attention(found), agreement_section(found.agreement), *_people(found.annotators)]


def _progress(found: Overview) -> Section:
    progress = found.progress
    counts = {
        "open in somebody's hands": progress.in_hands,
        "labels still to come": progress.missing,
        "labels from files": progress.from_files,
        f"labels of the last {progress.pace.hours:.0f} h": progress.pace.labels,
        "skips": sum(number for _, number in progress.skips),
        "flags": sum(number for _, number in progress.flags),
    }
    lines = [
        ("tasks", f"{progress.complete} of {progress.tasks} complete"),
        ("labels", f"{progress.labels} of {progress.wanted}"),
        *((name, str(count)) for name, count in counts.items() if count and name not in ("skips", "flags")),
        *_details(progress),
    ]
    when = datetime.fromtimestamp(found.time, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return Section(f"Project {found.project}, {when}", lines=lines, after=zeros(counts))


def _details(progress: Progress) -> Iterator[tuple[str, str]]:
    if progress.labels and progress.missing:
        tasks = ", ".join(f"{tasks} with {labels}" for labels, tasks in enumerate(progress.by_labels) if tasks)
        yield "tasks by labels", tasks
    if progress.pace.labels:
        yield "pace", f"{progress.pace.per_hour:.2g} labels an hour"
    if progress.out_of_reach:
        people = "1 more person" if progress.people_short == 1 else f"{progress.people_short} more people"
        invite = "rlhf labels users invite --role annotator"
        yield "waits for", f"{people}, for {progress.out_of_reach} labels: {invite}"
    if progress.pace.hours_left is not None:
        yield "time left", f"{progress.pace.hours_left:.2g} hours at this pace around the clock"
    if any(progress.hourly):
        sums = [sum(progress.hourly[at : at + _HOURS_TOGETHER]) for at in range(0, HOURS_SHOWN, _HOURS_TOGETHER)]
        yield f"last {HOURS_SHOWN} h, by {_HOURS_TOGETHER} h", ", ".join(str(number) for number in sums)
    for name, reasons in (("skips", progress.skips), ("flags", progress.flags)):
        if reasons:
            yield name, ", ".join(f"{reason}: {number}" for reason, number in reasons)


def _attention(found: Overview) -> Section:
    lines = [(one.name, concern.text) for one in found.annotators for concern in one.attention]
    return Section("Look at", [] if lines else ["nobody: no number is out of the ordinary"], lines)


def _people(people: Sequence[AnnotatorNumbers]) -> list[Section]:
    if not people:
        return [Section("People", ["nobody has begun: rlhf labels users invite --role annotator makes a link"])]
    work = [
        {
            "name": one.name,
            "standing": UNKNOWN if one.standing is Standing.ACTIVE else one.standing.value,
            "labels": str(one.labels),
            "skips": str(one.skips or UNKNOWN),
            "flags": str(one.flags or UNKNOWN),
            "seconds": UNKNOWN if one.median_seconds is None else f"{one.median_seconds:.0f}",
        }
        for one in people
    ]
    rightness = {
        "known answers right": [one.gold for one in people],
        "qualification": [one.qualification for one in people],
        "same as another's": [one.agreement for one in people],
        "same again, swapped": [one.same_again for one in people],
    }
    habits = {
        "left answer": [one.left for one in people],
        "longer answer": [one.longer for one in people],
        "tie": [one.tie for one in people],
        "faster than reading": [one.fast for one in people],
    }
    names = [one.name for one in people]
    return [
        Section("People: work", rows=known_columns(work), after=["seconds: the middle one of a task"]),
        _shares("People: how right", names, rightness),
        _shares("People: habits", names, habits, "change over time and all else: the same command with --json"),
    ]


def _shares(title: str, names: Sequence[str], columns: Mapping[str, Sequence[Estimate | None]], *after: str) -> Section:
    """Return a table of shares; those that are 0 of everybody, or that nothing tells, become a sentence each."""
    found = {name: [one for one in column if one is not None] for name, column in columns.items()}
    never = [name for name, known in found.items() if known and not any(one.value for one in known)]
    untold = [name for name, known in found.items() if not known]
    shown = {name: column for name, column in columns.items() if name not in never + untold}
    rows = [
        {"name": person, **{name: share(column[number]) for name, column in shown.items()}}
        for number, person in enumerate(names)
    ]
    sentences = [f"0 % of everybody: {', '.join(never)}"] * bool(never) + [f"not known: {', '.join(untold)}"] * bool(
        untold
    )
    return Section(title, rows=rows if shown else (), after=[*sentences, *after])
