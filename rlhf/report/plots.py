"""The report's plots.

Each function takes plain numbers and returns the text of one `<svg>`, or None when there is nothing to draw.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.colors import to_rgba_array
from matplotlib.ticker import MaxNLocator

from rlhf.report.checks import BiasCheck
from sft.core.plots import BAD, FIRST, GOOD, INK, MUTED, SECOND, draw, legend, name_axis, svg


class LossPoint(NamedTuple):
    """Losses at an optimiser step; None where one was not measured."""

    step: float
    train: float | None
    validation: float | None


class ReliabilityBin(NamedTuple):
    """Comparisons of similar confidence: their mean confidence, the share predicted rightly, their number."""

    confidence: float
    accuracy: float
    n: float


class Iteration(NamedTuple):
    """One PPO iteration: KL in nats per answer, mean rewards, answer length in tokens, entropy in nats."""

    iteration: float
    kl: float | None
    proxy: float | None
    judged: float | None
    """Gold reward, or the held-out judge's where no gold exists."""
    length: float | None
    entropy: float | None


def loss_plot(points: Sequence[LossPoint], name: str) -> str | None:
    """Draw training and validation loss over steps."""
    series = [
        ("training", FIRST, "-", [(p.step, p.train) for p in points if p.train is not None]),
        ("validation", SECOND, "o-", [(p.step, p.validation) for p in points if p.validation is not None]),
    ]
    if not any(values for _, _, _, values in series):
        return None
    figure, (axis,) = draw()
    for label, colour, style, values in series:
        if values:
            xs, ys = zip(*values, strict=True)
            axis.plot(xs, ys, style, color=colour, label=label, linewidth=1.8, markersize=4)
    name_axis(axis, x="optimiser step", y="loss")
    legend(axis)
    return svg(figure, name, "Training and validation loss over optimiser steps")


def reliability_plot(bins: Sequence[ReliabilityBin], name: str) -> str | None:
    """Draw accuracy against confidence; a perfectly calibrated model lies on the diagonal. Dot area shows n."""
    if not bins:
        return None
    figure, (axis,) = draw()
    confidence = [b.confidence for b in bins]
    accuracy = [b.accuracy for b in bins]
    largest = max(b.n for b in bins) or 1
    start = min(0.5, *confidence)
    axis.plot([start, 1], [start, 1], "--", color=MUTED, linewidth=1.2, label="perfect calibration")
    axis.vlines(confidence, confidence, accuracy, color=FIRST, linewidth=1.2, alpha=0.5)
    axis.scatter(confidence, accuracy, s=[25 + 130 * b.n / largest for b in bins], color=FIRST, label="reward model")
    axis.set_xlim(start - 0.02, 1.02)
    name_axis(axis, x="confidence: predicted probability of the chosen side", y="share predicted rightly")
    legend(axis)
    return svg(figure, name, "Reliability diagram of the reward model")


def frontier_plot(iterations: Sequence[Iteration], judged_name: str, name: str) -> str | None:
    """Draw proxy reward, and below it the judged reward where one is known, against KL."""
    panels = [
        ("proxy reward (what PPO maximises)", FIRST, [(p.kl, p.proxy) for p in iterations]),
        (judged_name, SECOND, [(p.kl, p.judged) for p in iterations]),
    ]
    known = [(title, colour, _complete(pairs)) for title, colour, pairs in panels]
    known = [panel for panel in known if len(panel[2]) > 1]
    if not known:
        return None
    figure, axes = draw(height=1.1 + 1.75 * len(known), rows=len(known))
    for axis, (title, colour, pairs) in zip(axes, known, strict=True):
        kl, reward = zip(*pairs, strict=True)
        axis.plot(kl, reward, color=colour, linewidth=1, alpha=0.35)
        dots = np.tile(to_rgba_array(colour), (len(pairs), 1))
        dots[:, 3] = np.linspace(0.3, 1, len(pairs))
        axis.scatter(kl, reward, c=dots, s=14, linewidths=0)
        for label, index in (("start", 0), ("end", -1)):
            point = (kl[index], reward[index])
            axis.annotate(label, point, xytext=(6, -10), textcoords="offset points", color=INK, fontsize=9)
        name_axis(axis, y=title)
        axis.margins(x=0.06, y=0.14)
    name_axis(axes[-1], x="KL to the reference, nats per answer")
    return svg(figure, name, "Proxy and judged reward against KL to the reference")


def course_plot(iterations: Sequence[Iteration], name: str) -> str | None:
    """Draw KL, answer length and entropy over PPO iterations."""
    panels = [
        ("KL to the reference, nats per answer", [(p.iteration, p.kl) for p in iterations]),
        ("answer length, tokens", [(p.iteration, p.length) for p in iterations]),
        ("entropy of the policy, nats", [(p.iteration, p.entropy) for p in iterations]),
    ]
    known = [(title, _complete(pairs)) for title, pairs in panels]
    known = [panel for panel in known if len(panel[1]) > 1]
    if not known:
        return None
    figure, axes = draw(height=0.8 + 1.25 * len(known), rows=len(known))
    for axis, (title, pairs) in zip(axes, known, strict=True):
        xs, ys = zip(*pairs, strict=True)
        axis.plot(xs, ys, color=FIRST, linewidth=1.8)
        axis.yaxis.set_major_locator(MaxNLocator(3))
        name_axis(axis, y=title)
    name_axis(axes[-1], x="PPO iteration")
    return svg(figure, name, "KL, answer length and entropy over PPO iterations")


def _complete(pairs: Sequence[tuple[float | None, float | None]]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in pairs if x is not None and y is not None]


def histogram_plot(groups: Mapping[str, Sequence[float]], x: str, name: str) -> str | None:
    """Draw up to two groups' distributions over common bins, with a line at each mean."""
    known = {label: values for label, values in groups.items() if len(values) > 0}
    if not known:
        return None
    figure, (axis,) = draw()
    everything = np.concatenate([np.asarray(values, dtype=np.float64) for values in known.values()])
    edges = np.histogram_bin_edges(everything, bins=min(30, max(8, int(np.sqrt(len(everything))))))
    for (label, values), colour in zip(known.items(), (SECOND, FIRST), strict=False):
        weights = np.full(len(values), 100 / len(values))
        described = f"{label} (mean {np.mean(values):.2f}, n {len(values)})"
        axis.hist(values, bins=list(edges), weights=weights, color=colour, alpha=0.45, label=described)
        axis.axvline(float(np.mean(values)), color=colour, linewidth=1.6)
    name_axis(axis, x=x, y="share of answers, %")
    legend(axis)
    axis.set_ylim(top=axis.get_ylim()[1] * 1.3)
    return svg(figure, name, f"Distribution of {x}")


def bias_plot(checks: Sequence[BiasCheck], name: str) -> str | None:
    """Draw each check's effect and interval as multiples of its own limit, so that unlike checks compare.

    Rows are numbered as in the table beside the plot; the text of names never enters the SVG.
    """
    rows = [(row, check) for row, check in enumerate(checks, start=1) if check.effect is not None and check.limit]
    if not rows:
        return None
    figure, (axis,) = draw(height=1.0 + 0.3 * len(rows))
    axis.axvspan(-1, 1, color=GOOD, alpha=0.09, linewidth=0)
    for limit in (-1, 1):
        axis.axvline(limit, color=MUTED, linewidth=1.2, linestyle="--")
    axis.axvline(0, color=MUTED, linewidth=0.8)
    for place, (_, check) in enumerate(rows):
        assert check.effect is not None
        assert check.limit
        colour = GOOD if check.passed else BAD
        if check.low is not None and check.high is not None:
            axis.plot([check.low / check.limit, check.high / check.limit], [place, place], color=colour, linewidth=2)
        axis.plot([check.effect / check.limit], [place], "o" if check.passed else "D", color=colour, markersize=6)
    axis.set_yticks(range(len(rows)), [f"{row}" for row, _ in rows])
    axis.set_ylim(len(rows) - 0.4, -0.6)
    reach = max(1.15, *(abs(edge) * 1.08 for edge in axis.get_xlim()))
    axis.set_xlim(-reach, reach)
    axis.grid(visible=False, axis="y")
    name_axis(axis, x="effect as a multiple of its limit (dashed: the limit)", y="check")
    return svg(figure, name, "Effects of the bias checks with intervals and limits")
