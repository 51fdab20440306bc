"""The plots of a comparison. Groups appear by letter and colour; no text of a configuration enters a plot."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator

from rlhf.runs.curves import Course, Frontier, Line
from rlhf.runs.measures import Across, Basis
from sft.core.plots import MUTED, SERIES, Margins, draw, name_axis, svg

COLOURED = len(SERIES)
"""Groups that get a colour; further ones are thin and grey."""
_MARGINS = Margins(0.5, 0.45, 0.2, 0.26)
_LABEL_GAP = 0.062
"""Least distance of two letters at the ends of lines, in heights of the panel."""


def colours(letters: Sequence[str], first: Sequence[str]) -> dict[str, str]:
    """Return each group's colour.

    Args:
        letters: of all groups.
        first: most important first; as many as there are colours get one, in the order of `letters`.
    """
    chosen = [letter for letter in letters if letter in set(first[:COLOURED])]
    return dict.fromkeys(letters, MUTED) | dict(zip(chosen, SERIES, strict=False))


def forest(values: Mapping[str, Across], colour: Mapping[str, str], name: str, title: str, *, percent: bool) -> str:
    """Draw one number of every group with its interval, and a small dot for each seed."""
    scale = 100.0 if percent else 1.0
    figure, (axis,) = draw(3.3, 0.55 + 0.27 * len(values), margins=Margins(0.3, 0.26, 0.1, 0.26))
    axis.xaxis.set_major_locator(MaxNLocator(5))
    for place, (letter, found) in enumerate(values.items()):
        shade = colour[letter]
        if found.interval is not None:
            ends = [scale * end for end in found.interval]
            axis.plot(ends, [place, place], "-" if found.basis is Basis.SEEDS else ":", color=shade, linewidth=2)
        if found.n > 1:
            axis.plot(
                [scale * v for _, v in found.values], [place] * found.n, "|", color=shade, markersize=9, alpha=0.7
            )
        axis.plot([scale * found.mean], [place], "o", color=shade, markersize=6)
    axis.set_yticks(range(len(values)), list(values))
    axis.set_ylim(len(values) - 0.4, -0.6)
    axis.grid(visible=False, axis="y")
    name_axis(axis, y=f"{title}, %" if percent else title)
    return svg(figure, name, f"{title} of every group with intervals")


def course_plot(courses: Sequence[Course], colour: Mapping[str, str], name: str, title: str, x: str) -> str:
    """Draw one quantity over training: a thin line for each run, a thick one for the mean of a group's runs."""
    figure, (axis,) = draw(margins=_MARGINS)
    _thin(axis, courses, colour)
    for found in courses:
        if colour[found.letter] != MUTED:
            axis.plot(*_split(found.mean), color=colour[found.letter], linewidth=2.0)
    ends = {found.letter: found.mean[-1] for found in courses if found.mean and colour[found.letter] != MUTED}
    _letters(axis, ends, colour)
    name_axis(axis, x=x, y=title)
    return svg(figure, name, f"{title} over {x}")


def frontier_plot(frontiers: Sequence[Frontier], colour: Mapping[str, str], name: str, title: str) -> str:
    """Draw one reward against KL: means of runs at equal KL with their interval, and each run's own line, thin."""
    figure, (axis,) = draw(height=3.2, margins=_MARGINS)
    _thin(axis, frontiers, colour)
    for found in frontiers:
        shade = colour[found.letter]
        if shade == MUTED:
            continue
        several = [point for point in found.points if point.low is not None]
        lows, highs = [point.low or 0.0 for point in several], [point.high or 0.0 for point in several]
        axis.fill_between([point.kl for point in several], lows, highs, color=shade, alpha=0.13, linewidth=0)
        axis.plot(*_split(_whole(found)), color=shade, linewidth=2.0)
    # Student's interval of two seeds is very wide: the lines decide what is seen, and bands may leave the panel.
    every = [value for found in frontiers for line in found.lines for _, value in line]
    room = 0.25 * (max(every) - min(every)) or 1.0
    axis.set_ylim(min(every) - room, max(every) + room)
    ends = {found.letter: _whole(found)[-1] for found in frontiers if _whole(found) and colour[found.letter] != MUTED}
    _letters(axis, ends, colour)
    name_axis(axis, x="KL to the reference, nats per answer", y=title)
    return svg(figure, name, f"{title} against KL to the reference")


def _thin(axis: Axes, drawn: Sequence[Course] | Sequence[Frontier], colour: Mapping[str, str]) -> None:
    """Draw the lines of single runs, those of a colour at once, which is much faster than one by one; grey below."""
    lines: dict[str, list[Line]] = {MUTED: []}
    for found in drawn:
        lines.setdefault(colour[found.letter], []).extend(found.lines)
    for shade, of_shade in lines.items():
        axis.add_collection(
            LineCollection(of_shade, colors=shade, linewidths=0.8, alpha=0.25 if shade == MUTED else 0.4)
        )
    axis.autoscale_view()


def _whole(found: Frontier) -> Line:
    """Return the mean where all runs of a group have a value."""
    return [(point.kl, point.mean) for point in found.points if point.n == len(found.lines)]


def _split(line: Line) -> tuple[list[float], list[float]]:
    return [x for x, _ in line], [y for _, y in line]


def _letters(axis: Axes, ends: Mapping[str, tuple[float, float]], colour: Mapping[str, str]) -> None:
    """Write each group's letter at the right end of its line, moved up or down where letters would meet."""
    low, high = axis.get_ylim()
    places = {letter: (y - low) / (high - low) for letter, (_, y) in ends.items()}
    for letter, place in spread(places, _LABEL_GAP).items():
        x, _ = ends[letter]
        axis.annotate(
            letter,
            (x, low + place * (high - low)),
            xytext=(5, 0),
            textcoords="offset points",
            color=colour[letter],
            fontsize=9.5,
            fontweight="bold",
            va="center",
            annotation_clip=False,
        )


def spread(places: Mapping[str, float], gap: float) -> dict[str, float]:
    """Return places at least `gap` apart, in the same order, each group of close ones around its own middle."""
    clusters: list[list[str]] = []
    centres: list[float] = []
    for letter in sorted(places, key=lambda letter: places[letter]):
        clusters.append([letter])
        centres.append(places[letter])
        while len(clusters) > 1 and _bottom(centres, clusters, -1, gap) < _top(centres, clusters, -2, gap) + gap:
            last, merged = clusters.pop(), clusters.pop()
            centres = centres[:-2]
            clusters.append([*merged, *last])
            centres.append(sum(places[member] for member in clusters[-1]) / len(clusters[-1]))
    return {
        letter: centre + gap * (place - (len(members) - 1) / 2)
        for members, centre in zip(clusters, centres, strict=True)
        for place, letter in enumerate(members)
    }


def _bottom(centres: Sequence[float], clusters: Sequence[Sequence[str]], place: int, gap: float) -> float:
    return centres[place] - gap * (len(clusters[place]) - 1) / 2


def _top(centres: Sequence[float], clusters: Sequence[Sequence[str]], place: int, gap: float) -> float:
    return centres[place] + gap * (len(clusters[place]) - 1) / 2
