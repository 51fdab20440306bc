"""Stage `reward`: SFT model and comparisons in, calibrated reward model and its held-out report out."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from reward.data import Comparison
from rlhf import schema
from rlhf.labels.trust.quality import Preference
from rlhf.registry import CHECKPOINTS, Artifact
from rlhf.run import Built, Done, Run, digest_of
from rlhf.stages.sft import CHANGES_NOTHING, MODEL
from sft.core.errors import DataError
from sft.core.statistics import clustered_mean
from sft.core.text import prompt_key
from sft.core.tracking import Tracker
from sft.split import Splits, fraction_of


class Scorers(NamedTuple):
    """The reward model that PPO uses, the judge that it never sees (None without one), and the report on both."""

    reward: Done
    judge: Done | None
    report: Done


class Parts(NamedTuple):
    """Comparisons by use. The judge's training prompts are none of the reward model's."""

    reward: list[Preference]
    judge: list[Preference]
    validation: list[Preference]
    held_out: list[Preference]
    """On test prompts; in a search on validation prompts."""


def divide(splits: Splits[Preference], judge_fraction: float) -> Parts:
    """Divide the training prompts between reward model and judge."""
    for_judge = [fraction_of(p.prompt, salt="judge") < judge_fraction for p in splits.train]
    pairs = list(zip(splits.train, for_judge, strict=True))
    return Parts([p for p, j in pairs if not j], [p for p, j in pairs if j], splits.validation, splits.held_out)


def as_comparisons(preferences: Sequence[Preference]) -> list[Comparison]:
    """Return preferences as what the reward model trains on."""
    return [Comparison(p.prompt, p.chosen, p.rejected) for p in preferences]


def run_reward(run: Run, sft: Done, labels: Done, splits: Splits[Preference]) -> Scorers:
    """Train the reward model (or take the one that `reward.from` names) and a judge; measure both on held-out prompts.

    Raises:
        DataError: no comparison is on a held-out prompt; nothing was trained then.
    """
    config = run.config.reward
    parts = divide(splits, config.judge_fraction)
    if not parts.held_out:
        raise DataError(
            f"none of the {sum(map(len, parts))} comparisons is on a held-out prompt, so no reward model can be "
            "measured; give more labels (more prompts, fewer ties), or raise data.test_fraction"
        )
    if config.from_ is not None:
        reward = run.adopt("reward", config.from_)
    else:
        reward = _train(run, "reward", sft, labels, parts.reward, parts.validation)
    judge = _train(run, "judge", sft, labels, parts.judge, parts.validation) if config.judge_fraction else None
    report = _report(run, reward, judge, labels, parts)
    run.finish("reward", report, artifact=reward.artifact, extra=[reward, *([judge] if judge else [])])
    return Scorers(reward, judge, report)


def _train(run: Run, kind: str, sft: Done, labels: Done, train: list[Preference], validation: list[Preference]) -> Done:
    inputs = {"sft": sft.artifact.fingerprint, "comparisons": labels.artifact.fingerprint}
    inputs |= {"train": digest_of(train), "validation": digest_of(validation)}
    references = run.sources.demonstrations.validation
    settings = {
        name: value
        for name, value in schema.to_tree(run.config.reward).items()
        if name not in ("from", "judge_fraction", *CHANGES_NOTHING)
    }
    fingerprint = run.fingerprint(kind, settings, inputs | {"references": digest_of(references)})

    def build(folder: Path, tracker: Tracker) -> Built:
        from reward.train import train_reward
        from sft.core.checkpoint import Saving

        result = train_reward(
            run.config.reward,
            sft=sft.path,
            train=as_comparisons(train),
            validation=as_comparisons(validation),
            references=references,
            limits=run.limits,
            runtime=run.config.runtime,
            seed=run.config.seed + (kind == "judge"),
            out_dir=folder / MODEL,
            tracker=tracker,
            saving=Saving(folder / CHECKPOINTS, fingerprint, run.config.resume.allow),
        )
        return Built(result.checkpoint, {"metrics": result.metrics, "loss": result.loss}, result.steps, run.device())

    return run.produce("reward", kind, fingerprint, [("sft", sft.artifact), ("comparisons", labels.artifact)], build)


def _report(run: Run, reward: Done, judge: Done | None, labels: Done, parts: Parts) -> Done:
    models = {"reward": reward} | ({"judge": judge} if judge else {})
    inputs = {name: done.artifact.fingerprint for name, done in models.items()}
    inputs |= {
        "train": digest_of(parts.reward),
        "test": digest_of(parts.held_out),
        "comparisons": labels.artifact.fingerprint,
    }
    parents: list[tuple[str, Artifact]] = [(name, done.artifact) for name, done in models.items()]

    def build(folder: Path, tracker: Tracker) -> Built:
        return Built(folder, _assess(run, models, parts, tracker), 0, run.device())

    fingerprint = run.fingerprint("reward-report", {}, inputs)
    return run.produce("reward", "reward-report", fingerprint, [*parents, ("comparisons", labels.artifact)], build)


def _assess(run: Run, models: dict[str, Done], parts: Parts, tracker: Tracker) -> dict[str, object]:
    from reward.evaluate import assess
    from reward.model import RewardModel
    from sft.model import torch_device

    device = torch_device(run.config.runtime)
    test = as_comparisons(parts.held_out)
    tracker.start(len(models), "model")
    found = {}
    for number, (name, done) in enumerate(models.items()):
        model = RewardModel.load(
            done.path, device=device, dtype=run.config.runtime.dtype, max_prompt_tokens=run.limits.prompt
        )
        found[name] = assess(model, train=as_comparisons(parts.reward), test=test, seed=run.config.seed)
        tracker.log(number + 1, {"accuracy": found[name].accuracy.value})
    report = found["reward"]
    tracker.lines(
        "reliability",
        "Reliability of the reward model on held-out pairs",
        "confidence",
        {"measured": [(bar.confidence, bar.accuracy) for bar in report.reliability], "perfect": [(0.5, 0.5), (1, 1)]},
    )
    accuracy: dict[str, object] = report.accuracy.as_dict() | {
        "ceiling": _ceiling(run, parts.held_out),
        "longer_wins": report.longer_wins.value,
        "longer_wins_ci": list(report.longer_wins.ci),
        "bag_of_words": report.bag_of_words.value,
        "bag_of_words_ci": list(report.bag_of_words.ci),
    }
    metrics: dict[str, object] = dict(models["reward"].stage["metrics"])  # type: ignore[call-overload]
    metrics |= {"accuracy": accuracy, "ece": report.ece}
    if "judge" in found:
        metrics["judge_accuracy"] = found["judge"].accuracy.as_dict()
    return {
        "metrics": metrics,
        "loss": models["reward"].stage.get("loss", []),
        "reliability": [bar._asdict() for bar in report.reliability],
        "ece": report.ece,
        "scores": {"chosen": report.chosen_scores, "rejected": report.rejected_scores},
        "baselines": {
            "longer_wins": report.longer_wins.as_dict(),
            "bag_of_words": report.bag_of_words.as_dict(),
        },
    }


def _ceiling(run: Run, rows: Sequence[Preference]) -> float | None:
    """Return how often the gold utility itself agrees with the labels of the rows; None where it is unknown."""
    if not run.sources.is_simulated:
        return None
    gold = run.sources.gold
    margins = gold([(p.prompt, p.chosen) for p in rows]) - gold([(p.prompt, p.rejected) for p in rows])
    agreement = 0.5 + 0.5 * np.sign(margins)
    return clustered_mean(agreement, [prompt_key(p.prompt) for p in rows], seed=run.config.seed).value
