"""Plots for pages: inline SVG that takes its colours from the page and so reads well in light and dark.

Matplotlib draws with placeholder colours; they become CSS variables (`var(--ink)` and so on) afterwards, which
`page.html.jinja` defines. Only numbers and our own words may enter a plot, never a text from data.
"""

import io
import re
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

INK, MUTED, GRID, CARD = "#010203", "#020304", "#030405", "#080910"
FIRST, SECOND, GOOD, BAD = "#040506", "#050607", "#060708", "#070809"
SERIES = tuple(f"#0a0b{number:02x}" for number in range(0x11, 0x19))
"""Eight colours that are told apart, for any number of lines up to eight."""
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    CARD: "var(--card)",
    FIRST: "var(--first)",
    SECOND: "var(--second)",
    GOOD: "var(--good)",
    BAD: "var(--bad)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(SERIES)},
}
WIDTH, HEIGHT = 4.5, 2.9


class Margins(NamedTuple):
    """Space around a panel for its ticks and names, in inches."""

    left: float
    bottom: float
    right: float
    top: float


def draw(
    width: float = WIDTH, height: float = HEIGHT, *, rows: int = 1, margins: Margins | None = None
) -> tuple[Figure, list[Axes]]:
    """Return an empty figure (inches) and its panels, one below the other with a common x axis.

    Margins that are given halve the time: to find them, matplotlib draws everything once more.
    """
    figure = Figure(figsize=(width, height), layout="constrained" if margins is None else None)
    if margins is not None:
        left, bottom, right, top = margins
        figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height)
    grid = figure.subplots(rows, 1, squeeze=False, sharex=rows > 1)
    axes: list[Axes] = list(grid[:, 0])
    for axis in axes:
        axis.grid(color=GRID, linewidth=0.7)
        axis.set_axisbelow(True)
        axis.tick_params(colors=MUTED, labelcolor=INK, length=0, labelsize=9)
        for side, spine in axis.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(MUTED)
        axis.yaxis.set_major_locator(MaxNLocator(5))
    return figure, axes


def name_axis(axis: Axes, *, x: str = "", y: str = "") -> None:
    """Name the x axis below, and the y axis above its left end, where it can be read."""
    if x:
        axis.set_xlabel(x, color=INK, fontsize=9.5)
    if y:
        axis.set_title(y, color=INK, fontsize=9.5, loc="left")


def legend(axis: Axes) -> None:
    """Add the legend where it hides least."""
    axis.legend(facecolor=CARD, edgecolor="none", framealpha=0.85, fontsize=9, labelcolor=INK, loc="best")


def svg(figure: Figure, name: str, label: str) -> str:
    """Return the text of one `<svg>`; `name` is different from every other plot of the page, `label` is read aloud."""
    buffer = io.StringIO()
    # The salt keeps ids of several plots in one page apart, and the same from run to run.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(
        r'(<g|<path|<defs)( [^>]*)? id="(?:figure|axes|patch|line2d|xtick|ytick|text|matplotlib|legend|'
        r'PathCollection|FillBetweenPolyCollection|LineCollection)[._0-9a-z]*"',
        r"\1\2",
        text,
    )
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    opening = f'<svg role="img" aria-label="{label}"'
    return re.sub(r' (width|height)="[0-9.]+pt"', "", text.replace("<svg", opening, 1), count=2)
