"""The numbers of the dashboard as the words, cells and pictures of its templates."""

from collections.abc import Callable
from typing import NamedTuple

from markupsafe import Markup

from rlhf.labels.collection.monitor import HOURS_SHOWN, Doubt, Progress
from rlhf.labels.collection.people import AnnotatorNumbers, golds, is_fast
from rlhf.labels.collection.snapshot import Snapshot, TaskText
from rlhf.labels.records import Choice
from rlhf.labels.trust.agreement import Agreement
from rlhf.labels.web.plots import Dot, Part, bar_plot, dot_plot, history_plot, progress_bar
from rlhf.labels.web.watch import Seen
from sft.core.statistics import Estimate

EXCERPT = 160
SECONDS = (0, 2, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300)
"""Edges of the bars of time per answer; the last bar is open."""
_ENDS = (*SECONDS[1:], float("inf"))
_CHOICE_WORDS = {Choice.A: "left", Choice.B: "right", Choice.TIE: "tie"}


class Column(NamedTuple):
    """A number of the annotators' table."""

    number: str
    """Field of `AnnotatorNumbers`."""
    head: str
    meaning: str


COLUMNS = (
    Column("gold", "Known answers", "Share of tasks with a known answer that were right"),
    Column("agreement", "Agreement", "Chance that another's label of the same pair is the same"),
    Column("same_again", "Same again", "Share of own tasks that got the same answer with the sides swapped"),
    Column("left", "Left", "Share of the left answer where one was preferred; sides are drawn, so 50 % is usual"),
    Column("longer", "Longer", "Share of the longer answer where one was preferred"),
    Column("tie", "Tie", "Share of labels that say tie or both bad"),
    Column("fast", "Too fast", "Share of answers given sooner than both texts can be read (700 words a minute)"),
    Column("gold_drift", "Known, change", "Known answers right, in points of 100: last half minus first half"),
    Column("agreement_drift", "Agreement, change", "Agreement, in points of 100: last half minus first half"),
)


class Cell(NamedTuple):
    """A number of one annotator, in words."""

    number: str
    value: str
    interval: str
    n: int
    is_named: bool


class Plots(NamedTuple):
    """The dashboard's pictures."""

    progress: Markup
    parts: list[Part]
    """What the bar of progress shows."""
    hours: Markup
    people: list[tuple[str, str, Markup]]
    """Heading, what it means, picture."""


class Work(NamedTuple):
    """How one annotator worked."""

    gold: Markup | None
    gold_right: int
    gold_n: int
    window: int
    """How many known answers the picture's line is the mean of."""
    times: Markup | None
    times_table: list[tuple[str, int]]
    fast: int


class ShownTask(NamedTuple):
    """A task as a table shows it."""

    task_id: int
    prompt: Markup
    first: Markup
    second: Markup


class ShownDoubt(NamedTuple):
    """A label that is probably wrong, with left and right as they were shown."""

    task: ShownTask
    choice: str
    likely: str
    wrong: str


def cells(person: AnnotatorNumbers) -> list[Cell]:
    """Return somebody's numbers in the order of `COLUMNS`."""
    named = {concern.number for concern in person.attention}
    estimates = {name: value for name, value in vars(person).items() if isinstance(value, Estimate)}
    return [_cell(column.number, estimates.get(column.number), column.number in named) for column in COLUMNS]


def _cell(number: str, estimate: Estimate | None, is_named: bool) -> Cell:
    if estimate is None:
        return Cell(number, "–", "", 0, is_named)
    sign = "+" if number.endswith("drift") else ""
    value, low, high = (f"{round(100 * part):{sign}d}" for part in (estimate.value, *estimate.ci))
    unit = "" if sign else " %"
    interval = f"{low} to {high}" if sign else f"{low}–{high}"
    return Cell(number, f"{value}{unit}".replace("-", "−"), interval.replace("-", "−"), estimate.n, is_named)


class Coefficient(NamedTuple):
    """One measure of agreement, in words."""

    name: str
    value: str
    interval: str
    n: int
    meaning: str


def coefficients(agreement: Agreement) -> list[Coefficient]:
    """Return the measures of agreement for a table."""
    wanted = (
        ("Raw agreement", agreement.raw, "chance that two labels of a pair are the same"),
        ("Krippendorff's α, ordinal", agreement.krippendorff_ordinal, "a tie is half way between the answers"),
        ("Krippendorff's α, nominal", agreement.krippendorff_nominal, "first, second and tie are equally far apart"),
        ("Fleiss' κ", agreement.fleiss_kappa, "beyond what chance alone gives"),
        ("Cohen's κ, pooled", agreement.cohen_kappa, "the same, by each couple's own habits"),
    )
    return [
        Coefficient(name, f"{one.value:.2f}", f"{one.ci[0]:.2f} to {one.ci[1]:.2f}", one.n, meaning)
        if one is not None
        else Coefficient(name, "–", "", agreement.pairs, meaning)
        for name, one, meaning in wanted
    ]


def number(value: float) -> str:
    """Return a number with thin spaces between thousands, without digits that nobody needs."""
    shown = f"{value:,.0f}" if abs(value) >= 10 or float(value).is_integer() else f"{value:.1f}"
    return shown.replace(",", "\u202f")


def counted(value: float, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number(value)} {noun}" if number(value) == "1" else f"{number(value)} {noun}s"


def remaining(hours: float) -> str:
    """Return a length of time in the unit that people use for it."""
    if hours < 1:
        return counted(max(1, round(60 * hours)), "minute")
    return counted(hours, "hour") if hours < 48 else counted(hours / 24, "day")


def plots(found: Seen) -> Plots:
    """Return the dashboard's pictures."""
    progress, people = found.overview.progress, found.overview.annotators
    parts = _parts(progress)
    hours = bar_plot("Labels in each of the last 48 hours", progress.hourly, _hour_ticks())
    wanted = found.snapshot.study.qualification_accuracy
    panels = (
        ("gold", "Known answers right", "Tasks whose answer is known", wanted, "wanted"),
        (
            "agreement",
            "Agreement with the others",
            "On pairs that several judged",
            found.overview.middle_agreement,
            "median",
        ),
        ("left", "Left answer preferred", "Sides are drawn for each", 0.5, "even"),
    )
    drawn = [
        (title, f"{meaning}; 95 % intervals", dot_plot(title, _dots(people, name), reference, reference_name))
        for name, title, meaning, reference, reference_name in panels
    ]
    return Plots(progress_bar("Tasks by their number of labels", parts), parts, hours, drawn)


def work(found: Snapshot, annotator_id: int) -> Work:
    """Return how one annotator worked, over time and by time."""
    answers = [answer for answer in found.answers if answer.annotator_id == annotator_id]
    right = golds(answers)
    seconds = [answer.seconds for answer in answers if answer.choice is not None and answer.seconds is not None]
    counts = [sum(low <= one < high for one in seconds) for low, high in zip(SECONDS, _ENDS, strict=True)]
    ticks = [(place, str(edge)) for place, edge in enumerate(SECONDS)]
    return Work(
        gold=history_plot("Known answers, oldest first", right, found.study.pause_window) if right else None,
        gold_right=sum(right),
        gold_n=len(right),
        window=found.study.pause_window,
        times=bar_plot("Answers by their time in seconds", counts, ticks) if seconds else None,
        times_table=[(f"from {edge}", count) for edge, count in zip(SECONDS, counts, strict=True)],
        fast=sum(is_fast(answer) for answer in answers if answer.choice is not None),
    )


def shown_task(task_id: int, text: TaskText, marked: Callable[[str], Markup]) -> ShownTask:
    """Return a task's texts, cut to an excerpt; `marked` makes them safe to show."""
    return ShownTask(task_id, *(marked(_excerpt(part)) for part in text))


def doubt(found: Doubt, marked: Callable[[str], Markup]) -> ShownDoubt:
    """Return a doubtful label in words, with left and right as its annotator saw them."""
    said = found.judgement
    task = TaskText(said.prompt[-1].content, said.response_a, said.response_b)
    words = (_CHOICE_WORDS[said.choice], _CHOICE_WORDS[found.likely])
    return ShownDoubt(shown_task(found.task_id, task, marked), *words, f"{min(99, int(100 * found.wrong))} %")


def _excerpt(text: str) -> str:
    short = " ".join(text.split())
    return short if len(short) <= EXCERPT else f"{short[:EXCERPT]}…"


def _dots(people: tuple[AnnotatorNumbers, ...], name: str) -> list[Dot]:
    rows = [(person.name, vars(person)[name], {concern.number for concern in person.attention}) for person in people]
    return [Dot(who, estimate, name in named) for who, estimate, named in rows]


def _parts(progress: Progress) -> list[Part]:
    begun = progress.tasks - progress.complete - progress.by_labels[0]
    parts = (("complete", progress.complete, "complete"), ("begun", begun, "begun"))
    return [Part(*part) for part in (*parts, ("untouched", progress.by_labels[0], "without a label"))]


def _hour_ticks() -> list[tuple[float, str]]:
    ticks = [(float(HOURS_SHOWN - ago), f"{ago} h ago") for ago in (36, 24, 12)]
    return [(1.5, f"{HOURS_SHOWN} h ago"), *ticks, (HOURS_SHOWN - 0.8, "now")]
