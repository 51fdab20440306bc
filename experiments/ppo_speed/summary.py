"""From the measurements of all processes to a table, ratios and a plot.

Seconds are medians over the steady updates of a run, then over the runs; tokens, lengths and scores are over all
steady updates.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from contract import WORKLOADS, Decoding, Measurement, Update

BASELINE = "trl"
RUN_OF = 30
"""Updates over which the ratio with compilation spreads what compilation took."""
PHASES = ("generate_s", "score_s", "train_s")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One contender on one workload."""

    workload: str
    contender: str
    runs: int
    generate_s: float
    score_s: float
    train_s: float
    update_s: float
    update_s_min: float
    update_s_max: float
    compile_s: float
    """What the first update took more than a later one: compilation, and other warm-up."""
    setup_s: float
    sequences_per_s: float
    tokens_per_s: float
    """Of answers, up to their EOS."""
    mean_tokens: float
    score: float
    peak_mib: float
    imports_mib: float
    optimizer_steps_per_update: float
    late_graphs: int
    """Graphs that were compiled after the warm-up, in the worst run."""

    @property
    def run_s(self) -> float:
        """Return the seconds of a run of `RUN_OF` updates, with compilation."""
        return self.compile_s + RUN_OF * self.update_s


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How much better a contender is than TRL."""

    workload: str
    contender: str
    update: float
    """Speed of an update, without compilation."""
    with_compilation: float
    """Speed of a run of `RUN_OF` updates that starts with compilation."""
    tokens: float
    """Answer tokens per second; differs from `update` where the answers' lengths differ by chance."""
    generate: float
    score: float
    train: float
    peak_memory: float
    """Share of TRL's peak; smaller is better."""
    peak_memory_above_imports: float


@dataclass(frozen=True, kw_only=True)
class DecodingRow:
    """One contender of decoding alone."""

    contender: str
    runs: int
    tokens_per_s: float
    warmup_s: float
    mean_tokens: float
    bound_tokens_per_s: float | None
    ours_over_this: float | None
    """None until ours has run."""


def check_lengths(measurement: Measurement) -> None:
    """Raise ValueError where a workload promises full answers and some were shorter."""
    workload = WORKLOADS[measurement.workload]
    found = [update.answer_tokens / update.answers for update in measurement.updates]
    if workload.eos == "never" and min(found) < workload.max_answer_tokens:
        raise ValueError(
            f"{measurement.contender}: answers of {min(found):.1f} tokens, {workload} promises the maximum"
        )


def _steady(measurements: Iterable[Measurement]) -> list[list[Update]]:
    """Return the updates of each run after the warm-up (the warm-up itself where there is nothing else)."""
    return [measurement.updates[1:] or measurement.updates for measurement in measurements]


def row(measurements: Sequence[Measurement]) -> Row:
    """Return the medians of one contender: over the steady updates of a run, then over the runs."""
    runs = _steady(measurements)
    phases = {name: median(median(getattr(u, name) for u in run) for run in runs) for name in PHASES}
    totals = [median(update.total_s for update in run) for run in runs]
    every = [update for run in runs for update in run]
    seconds = sum(update.total_s for update in every)
    return Row(
        workload=measurements[0].workload,
        contender=measurements[0].contender,
        runs=len(measurements),
        **phases,
        update_s=median(totals),
        update_s_min=min(totals),
        update_s_max=max(totals),
        compile_s=max(0.0, median(m.updates[0].total_s - t for m, t in zip(measurements, totals, strict=True))),
        setup_s=median(m.setup_s for m in measurements),
        sequences_per_s=median(run[0].answers / total for run, total in zip(runs, totals, strict=True)),
        tokens_per_s=sum(update.answer_tokens for update in every) / seconds,
        mean_tokens=sum(update.answer_tokens for update in every) / sum(update.answers for update in every),
        score=sum(update.score for update in every) / len(every),
        peak_mib=median(m.peak_mib for m in measurements),
        imports_mib=median(m.imports_mib for m in measurements),
        optimizer_steps_per_update=median(m.optimizer_steps / len(m.updates) for m in measurements),
        late_graphs=max(m.graphs[-1] - m.graphs[0] for m in measurements),
    )


def ratio(ours: Row, trl: Row) -> Ratio:
    """Compare two contenders of one workload."""
    return Ratio(
        workload=ours.workload,
        contender=ours.contender,
        update=trl.update_s / ours.update_s,
        with_compilation=trl.run_s / ours.run_s,
        tokens=ours.tokens_per_s / trl.tokens_per_s,
        generate=trl.generate_s / ours.generate_s,
        score=trl.score_s / ours.score_s,
        train=trl.train_s / ours.train_s,
        peak_memory=ours.peak_mib / trl.peak_mib,
        peak_memory_above_imports=(ours.peak_mib - ours.imports_mib) / (trl.peak_mib - trl.imports_mib),
    )


def rows(measurements: Iterable[Measurement]) -> list[Row]:
    """Return one row per workload and contender, in the order in which they first ran."""
    groups: dict[tuple[str, str], list[Measurement]] = {}
    for measurement in measurements:
        groups.setdefault((measurement.workload, measurement.contender), []).append(measurement)
    return [row(group) for group in groups.values()]


def ratios(found: Sequence[Row]) -> list[Ratio]:
    """Compare every contender with TRL on the same workload, where TRL ran."""
    baselines = {r.workload: r for r in found if r.contender == BASELINE}
    return [ratio(r, baselines[r.workload]) for r in found if r.contender != BASELINE and r.workload in baselines]


def decoding_rows(decodings: Iterable[Decoding]) -> list[DecodingRow]:
    """Return one row per contender."""
    groups: dict[str, list[Decoding]] = {}
    for decoding in decodings:
        groups.setdefault(decoding.contender, []).append(decoding)
    speed = {name: median(median(run.tokens_per_s) for run in group) for name, group in groups.items()}
    return [
        DecodingRow(
            contender=name,
            runs=len(group),
            tokens_per_s=speed[name],
            warmup_s=median(run.warmup_s for run in group),
            mean_tokens=min(run.mean_tokens for run in group),
            bound_tokens_per_s=group[0].bound_tokens_per_s,
            ours_over_this=speed["ours"] / speed[name] if "ours" in speed else None,
        )
        for name, group in groups.items()
    ]


def table(found: Sequence[Row], compared: Sequence[Ratio], decoded: Sequence[DecodingRow]) -> str:
    """Return Markdown tables, as they go into the README."""
    lines = []
    if found:
        lines += [
            "| workload | contender | generate s | score s | train s | update s (min-max of runs) | compile s "
            "| sequences/s | tokens/s | mean length | steps | peak MiB (imports) | late graphs |",
            "|" + "---|" * 13,
        ]
    lines += [
        f"| {r.workload} | {r.contender} | {r.generate_s:.2f} | {r.score_s:.2f} | {r.train_s:.2f} "
        f"| {r.update_s:.2f} ({r.update_s_min:.2f}-{r.update_s_max:.2f}) | {r.compile_s:.1f} | {r.sequences_per_s:.2f} "
        f"| {r.tokens_per_s:.0f} | {r.mean_tokens:.1f} | {r.optimizer_steps_per_update:.0f} "
        f"| {r.peak_mib:.0f} ({r.imports_mib:.0f}) | {r.late_graphs} |"
        for r in found
    ]
    if compared:
        lines += [
            "",
            f"| workload | ours / TRL | update | with compilation, {RUN_OF} updates | tokens/s "
            "| generate | score | train | peak memory | above imports |",
            "|" + "---|" * 10,
        ]
    lines += [
        f"| {r.workload} | {r.contender} | {r.update:.2f}x | {r.with_compilation:.2f}x | {r.tokens:.2f}x "
        f"| {r.generate:.2f}x | {r.score:.2f}x | {r.train:.2f}x | {r.peak_memory:.2f} "
        f"| {r.peak_memory_above_imports:.2f} |"
        for r in compared
    ]
    if decoded:
        lines += ["", "| decoding alone | tokens/s | warm-up s | mean length | ours / this |", "|" + "---|" * 5]
    lines += [
        f"| {r.contender} | {r.tokens_per_s:.0f} | {r.warmup_s:.1f} | {r.mean_tokens:.1f} | {r.ours_over_this:.2f}x |"
        for r in decoded
        if r.ours_over_this is not None
    ]
    lines += [
        f"\nBandwidth bound of decoding: {r.bound_tokens_per_s:.0f} tokens/s; "
        f"ours is {r.bound_tokens_per_s / r.tokens_per_s:.2f}x below it."
        for r in decoded
        if r.contender == "ours" and r.bound_tokens_per_s is not None
    ]
    return "\n".join(lines)


def plot(found: Sequence[Row], compared: Sequence[Ratio], path: Path) -> None:
    """Draw seconds by phase for each contender, one panel per workload, with the ratio to TRL on the bar."""
    import matplotlib.pyplot as plt

    factor = {(r.workload, r.contender): r.update for r in compared}
    workloads = list(dict.fromkeys(r.workload for r in found))
    figure, panels = plt.subplots(1, len(workloads), figsize=(5 * len(workloads), 4), squeeze=False)
    for panel, workload in zip(panels[0], workloads, strict=True):
        bars = [r for r in found if r.workload == workload]
        names = [r.contender for r in bars]
        bottom = [0.0] * len(bars)
        for phase in PHASES:
            heights = [float(getattr(r, phase)) for r in bars]
            panel.bar(names, heights, bottom=bottom, label=phase.removesuffix("_s"))
            bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
        for position, (r, top) in enumerate(zip(bars, bottom, strict=True)):
            if (workload, r.contender) in factor:
                panel.annotate(f"{factor[workload, r.contender]:.2f}x", (position, top), ha="center", va="bottom")
        panel.set_title(f"workload {workload}")
        panel.set_ylabel("seconds per update")
        panel.margins(y=0.1)
        panel.tick_params(axis="x", rotation=30)
    panels[0][0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=150)
