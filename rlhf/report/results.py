"""The results.json contract, the sentences drawn from it, and the table that ends a run."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from rlhf.report.checks import bias_checks
from sft.core.durable import write_json
from sft.core.progress import marked
from sft.core.values import (
    Json,
    Quantity,
    counted,
    duration,
    mapping,
    number,
    percent,
    quantity,
    shown_interval,
    shown_value,
)


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """What one stage did."""

    name: str
    """`sft`, `labels`, `reward`, `ppo`, `evaluation` or `bias`."""
    artifact: str | None
    """Registry reference of its product; None where it has none."""
    fingerprint: str
    """Digest of everything that decides the product."""
    cached: bool
    """Whether the product was found and nothing was computed."""
    seconds: float
    """Wall time in this run."""
    train_steps: int
    """Optimiser steps in this run; 0 when cached."""
    metrics: Mapping[str, object] = field(default_factory=dict)
    """Name -> number, or `{value, ci, n}`; numbers that JSON lacks become null."""

    def as_dict(self) -> dict[str, object]:
        """Return the stage as results.json holds it."""
        return {
            "name": self.name,
            "artifact": self.artifact,
            "fingerprint": self.fingerprint,
            "cached": self.cached,
            "seconds": round(self.seconds, 3),
            "train_steps": self.train_steps,
            "metrics": self.metrics,
        }


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything results.json promises to scripts."""

    experiment: str
    run_id: str
    seed: int
    config_sha256: str
    stages: tuple[StageResult, ...]
    evaluation: Json
    """`win_rate`, `kl`, `reward_model_accuracy` and further named estimates; rates 0 to 1, KL in nats per sequence."""
    bias: Json
    """`passed` and `checks`."""
    registry: Mapping[str, str | None]
    """`sft`, `reward`, `policy` -> reference."""
    alias: str | None = None
    """What the policy is now called in the registry: `champion` or `candidate`."""

    def as_dict(self) -> dict[str, object]:
        """Return the contract as plain JSON; NaN and infinities become null."""
        return {
            "experiment": self.experiment,
            "run_id": self.run_id,
            "seed": self.seed,
            "config_sha256": self.config_sha256,
            "stages": [_plain_json(stage.as_dict()) for stage in self.stages],
            "evaluation": _plain_json(self.evaluation),
            "bias": _plain_json(self.bias),
            "registry": dict(self.registry),
            "alias": self.alias,
        }


def _plain_json(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_json(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_results(path: Path, results: Results) -> None:
    """Write results.json atomically. Raises StorageError when the disk refuses."""
    write_json(path, results.as_dict())


class Tone(StrEnum):
    """How a finding is to be read."""

    GOOD = "good"
    BAD = "bad"
    OPEN = "open"
    """Nothing was shown, one way or the other."""


class Finding(NamedTuple):
    """One headline number: `value` is shown large, `interval` and `n` beside it, `remark` says what it means."""

    label: str
    value: str
    interval: str
    n: int | None
    remark: str
    tone: Tone


_NOT_MEASURED = "not measured"


def findings(results: Json) -> list[Finding]:
    """Return the headline of a run from the contents of results.json, in reading order; nothing is left out.

    What an interval does not show is said to be not shown.
    """
    evaluation = mapping(results.get("evaluation"))
    return [
        _win_rate(quantity(evaluation.get("win_rate")), quantity(evaluation.get("judge_accuracy"))),
        _kl(quantity(evaluation.get("kl"))),
        _reward_accuracy(mapping(evaluation.get("reward_model_accuracy"))),
        _evaluation_gate(evaluation),
        _bias(mapping(results.get("bias"))),
    ]


def _absent(label: str, remark: str) -> Finding:
    return Finding(label, _NOT_MEASURED, "", None, remark, Tone.OPEN)


def _win_rate(rate: Quantity | None, judge: Quantity | None) -> Finding:
    label = "Win rate against SFT"
    if rate is None:
        return _absent(label, "this run did not compare the policy with its SFT model")
    if rate.interval is None:
        remark, tone = "no interval is known, so this shows nothing yet", Tone.OPEN
    elif judge is not None and not judge.above(0.5):
        known = f"right on {percent(judge.value)} {shown_interval(judge, rate=True)} of held-out labels"
        remark, tone = (
            f"shows nothing: the judge, a held-out reward model, is {known}, no better than a coin",
            Tone.OPEN,
        )
    elif rate.above(0.5):
        remark, tone = "better than the SFT model it started from", Tone.GOOD
    elif rate.below(0.5):
        remark, tone = "worse than the SFT model it started from", Tone.BAD
    else:
        remark, tone = (
            "no better than the SFT model, as far as this run can show: the interval includes 50 %",
            Tone.OPEN,
        )
    return Finding(label, percent(rate.value), shown_interval(rate, rate=True), rate.n, remark, tone)


def _kl(kl: Quantity | None) -> Finding:
    label = "KL to the reference"
    if kl is None:
        return _absent(label, "this run did not measure the distance from the reference model")
    remark = "nats per answer between policy and SFT model: how far PPO moved it"
    return Finding(label, shown_value(kl), shown_interval(kl, rate=False), kl.n, remark, Tone.OPEN)


def _reward_accuracy(fields: Json) -> Finding:
    label = "Reward model accuracy"
    accuracy = quantity(fields)
    if accuracy is None:
        return _absent(label, "this run did not test the reward model on held-out comparisons")
    verdict, tone = _against_baselines(accuracy, fields)
    remark = "; ".join(part for part in (verdict, _ceiling_text(accuracy, fields), _longer_text(fields)) if part)
    return Finding(label, percent(accuracy.value), shown_interval(accuracy, rate=True), accuracy.n, remark, tone)


def _against_baselines(accuracy: Quantity, fields: Json) -> tuple[str, Tone]:
    if accuracy.interval is None:
        return "no interval is known, so this shows nothing yet", Tone.OPEN
    if accuracy.below(0.5):
        return "worse than a coin", Tone.BAD
    if not accuracy.above(0.5):
        return "no better than a coin: the interval includes 50 %", Tone.BAD
    longer = _longer_wins(fields)
    if longer is None:
        return "better than a coin", Tone.GOOD
    if accuracy.above(longer.high if longer.high is not None else longer.value):
        return "better than choosing the longer answer", Tone.GOOD
    return "better than a coin, but not shown to be better than choosing the longer answer", Tone.OPEN


def _longer_wins(fields: Json) -> Quantity | None:
    return quantity({"value": fields.get("longer_wins"), "ci": fields.get("longer_wins_ci")})


def _ceiling_text(accuracy: Quantity, fields: Json) -> str:
    ceiling = number(fields.get("ceiling"))
    if not ceiling:
        return "the noise ceiling of these labels is not known"
    return f"{accuracy.value / ceiling:.2f} of the noise ceiling {percent(ceiling)}"


def _longer_text(fields: Json) -> str:
    longer = _longer_wins(fields)
    if longer is None:
        return ""
    return f"the longer answer wins {percent(longer.value)} {shown_interval(longer, rate=True)}".rstrip()


def _evaluation_gate(evaluation: Json) -> Finding:
    """Say why the gate lets a policy become champion or not; without a gate the file is an older program's."""
    label = "Evaluation gate"
    gate = mapping(evaluation.get("gate"))
    rate, limit = quantity(evaluation.get("win_rate")), number(gate.get("min_win_rate"))
    if rate is None or rate.low is None or limit is None:
        return _absent(label, "this run did not hold its win rate against a limit")
    low_end = f"the low end of the win rate's interval, {percent(rate.low)},"
    if gate.get("passed") is True:
        return Finding(label, "passed", "", None, f"{low_end} is above {percent(limit)}", Tone.GOOD)
    judge = quantity(evaluation.get("judge_accuracy"))
    reasons = [
        f"{low_end} is not above {percent(limit)} (evaluation.min_win_rate)" if rate.low <= limit else "",
        "the judge is not shown to be better than a coin" if judge is not None and not judge.above(0.5) else "",
    ]
    return Finding(label, "failed", "", None, "; ".join(reason for reason in reasons if reason), Tone.BAD)


def _bias(bias: Json) -> Finding:
    label = "Bias gate"
    checks = bias_checks(bias.get("checks"))
    if not checks:
        return _absent(label, "no bias check ran, so nothing is known")
    failed = [check for check in checks if not check.passed]
    count = counted(len(checks), "check")
    if bias.get("passed") is True:
        return Finding(
            label, "passed", "", None, f"{count}, none beyond its limit; not a safety certificate", Tone.GOOD
        )
    names = ", ".join(f"{check.name} ({check.group})" if check.group else check.name for check in failed)
    return Finding(label, "failed", "", None, f"{len(failed)} of {count} beyond the limit: {names}", Tone.BAD)


_STYLES = {Tone.GOOD: "green", Tone.BAD: "bold red", Tone.OPEN: "yellow"}


def summary_table(results: Results, *, mark: str = "") -> Table:
    """Return the table that ends a run: its stages, and below them what came out; `mark` stands in its title."""
    table = Table.grid(padding=(1, 0))
    table.add_row(_stage_table(results, mark))
    table.add_row(_finding_table(results))
    return table


def _stage_table(results: Results, mark: str) -> Table:
    title = Text(marked(mark, f"{results.experiment} · {results.run_id}"))
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("stage")
    table.add_column("result", overflow="fold")
    table.add_column("time", justify="right")
    table.add_column("steps", justify="right")
    for stage in results.stages:
        time = "cached" if stage.cached else duration(stage.seconds)
        table.add_row(Text(stage.name), Text(stage.artifact or "-"), time, str(stage.train_steps))
    return table


def _finding_table(results: Results) -> Table:
    table = Table(show_header=True)
    for name in ("result", "value", "95 % interval"):
        table.add_column(name)
    table.add_column("n", justify="right")
    table.add_column("what it means", overflow="fold")
    for found in findings(results.as_dict()):
        n = "" if found.n is None else str(found.n)
        value = Text(found.value, style=_STYLES[found.tone])
        table.add_row(Text(found.label), value, Text(found.interval), n, Text(found.remark))
    policy = results.registry.get("policy")
    if policy or results.alias:
        table.add_row("Policy", Text(results.alias or "-"), "", "", Text(policy or "not registered"))
    return table
