"""compare.html: runs side by side, as one page that loads nothing and runs nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from rlhf.runs import plots
from rlhf.runs.compare import TABLE_STEPS, Comparison
from rlhf.runs.costs import StageCost, phases
from rlhf.runs.curves import Frontier
from rlhf.runs.duels import GOLD, OWN_SFT, Duel, Refusal
from rlhf.runs.groups import NOT_COMPARED, Group
from rlhf.runs.measures import HEADLINES, Across, Basis, Measure, measured
from rlhf.runs.samples import Answer
from sft.core.page import render_page
from sft.core.plots import MUTED, SERIES
from sft.core.values import Quantity, counted, duration, percent, plain, shown_interval, shown_value

_TEMPLATE = Path(__file__).with_name("compare.html.jinja")
_MOST_IN_FOREST = 16
_REWARDS = (("reward", "proxy reward"), ("gold", "gold reward"))


class Chip(NamedTuple):
    """A group's letter with the class of its colour."""

    letter: str
    css: str


class Value(NamedTuple):
    """A number in a table, ready to print."""

    value: str
    interval: str
    over: str
    """What the interval is over, or why there is none."""
    tone: str = ""


class Row(NamedTuple):
    """One line of a table: a value for each group, or None."""

    title: str
    values: list[Value | None]


class Said(NamedTuple):
    """An answer, ready to print."""

    chip: Chip | None
    who: str
    text: str
    scores: str


def render(comparison: Comparison) -> str:
    """Return the whole page. Raises DataError where a run's file is damaged."""
    colour = _colours(comparison)
    chips = {letter: Chip(letter, _css(shade)) for letter, shade in colour.items()}
    groups = comparison.groups
    headlines = [measure for measure in HEADLINES if measure.name in comparison.numbers]
    others = [Measure(name, name) for name in comparison.numbers if name not in {m.name for m in HEADLINES}]
    return render_page(
        _TEMPLATE,
        {
            "title": _title(comparison),
            "subtitle": _subtitle(comparison),
            "remarks": comparison.remarks,
            "not_compared": [name if name == "seed" else f"{name}.*" for name in NOT_COMPARED],
            "fields": comparison.sorted.fields,
            "groups": groups,
            "chips": chips,
            "seeds": {group.letter: _seeds(group) for group in groups},
            "headlines": [measure.title for measure in headlines],
            "results": {group.letter: _results(comparison, headlines, group) for group in groups},
            "others": [_number_row(measure, comparison.numbers[measure.name], groups) for measure in others],
            "differences": {group.letter: _differences(comparison, headlines, group) for group in groups[1:]},
            "most_in_forest": _MOST_IN_FOREST,
            "forests": _forests(comparison, headlines, colour),
            "courses": _courses(comparison, colour),
            "frontiers": _frontiers(comparison, colour),
            "within_all": TABLE_STEPS,
            "kl_tables": [_kl_table(comparison, series, title) for series, title in _REWARDS],
            "duels": _duels(comparison),
            "duel_letters": comparison.duels.letters,
            "own_sft": OWN_SFT,
            "left_out": comparison.duels.left_out,
            "judges": _judges(comparison),
            "costs": _cost_rows(comparison),
            "totals": [Value(f"{spent.process_hours:.2f} h", "", "") for spent in comparison.costs],
            "questions": [
                (question.prompt, [_said(answer, chips) for answer in question.answers])
                for question in comparison.questions
            ],
            "runs": comparison.runs,
            "letters_of": {run.path: group.letter for group in groups for run in group.runs},
            "duration": duration,
        },
    )


def _title(comparison: Comparison) -> str:
    runs, groups = len(comparison.runs), len(comparison.groups)
    if groups == 1:
        return f"{counted(runs, 'run')} of one configuration"
    return f"{runs} runs of {groups} configurations"


def _subtitle(comparison: Comparison) -> str:
    """Return what was run: the experiments, and how many seeds a configuration has."""
    experiments = ", ".join(dict.fromkeys(run.record.experiment for run in comparison.runs))
    counts = sorted({len(group.runs) for group in comparison.groups})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{experiments} · {seeds} seed{'s' * (counts != [1])} of each configuration"


def _colours(comparison: Comparison) -> dict[str, str]:
    """Colour the groups that win most against their SFT model, where not all can have a colour."""
    letters = [group.letter for group in comparison.groups]
    rates = comparison.numbers.get("validation_win_rate", {}) | comparison.numbers.get("win_rate", {})
    best = sorted(letters, key=lambda letter: -rates[letter].mean if letter in rates else 1.0)
    return plots.colours(letters, best)


def _css(shade: str) -> str:
    return "" if shade == MUTED else f"s{SERIES.index(shade)}"


def _seeds(group: Group) -> str:
    return ", ".join(str(run.record.seed) for run in group.runs)


def _results(comparison: Comparison, measures: Sequence[Measure], group: Group) -> list[Value | None]:
    return [_value(measure, comparison.numbers[measure.name].get(group.letter)) for measure in measures]


def _number_row(measure: Measure, row: Mapping[str, Across], groups: Sequence[Group]) -> Row:
    return Row(measure.title, [_value(measure, row.get(group.letter)) for group in groups])


def _value(measure: Measure, found: Across | None) -> Value | None:
    if found is None:
        return None
    estimate = Quantity(found.mean, found.low, found.high)
    number = percent(found.mean) if measure.rate else shown_value(estimate)
    interval = shown_interval(estimate, rate=measure.rate)
    over = {Basis.SEEDS: f"{found.n} seeds", Basis.PROMPTS: "1 seed; over its prompts", Basis.NONE: f"{found.n} seed"}
    return Value(number, interval, over[found.basis])


def _differences(comparison: Comparison, measures: Sequence[Measure], group: Group) -> list[Value | None]:
    return [_difference(measure, comparison.differences[measure.name].get(group.letter)) for measure in measures]


def _difference(measure: Measure, found: Across | None) -> Value | None:
    if found is None:
        return None
    number = f"{100 * found.mean:+.1f} points" if measure.rate else f"{found.mean:+.3g}"
    interval = shown_interval(Quantity(found.mean, found.low, found.high), rate=measure.rate)
    shown = found.interval is not None and (found.interval[0] > 0 or found.interval[1] < 0)
    over = f"{found.n} pairs" if found.n > 1 else "1 pair: no interval"
    return Value(number, interval, over, "clear" if shown else "")


def _forests(comparison: Comparison, headlines: Sequence[Measure], colour: Mapping[str, str]) -> list[Markup]:
    """Draw the headline numbers of the first groups; a single group has nothing beside it."""
    if len(comparison.groups) < 2:
        return []
    letters = [group.letter for group in comparison.groups[:_MOST_IN_FOREST]]
    drawn = []
    for measure in headlines:
        row = comparison.numbers[measure.name]
        known = {letter: row[letter] for letter in letters if letter in row}
        drawn.append(Markup(plots.forest(known, colour, f"forest-{measure.name}", measure.title, percent=measure.rate)))
    return drawn


def _courses(comparison: Comparison, colour: Mapping[str, str]) -> list[Markup]:
    panels = [(title, courses, "PPO iteration") for title, courses in comparison.courses.items()]
    panels += [(title, courses, "optimiser step") for title, courses in comparison.losses.items()]
    return [
        Markup(plots.course_plot(courses, colour, f"course-{place}", title, x))
        for place, (title, courses, x) in enumerate(panels)
    ]


def _frontiers(comparison: Comparison, colour: Mapping[str, str]) -> list[Markup]:
    drawn = []
    for series, title in _REWARDS:
        found = comparison.over_kl(series, [letter for letter, shade in colour.items() if shade != MUTED])
        if found:
            drawn.append(Markup(plots.frontier_plot(found, colour, f"frontier-{series}", title)))
    return drawn


class KLTable(NamedTuple):
    """One reward of all groups at common KL values."""

    title: str
    grid: list[str]
    rows: list[tuple[str, list[Value | None]]]


def _kl_table(comparison: Comparison, series: str, title: str) -> KLTable:
    grid = comparison.common_kl
    rows = [(found.letter, _at_grid(found, grid)) for found in comparison.at_common_kl(series)]
    return KLTable(title, [plain(round(kl, 2)) for kl in grid], rows)


def _at_grid(found: Frontier, grid: Sequence[float]) -> list[Value | None]:
    points = {point.kl: point for point in found.points}
    values: list[Value | None] = []
    for kl in grid:
        point = points.get(kl)
        if point is None:
            values.append(None)
        else:
            estimate = Quantity(point.mean, point.low, point.high)
            values.append(Value(shown_value(estimate), shown_interval(estimate, rate=False), f"n {point.n}"))
    return values


def _duels(comparison: Comparison) -> dict[tuple[str, str], Value]:
    return {(cell.row, cell.column): _duel(cell.found) for cell in comparison.duels.cells}


def _duel(found: Duel | Refusal) -> Value:
    if isinstance(found, Refusal):
        return Value("–", "", found.reason)
    low, high = (
        (found.low, found.high)
        if found.seeds_low is None or found.seeds_high is None
        else (found.seeds_low, found.seeds_high)
    )
    tone = "good" if low > 0.5 else "bad" if high < 0.5 else ""
    over_prompts = f"{shown_interval(Quantity(found.share, found.low, found.high), rate=True)} {found.prompts} prompts"
    if found.seeds_low is None:
        return Value(percent(found.share), over_prompts, "1 pair of runs", tone)
    over_seeds = shown_interval(Quantity(found.share, found.seeds_low, found.seeds_high), rate=True)
    return Value(percent(found.share), over_prompts, f"{over_seeds} {found.pairs} seeds", tone)


def _judges(comparison: Comparison) -> str:
    """Return what judged, with how often it is right where that is known."""
    names = []
    for judge in comparison.duels.judges:
        if judge == GOLD:
            names.append("the gold utility of the simulated world, which is the truth there")
            continue
        known = [found for run in comparison.runs if (found := measured(run, "judge_accuracy")) is not None]
        right = [f"{percent(found.value)} {shown_interval(found, rate=True)}".strip() for found in known]
        accuracy = f", right on {'; '.join(dict.fromkeys(right))} of held-out labels" if right else ""
        names.append(f"a {judge}, which PPO never saw{accuracy}")
    return " or ".join(names)


def _cost_rows(comparison: Comparison) -> list[Row]:
    names = dict.fromkeys(stage.name for spent in comparison.costs for stage in spent.stages)
    spent_phases = [phases(group) for group in comparison.groups]
    rows = []
    for name in names:
        found = [next((s for s in spent.stages if s.name == name), None) for spent in comparison.costs]
        rows.append(Row(name, [None if stage is None else _stage_value(stage) for stage in found]))
        if name == "ppo":
            titles = dict.fromkeys(title for known in spent_phases for title, _, _ in known)
            rows += [Row(f"– {title}", [_phase_value(known, title) for known in spent_phases]) for title in titles]
    return rows


def _stage_value(stage: StageCost) -> Value:
    reused = f"{stage.reused} reused" if stage.reused else ""
    if stage.seconds is None:
        return Value("reused", "", reused)
    counted = ", ".join(part for part in (f"n {stage.computed}", reused) if part)
    return Value(duration(stage.seconds), "", counted)


def _phase_value(known: Sequence[tuple[str, float, int]], title: str) -> Value | None:
    return next((Value(duration(seconds), "", f"n {n}") for name, seconds, n in known if name == title), None)


def _said(answer: Answer, chips: Mapping[str, Chip]) -> Said:
    scores = [("reward", answer.reward), ("gold", answer.gold)]
    shown = " · ".join(f"{name} {score:.2f}" for name, score in scores if score is not None)
    chip = chips.get(answer.letter)
    return Said(chip, f"seed {answer.seed}" if chip else f"SFT model, seed {answer.seed}", answer.text, shown)
