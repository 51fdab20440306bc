"""Stage `evaluation`: the policy against the SFT model on held-out prompts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rlhf import schema
from rlhf.registry import Artifact
from rlhf.run import Built, Done, Run, digest_of, shown
from rlhf.stages.reward import Scorers
from sft.core.durable import json_digest
from sft.core.text import Conversation, as_dicts
from sft.core.tracking import Tracker

RECORD = 2
"""Raised when the stage reports more than before, so that it alone runs again; 2: every answer's judged score."""


def run_evaluation(run: Run, sft: Done, scorers: Scorers, policy: Done) -> Done:
    """Let the gold utility, or the judge where no gold is known, decide between policy and SFT model.

    In a search the judge decides: what is known in a simulated world alone must not choose settings.
    """
    by_gold = run.sources.is_simulated and not run.config.search.is_trial
    prompts, held_out = run.sources.prompts.held_out, run.sources.demonstrations.held_out
    kind = run.report_kind("evaluation")
    models = {"sft": sft, "reward": scorers.reward, "policy": policy}
    if scorers.judge is not None:
        models["judge"] = scorers.judge
    inputs = {name: done.artifact.fingerprint for name, done in models.items()}
    inputs |= {"prompts": json_digest([as_dicts(p) for p in prompts]), "held_out": digest_of(held_out)}
    settings = {"evaluation": schema.to_tree(run.config.evaluation), "record": RECORD} | run.sampling_settings()
    parents: list[tuple[str, Artifact]] = [(name, done.artifact) for name, done in models.items()]

    def build(folder: Path, tracker: Tracker) -> Built:
        from rlhf.evaluation import evaluate_policy

        result = evaluate_policy(
            run.config.evaluation,
            policy=policy.path,
            sft=sft.path,
            reward=scorers.reward.path,
            judge=run.sources.gold if by_gold else _load_judge(run, scorers),
            prompts=prompts,
            held_out=held_out,
            limits=run.sampling_limits,
            temperature=run.config.ppo.temperature,
            runtime=run.config.runtime,
            seed=run.config.seed,
            tracker=tracker,
            gold=run.sources.gold if run.sources.is_simulated else None,
        )
        columns = list(result.samples[0]) if result.samples else []
        tracker.table("samples", columns, [list(row.values()) for row in result.samples])
        judge = "gold" if by_gold else "held-out reward model"
        judge_sha256 = None if by_gold or scorers.judge is None else scorers.judge.artifact.sha256
        metrics = shown(result.estimates) | {"judge": judge}
        stage: dict[str, object] = {
            "metrics": metrics,
            "passed": passes_evaluation(metrics | _judge_accuracy(scorers), run.config.evaluation.min_win_rate),
            "samples": result.samples,
            "rewards": result.rewards,
            "scores": {"judge": judge, "judge_sha256": judge_sha256, "prompts": result.prompts, **result.judged},
        }
        return Built(folder, stage, 0, run.device())

    done = run.produce("evaluation", kind, run.fingerprint(kind, settings, inputs), parents, build)
    run.finish("evaluation", done)
    return done


def passes_evaluation(measured: Mapping[str, Any], min_win_rate: float) -> bool:
    """Tell whether the policy wins for sure, in the eyes of a judge who knows better than a coin.

    The low end of the win rate's interval must lie above the limit, and so must that of a held-out reward model's
    own accuracy above one half; the gold utility needs no such proof.
    """
    judge = measured.get("judge_accuracy")
    judge_knows = judge is None or judge["ci"][0] > 0.5
    return bool(judge_knows and measured["win_rate"]["ci"][0] > min_win_rate)


def _judge_accuracy(scorers: Scorers) -> dict[str, object]:
    metrics = scorers.report.stage["metrics"]
    assert isinstance(metrics, dict)
    return {name: value for name, value in metrics.items() if name == "judge_accuracy"}


class _Judge:
    """The held-out reward model, loaded once."""

    def __init__(self, run: Run, folder: Path) -> None:
        from reward.model import RewardModel
        from sft.model import torch_device

        self.model = RewardModel.load(
            folder,
            device=torch_device(run.config.runtime),
            dtype=run.config.runtime.dtype,
            max_prompt_tokens=run.limits.prompt,
        )

    def __call__(self, pairs: Sequence[tuple[Conversation, str]]) -> npt.NDArray[np.float64]:
        return self.model.score_texts(pairs)


def _load_judge(run: Run, scorers: Scorers) -> _Judge:
    assert scorers.judge is not None, "checked by ExperimentConfig: real data and searches need reward.judge_fraction"
    return _Judge(run, scorers.judge.path)
