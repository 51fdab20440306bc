"""report.html: one page that loads nothing and runs nothing, drawn from results.json and the stages' own records.

All texts of models and data pass Jinja's autoescape, and characters that are invisible or turn the writing direction
are shown as `⟨U+202E⟩`. Whatever is missing is said to be missing.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from rlhf.report import plots
from rlhf.report.checks import BiasCheck, bias_checks
from rlhf.report.plots import Iteration, LossPoint, ReliabilityBin
from rlhf.report.results import Finding, Tone, findings
from sft.core.page import render_page
from sft.core.values import (
    Json,
    Quantity,
    duration,
    items,
    mapping,
    number,
    numbers,
    plain,
    quantity,
    shown_interval,
    text,
)

STAGES = ("sft", "labels", "reward", "ppo", "evaluation", "bias")
_TEMPLATE = Path(__file__).with_name("report.html.jinja")


class Metric(NamedTuple):
    """One line of a table of numbers, ready to print."""

    name: str
    value: str
    interval: str
    n: str


class StageRow(NamedTuple):
    """One line of the table of stages, ready to print."""

    name: str
    cached: bool
    time: str
    steps: str
    artifact: str
    fingerprint: str


class Answer(NamedTuple):
    """One side of a sample."""

    text: str
    reward: str
    gold: str
    won: bool


class Sample(NamedTuple):
    """A prompt and what both models answered."""

    prompt: str
    sft: Answer
    policy: Answer
    tie: bool


class CheckRow(NamedTuple):
    """One line of the table of bias checks, ready to print."""

    name: str
    group: str
    effect: str
    interval: str
    n: str
    limit: str
    passed: bool


class Section(NamedTuple):
    """One stage's part of the page: plots (each with a caption) and numbers; `present` is False when it did not run."""

    name: str
    title: str
    present: bool
    facts: list[str]
    plots: list[tuple[Markup, str]]
    metrics: list[Metric]


def metric(name: str, value: object) -> Metric | None:
    """Return a number or `{value, ci, n}` as a line of a table; None for anything else."""
    found = quantity(value)
    if found is None:
        return None
    n = "" if found.n is None else plain(found.n)
    return Metric(name, plain(found.value), shown_interval(found, rate=False), n)


def _metrics(fields: Json) -> list[Metric]:
    lines = (metric(name, value) for name, value in fields.items())
    return [line for line in lines if line is not None]


def _companions(name: str, fields: Json) -> list[Metric]:
    """Read the numbers inside an estimate that are numbers of their own; `x_ci` is the interval of `x`."""
    lines = []
    for key, value in fields.items():
        if key in ("value", "ci", "n"):
            continue
        known = {"value": value, "ci": fields.get(f"{key}_ci")} if number(value) is not None else value
        lines.append(metric(f"{name} · {key}", known))
    return [line for line in lines if line is not None]


def _with_interval(found: Quantity) -> str:
    interval = shown_interval(found, rate=False)
    n = "" if found.n is None else f"n {plain(found.n)}"
    detail = ", ".join(part for part in (f"95 % interval {interval}" if interval else "", n) if part)
    return f"{found.value:.3f}" + (f" ({detail})" if detail else "")


def _drawn(*pairs: tuple[str | None, str]) -> list[tuple[Markup, str]]:
    # Safe to mark: the SVG holds numbers and our own words only, never a text from data.
    return [(Markup(svg), caption) for svg, caption in pairs if svg is not None]


def _loss_points(stage: Json) -> list[LossPoint]:
    points = []
    for item in items(stage.get("loss")):
        step = number(item.get("step"))
        if step is not None:
            points.append(LossPoint(step, number(item.get("train")), number(item.get("validation"))))
    return points


def _sft(stage: Json) -> Section:
    loss = plots.loss_plot(_loss_points(stage), "sft-loss")
    caption = (
        "Loss per answer token. Validation prompts are never trained on; the checkpoint with the lowest point stays."
    )
    metrics = _metrics(mapping(stage.get("metrics")))
    return Section("sft", "Supervised fine-tuning", bool(stage), [], _drawn((loss, caption)), metrics)


def _labels(stage: Json) -> Section:
    facts = []
    agreement = quantity(stage.get("agreement"))
    if agreement is not None:
        facts.append(
            f"Agreement between annotators (Krippendorff's alpha): {_with_interval(agreement)}. "
            "1 is full agreement, 0 is what chance gives."
        )
    elif stage:
        facts.append(
            "Agreement between annotators is not known: no comparison was judged twice, or all judgements are alike."
        )
    counts = mapping(stage.get("metrics"))
    quarantined, rows_in = number(counts.get("quarantined")), number(counts.get("rows_in"))
    if quarantined is not None and rows_in:
        facts.append(f"{plain(quarantined)} of {plain(rows_in)} rows could not be used and were set aside.")
    for reason, count in mapping(stage.get("reasons")).items():
        amount = number(count)
        facts.append(f"Set aside: {reason} ({'?' if amount is None else plain(amount)})")
    return Section("labels", "Human labels", bool(stage), facts, [], _metrics(counts))


def _reward(stage: Json) -> Section:
    bins = [found for item in items(stage.get("reliability")) if (found := _bin(item)) is not None]
    ece = number(stage.get("ece"))
    calibration = "Each dot is a group of held-out comparisons, its size their number."
    if ece is not None:
        calibration += f" Expected calibration error after temperature scaling: {ece:.3f}."
    scores = mapping(stage.get("scores"))
    histogram = {side: numbers(scores.get(side)) for side in ("rejected", "chosen")}
    drawn = _drawn(
        (plots.loss_plot(_loss_points(stage), "reward-loss"), "Bradley-Terry loss; 0.693 is a coin."),
        (plots.reliability_plot(bins, "reward-reliability"), calibration),
        (
            plots.histogram_plot(histogram, "reward", "reward-scores"),
            "Held-out scores of the answers people chose and of those they rejected.",
        ),
    )
    facts = [
        f"The baseline “{name.replace('_', ' ')}” is right on {_with_interval(baseline)} of the held-out comparisons."
        for name, value in mapping(stage.get("baselines")).items()
        if (baseline := quantity(value)) is not None
    ]
    return Section("reward", "Reward model", bool(stage), facts, drawn, _metrics(mapping(stage.get("metrics"))))


def _bin(item: Json) -> ReliabilityBin | None:
    confidence, accuracy, n = (number(item.get(name)) for name in ("confidence", "accuracy", "n"))
    if confidence is None or accuracy is None or n is None:
        return None
    return ReliabilityBin(confidence, accuracy, n)


def _ppo(stage: Json) -> Section:
    rows = items(stage.get("iterations"))
    has_gold = any(number(row.get("gold")) is not None for row in rows)
    iterations = [_iteration(place, row, "gold" if has_gold else "judge") for place, row in enumerate(rows)]
    judged = [point for point in iterations if point.judged is not None]
    title = "gold reward (the truth of the simulated world)" if has_gold else "reward of a judge that PPO never saw"
    facts = []
    if judged:
        best = max(judged, key=lambda point: point.judged or 0.0)
        where = f"iteration {plain(best.iteration)} of {len(iterations)}"
        facts.append(
            f"The {'gold' if has_gold else 'judge'} reward was highest at {where}"
            + (f", at a KL of {best.kl:.1f} nats. " if best.kl is not None else ". ")
            + "Where it falls while the proxy reward rises, the policy exploits errors of the reward model."
        )
    elif rows:
        facts.append("No gold or judge reward is known here, so over-optimisation cannot be seen in this run.")
    drawn = _drawn(
        (plots.frontier_plot(iterations, title, "ppo-frontier"), "One dot per PPO iteration, later ones stronger."),
        (plots.course_plot(iterations, "ppo-course"), "The course of training."),
    )
    return Section("ppo", "PPO", bool(stage), facts, drawn, _metrics(mapping(stage.get("metrics"))))


def _iteration(place: int, row: Json, judged: str) -> Iteration:
    step = number(row.get("iteration"))
    return Iteration(
        iteration=float(place) if step is None else step,
        kl=number(row.get("kl")),
        proxy=number(row.get("reward")),
        judged=number(row.get(judged)),
        length=number(row.get("length")),
        entropy=number(row.get("entropy")),
    )


def _evaluation(stage: Json, evaluation: Json) -> Section:
    rewards = mapping(stage.get("rewards"))
    histogram = {label: numbers(rewards.get(key)) for label, key in (("SFT", "sft"), ("policy", "policy"))}
    drawn = _drawn(
        (
            plots.histogram_plot(histogram, "reward", "evaluation-rewards"),
            "Rewards of both models' answers to held-out prompts, by the reward model that PPO maximised.",
        )
    )
    # The accuracy's companions (ceiling, baselines) are numbers of their own.
    lines = _metrics(evaluation)
    lines += _companions("reward_model_accuracy", mapping(evaluation.get("reward_model_accuracy")))
    known = {line.name for line in lines}
    lines += [line for line in _metrics(mapping(stage.get("metrics"))) if line.name not in known]
    return Section("evaluation", "Evaluation on held-out prompts", bool(stage or evaluation), [], drawn, lines)


def _bias(stage: Json, checks: list[BiasCheck]) -> Section:
    drawn = _drawn((plots.bias_plot(checks, "bias-effects"), "Rows are numbered as in the table."))
    return Section("bias", "Bias checks", bool(checks), [], drawn, _metrics(mapping(stage.get("metrics"))))


def _check_row(check: BiasCheck) -> CheckRow:
    estimate = Quantity(check.effect or 0.0, check.low, check.high)
    return CheckRow(
        name=check.name,
        group=check.group,
        effect="unknown" if check.effect is None else f"{check.effect:+.3f}",
        interval=shown_interval(estimate, rate=False),
        n="" if check.n is None else plain(check.n),
        limit="" if check.limit is None else plain(check.limit),
        passed=check.passed,
    )


def _samples(stage: Json) -> list[Sample]:
    return [_sample(item) for item in items(stage.get("samples"))]


def _sample(item: Json) -> Sample:
    winner = text(item.get("winner"))
    return Sample(text(item.get("prompt")), _answer(item, "sft"), _answer(item, "policy"), winner == "tie")


def _answer(item: Json, side: str) -> Answer:
    reward, gold = number(item.get(f"{side}_reward")), number(item.get(f"{side}_gold"))
    return Answer(
        text=text(item.get(side)),
        reward="" if reward is None else f"{reward:.2f}",
        gold="" if gold is None else f"{gold:.2f}",
        won=item.get("winner") == side,
    )


def _stage_row(item: Json) -> StageRow:
    seconds, steps = number(item.get("seconds")), number(item.get("train_steps"))
    return StageRow(
        name=text(item.get("name")),
        cached=item.get("cached") is True,
        time="" if seconds is None else duration(seconds),
        steps="" if steps is None else plain(steps),
        artifact=text(item.get("artifact")),
        fingerprint=text(item.get("fingerprint"))[:12],
    )


def _headline(results: Json, found: list[Finding]) -> tuple[str, Tone]:
    win_rate, *_, bias = found
    if win_rate.tone is Tone.GOOD:
        verdict = "The policy beats the SFT model it started from"
    elif win_rate.tone is Tone.BAD:
        verdict = "The policy is worse than the SFT model it started from"
    else:
        verdict = "The policy was not shown to be better than the SFT model it started from"
    ending = {
        Tone.GOOD: "no bias check exceeded its limit.",
        Tone.BAD: "the bias gate failed.",
        Tone.OPEN: "bias was not checked.",
    }[bias.tone]
    opposed = (win_rate.tone is Tone.GOOD) != (bias.tone is Tone.GOOD)
    joint = "but" if opposed else "and"
    tone = Tone.BAD if Tone.BAD in (win_rate.tone, bias.tone) else win_rate.tone
    return f"{verdict}, {joint} {ending}", tone


def _lineage(registry: Json) -> list[tuple[str, str]]:
    order = ("sft", "reward", "policy")
    names = [*order, *(name for name in registry if name not in order)]
    return [(name, text(registry.get(name))) for name in names if registry.get(name)]


def render(results: Json, stages: Mapping[str, Json]) -> str:
    """Return the whole page.

    Args:
        results: contents of results.json (`Results.as_dict()`).
        stages: stage name -> its stage.json; any stage and any part of one may be missing.
    """
    found = findings(results)
    bias = mapping(results.get("bias"))
    checks = bias_checks(bias.get("checks")) or bias_checks(mapping(stages.get("bias")).get("checks"))
    stage = {name: mapping(stages.get(name)) for name in STAGES}
    headline, tone = _headline(results, found)
    values = {
        "experiment": text(results.get("experiment")),
        "run_id": text(results.get("run_id")),
        "seed": text(results.get("seed")),
        "config_sha256": text(results.get("config_sha256"))[:12],
        "alias": text(results.get("alias")),
        "headline": headline,
        "tone": tone.value,
        "findings": found,
        "stage_rows": [_stage_row(item) for item in items(results.get("stages"))],
        "lineage": _lineage(mapping(results.get("registry"))),
        "sections": [
            _evaluation(stage["evaluation"], mapping(results.get("evaluation"))),
            _ppo(stage["ppo"]),
            _reward(stage["reward"]),
            _bias(stage["bias"], checks),
            _labels(stage["labels"]),
            _sft(stage["sft"]),
        ],
        "checks": [_check_row(check) for check in checks],
        "samples": _samples(stage["evaluation"]),
    }
    return render_page(_TEMPLATE, values)
