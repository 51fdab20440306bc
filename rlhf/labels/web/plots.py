"""The dashboard's pictures: SVG with classes for colours, so that light and dark are the style sheet's.

No number is in a picture alone: each stands in a table or a line of text beside it. Every text is escaped.
"""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from sft.core.statistics import Estimate

_WIDTH, _NAME, _RIGHT, _TOP, _ROW = 420, 112, 20, 24, 24
_BARS_WIDTH, _BARS_HEIGHT, _BARS_LEFT = 620, 190, 40
_SHORT = 14
_STRETCHED = "plot stretched"


class Dot(NamedTuple):
    """One line of a dot plot."""

    name: str
    estimate: Estimate | None
    is_named: bool
    """Whether its owner needs attention for this number."""


class Part(NamedTuple):
    """A part of a bar: its class, its size, and what it is."""

    kind: str
    size: int
    name: str


def dot_plot(title: str, dots: Sequence[Dot], reference: float | None, reference_name: str) -> Markup:
    """Return each share with its interval on a line from 0 to 100 %, with a line where the reference is."""
    bottom = _TOP + _ROW * len(dots)
    marks = [_vertical(_x(share), bottom, "grid") for share in (0, 0.25, 0.5, 0.75, 1)]
    marks += [
        Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>').format(
            _x(share), bottom + 15, f"{round(100 * share)} %"
        )
        for share in (0, 0.5, 1)
    ]
    if reference is not None:
        marks.append(_vertical(_x(reference), bottom, "reference"))
        place = Markup('<text class="tick" x="{}" y="13" text-anchor="middle">{}</text>')
        marks.append(place.format(min(_x(reference), _WIDTH - 62), f"{reference_name} {round(100 * reference)} %"))
    marks += [_dot(dot, _TOP + _ROW * (row + 0.5)) for row, dot in enumerate(dots)]
    return _svg(title, _WIDTH, bottom + 22, marks)


def bar_plot(title: str, counts: Sequence[int], ticks: Sequence[tuple[float, str]], kind: str = "bar") -> Markup:
    """Return counts as bars.

    Args:
        title: for those who hear the page.
        counts: one for each bar, from left to right.
        ticks: where, in bars from the left edge, and what stands below.
        kind: class of the bars.
    """
    top, bottom, right = 12, _BARS_HEIGHT - 22, _BARS_WIDTH - 8
    step = (right - _BARS_LEFT) / max(1, len(counts))
    highest = max(counts, default=0)
    scale = (bottom - top) / max(1, highest)
    marks = []
    for value in range(0, highest + 1, _round_step(highest)):
        y = round(bottom - value * scale, 1)
        marks.append(Markup('<path class="grid" d="M{} {}H{}"/>').format(_BARS_LEFT, y, right))
        marks.append(
            Markup('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>').format(_BARS_LEFT - 6, y + 4, value)
        )
    shape = Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}" rx="1.5"/>')
    for place, count in enumerate(counts):
        if count:
            x, width, height = _BARS_LEFT + place * step + step * 0.12, step * 0.76, count * scale
            marks.append(shape.format(kind, *(round(part, 1) for part in (x, bottom - height, width, height))))
    label = Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>')
    marks += [label.format(round(_BARS_LEFT + at * step, 1), _BARS_HEIGHT - 6, name) for at, name in ticks]
    return _svg(title, _BARS_WIDTH, _BARS_HEIGHT, marks, kind="plot bars")


def progress_bar(title: str, parts: Sequence[Part]) -> Markup:
    """Return sizes as parts of one bar."""
    total, marks, start = max(1, sum(part.size for part in parts)), [], 0.0
    shape = Markup('<rect class="{}" x="{}" y="0" width="{}" height="12"><title>{}: {}</title></rect>')
    for part in parts:
        width = 1000 * part.size / total
        marks.append(shape.format(part.kind, round(start, 2), round(width, 2), part.name, part.size))
        start += width
    return _svg(title, 1000, 12, marks, _STRETCHED)


def history_plot(title: str, hits: Sequence[bool], window: int) -> Markup:
    """Return right and wrong answers in their order, and above them the share of the last `window` ones."""
    top, middle, width = 12, 96, _BARS_WIDTH
    step = (width - _BARS_LEFT - 12) / max(1, len(hits))

    def x(place: int) -> float:
        return round(_BARS_LEFT + (place + 0.5) * step, 1)

    marks = []
    for share in (0, 0.5, 1):
        y = middle - (middle - top) * share
        marks.append(Markup('<path class="grid" d="M{} {}H{}"/>').format(_BARS_LEFT, y, width - 12))
        tick = Markup('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>')
        marks.append(tick.format(_BARS_LEFT - 4, y + 4, f"{round(100 * share)} %"))
    shares = [sum(hits[: end + 1][-window:]) / min(end + 1, window) for end in range(len(hits))]
    points = " ".join(f"{x(place)},{round(middle - (middle - top) * share, 1)}" for place, share in enumerate(shares))
    marks.append(Markup('<polyline class="line" points="{}"/>').format(points))
    for place, hit in enumerate(hits):
        shape = '<circle class="right" cx="{0}" cy="116" r="3.5"/>'
        if not hit:
            shape = '<path class="wrong" d="M{1} 112l8 8m0 -8l-8 8"/>'
        marks.append(Markup(shape).format(x(place), round(x(place) - 4, 1)))
    return _svg(title, width, 130, marks, kind="plot bars")


def _round_step(highest: int) -> int:
    """Return the smallest of 1, 2, 5, 10, 20, ... that goes into a number at most four times."""
    step = 1
    while highest // step > 4:
        step = step * 5 // 2 if str(step)[0] == "2" else step * 2
    return step


def _x(share: float) -> float:
    return round(_NAME + (_WIDTH - _NAME - _RIGHT) * share, 1)


def _vertical(x: float, bottom: float, kind: str) -> Markup:
    return Markup('<path class="{}" d="M{} {}V{}"/>').format(kind, x, _TOP - 4, bottom)


def _dot(dot: Dot, y: float) -> Markup:
    shown = dot.name if len(dot.name) <= _SHORT else f"{dot.name[: _SHORT - 1]}…"
    kind = "named" if dot.is_named else "usual"
    name = Markup('<text class="name {}" x="{}" y="{}" text-anchor="end">{}<title>{}</title></text>').format(
        kind, _NAME - 10, y + 4, shown, dot.name
    )
    if dot.estimate is None:
        return name + Markup('<text class="tick" x="{}" y="{}">not known yet</text>').format(_NAME + 6, y + 4)
    low, high = (_x(end) for end in dot.estimate.ci)
    told = f"{dot.name}: {round(100 * dot.estimate.value)} %, n = {dot.estimate.n}"
    mark = Markup('<g class="{}"><title>{}</title><path class="range" d="M{} {}H{}"/>').format(kind, told, low, y, high)
    return name + mark + Markup('<circle cx="{}" cy="{}" r="4.5"/></g>').format(_x(dot.estimate.value), y)


def _svg(title: str, width: int, height: float, marks: Sequence[Markup], kind: str = "plot") -> Markup:
    ratio = Markup(' preserveAspectRatio="none"') if kind == _STRETCHED else Markup()
    opening = Markup('<svg class="{}" role="img" aria-label="{}" viewBox="0 0 {} {}"{}>')
    return opening.format(kind, title, width, height, ratio) + Markup("").join(marks) + Markup("</svg>")
