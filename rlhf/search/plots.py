"""The plots of a search: its course, one setting against the objective, one objective against another.

Numbers alone are drawn; the names of settings stand in the page.
"""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from sft.core.plots import FIRST, GOOD, Margins, draw, name_axis, svg

_MARGINS = Margins(0.55, 0.45, 0.15, 0.26)


class Dot(NamedTuple):
    """A trial in a plot."""

    x: float
    y: float
    low: float | None
    high: float | None
    best: bool


def dots(found: Sequence[Dot], name: str, *, y: str, x: str = "", log: bool = False) -> str:
    """Draw trials with the intervals of their y; the best ones stand out. Without a name of x the page gives it."""
    figure, (axis,) = draw(margins=_MARGINS)
    if log:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
    _intervals(axis, found)
    name_axis(axis, x=x, y=y)
    return svg(figure, name, f"{y} of every trial against {x or 'a setting'}")


def course(found: Sequence[Dot], so_far: Sequence[tuple[float, float]], name: str, y: str) -> str:
    """Draw the trials in their order, and the best so far as steps."""
    figure, (axis,) = draw(width=7.2, margins=_MARGINS)
    if so_far:
        axis.step([x for x, _ in so_far], [y for _, y in so_far], where="post", color=GOOD, linewidth=1.6)
    _intervals(axis, found)
    name_axis(axis, x="trial", y=y)
    return svg(figure, name, f"{y} of every trial in order, with the best so far")


def _intervals(axis: Axes, found: Sequence[Dot]) -> None:
    for dot in sorted(found, key=lambda dot: dot.best):
        shade = GOOD if dot.best else FIRST
        if dot.low is not None and dot.high is not None:
            axis.plot([dot.x, dot.x], [dot.low, dot.high], "-", color=shade, linewidth=1.6, alpha=0.55)
        axis.plot([dot.x], [dot.y], "D" if dot.best else "o", color=shade, markersize=7 if dot.best else 5)
