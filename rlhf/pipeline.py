"""One experiment from data to a registered, evaluated, bias-checked policy.

Only this file, the stages it calls and cli.py write the registry. Models are imported inside the stages, so that a run
whose stages are all cached never loads torch.
"""

import math
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rlhf import schema
from rlhf.config import ExperimentConfig
from rlhf.labels.trust.quality import Preference
from rlhf.marks import mark
from rlhf.registry import CANDIDATE, CHAMPION, Artifact, Registry, Verdict
from rlhf.report import Results, StageResult, render, write_results
from rlhf.run import Done, Run
from rlhf.runs import Asked, StageRecord, State, naming
from rlhf.runs.journal import Journal, journal
from rlhf.search.config import Objective
from rlhf.sources import Sources
from rlhf.stages.bias import run_bias
from rlhf.stages.evaluation import run_evaluation
from rlhf.stages.labels import run_labels
from rlhf.stages.people import Waiting, run_people
from rlhf.stages.ppo import follow_ppo, run_ppo
from rlhf.stages.reward import Scorers, run_reward
from rlhf.stages.sft import run_sft
from rlhf.trial import TrialResult, trial_result
from sft.core.config import raise_problems
from sft.core.durable import json_digest, write_json, write_text
from sft.core.errors import Interrupted, Pruned, RLHFError
from sft.core.tracking import RunTracker
from sft.core.world import ALONE, World, check_world
from sft.split import Splits

if TYPE_CHECKING:
    from sft.core.distributed import Peers

LAST_ORDER_S = 60.0
"""How long a process that lost the others waits for rank 0 to say how it ended."""


@dataclass(frozen=True)
class Awaited:
    """A run that stopped because people must label first; the same command carries on."""

    experiment: str
    run_id: str
    seed: int
    stages: tuple[StageResult, ...]
    """Those that are finished."""
    waiting: Waiting

    def as_dict(self) -> dict[str, object]:
        """Return results.json: the finished stages, and the stage that waits, with what it waits for."""
        return {
            "experiment": self.experiment,
            "run_id": self.run_id,
            "seed": self.seed,
            "state": "waiting",
            "stages": [stage.as_dict() for stage in self.stages],
            "waiting": {"stage": "labels", **self.waiting.as_dict()},
        }

    def message(self) -> str:
        """Return what is missing and what to do, for a person."""
        asked = self.waiting
        return (
            f"labels: waiting for people. {asked.wanted - asked.labels} of {asked.wanted} labels are missing in "
            f"project {asked.project}, round {asked.round}.\nStart the page:   {asked.command}\n"
            "Then carry on with the same command as before; fewer labels do with labels.min_labels=N."
        )


def check_processes(config: ExperimentConfig, world: World) -> None:
    """Raise ConfigError with every reason why these processes cannot run the experiment together."""
    check_world(world, config.runtime)
    if world.size > 1:
        from rlhf.ppo.sharding import division_problems

        raise_problems(division_problems(config.ppo, config.runtime, world))


def follow(peers: "Peers") -> int:
    """Take part in what rank 0 orders until it ends, and return its exit code.

    Raises:
        PeerError: rank 0 has died.
    """
    from sft.core.distributed import PeerError

    patience_s = math.inf
    while "exit_code" not in (order := peers.listen(at_most_s=patience_s)):
        patience_s = math.inf
        try:
            follow_ppo(peers)
        except Interrupted:
            continue
        except RLHFError as error:
            print(f"rank {peers.world.rank}: {error}", file=sys.stderr, flush=True)
            patience_s = LAST_ORDER_S if isinstance(error, PeerError) else math.inf
    return int(order["exit_code"])


def run_experiment(
    config: ExperimentConfig,
    *,
    experiment: str,
    out_dir: Path,
    peers: "Peers | None" = None,
    asked: Asked | None = None,
) -> Results | Awaited | TrialResult:
    """Run all stages that are not in the registry yet, and write results.json and report.html.

    Where people must label first, results.json says what is missing, and the same command later carries on. A trial of
    a search runs the stages that its objectives need, on validation data, and promotes nothing.

    Args:
        config: the whole experiment.
        experiment: its name in results, reports and W&B.
        out_dir: run folder; gets run.json, results.json, report.html, the metric ledger and W&B's files.
        peers: the processes that `follow`; None for a run of one.
        asked: what the command line asked for, for run.json; None in plain Python.

    Raises:
        RLHFError: with what to do next; finished stages stay in the registry, the same command carries on.
    """
    world = ALONE if peers is None else peers.world
    check_processes(config, world)
    with journal(
        out_dir,
        experiment=experiment,
        run_id=f"{experiment}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}",
        config=schema.to_tree(config),
        seed=config.seed,
        registry=config.registry.root,
        asked=asked or Asked(),
        processes=world.size,
    ) as kept:
        return _run_stages(config, kept, peers)


def _run_stages(config: ExperimentConfig, kept: Journal, peers: "Peers | None") -> Results | Awaited | TrialResult:
    experiment, run_id, out_dir = kept.record.experiment, kept.record.run_id, kept.folder
    tracker = RunTracker(
        out_dir,
        run_id=run_id,
        experiment=experiment,
        label=naming.label(kept.record.asked, experiment),
        group=naming.group(kept.record.asked, experiment),
        mode=config.wandb.mode,
        project=config.wandb.project,
        entity=config.wandb.entity,
        config=schema.to_tree(config),
        about=naming.about(kept.record.asked, run_id),
        tags=[experiment, *naming.revision_tags(kept.record.revision)],
        mark=mark(kept.record.asked, experiment, out_dir),
        log_samples=config.wandb.log_samples,
        log_artifacts=config.wandb.log_artifacts,
    )
    registry = Registry(Path(config.registry.root), url=config.registry.url, announce=tracker.note)
    with registry.in_use(), tracker:
        run = Run(config, registry, tracker, Sources(config, out_dir), peers, on_finish=partial(_keep, kept))
        if config.search.is_trial:
            return _run_trial(run, kept)
        sft = run_sft(run)
        found = train_rounds(run, sft)
        if isinstance(found, Waiting):
            awaited = Awaited(experiment, run_id, config.seed, tuple(run.stages.values()), found)
            write_json(out_dir / "results.json", awaited.as_dict())
            kept.end(State.WAITING)
            return awaited
        policy, scorers, splits = found
        evaluation = run_evaluation(run, sft, scorers, policy)
        bias = run_bias(run, sft, scorers.reward, policy, splits)
    measured = _evaluation(evaluation, scorers.report, config.evaluation.min_win_rate)
    verdicts = (
        Verdict(evaluation.artifact.ref, "evaluation", evaluation.stage["passed"] is True),
        Verdict(bias.artifact.ref, "bias", bias.stage["passed"] is True),
    )
    computed = not (policy.cached and evaluation.cached and bias.cached)
    alias = name_policy(registry, policy.artifact, verdicts, computed=computed, asked_by=run_id)
    results = Results(
        experiment=experiment,
        run_id=run_id,
        seed=config.seed,
        config_sha256=json_digest(schema.to_tree(config)),
        stages=tuple(run.stages.values()),
        evaluation=measured,
        bias={key: bias.stage[key] for key in ("passed", "checks", "skipped", "suite")},
        registry={
            "sft": sft.artifact.ref,
            "reward": scorers.reward.artifact.ref,
            "policy": policy.artifact.ref,
        },
        alias=alias,
    )
    write_results(out_dir / "results.json", results)
    write_text(out_dir / "report.html", render(results.as_dict(), run.reports))
    return results


def _run_trial(run: Run, kept: Journal) -> TrialResult:
    """Go as far as the objectives need; the search may end the training on the way."""
    pruned = None
    try:
        _train_and_measure(run)
    except Pruned as stop:
        pruned = str(stop)
    result = trial_result(run, kept.record.experiment, kept.record.run_id, kept.folder, pruned=pruned)
    write_json(kept.folder / "results.json", result.as_dict())
    if pruned is not None:
        kept.end(State.PRUNED, pruned)
    return result


def _train_and_measure(run: Run) -> None:
    search = run.config.search
    sft = run_sft(run)
    if not search.needs_reward:
        return
    if not search.needs_policy:
        labels, preferences = run_labels(run)
        run_reward(run, sft, labels, run.sources.split_preferences(preferences))
        return
    trained = train_rounds(run, sft)
    assert isinstance(trained, Trained), "checked by ExperimentConfig: a trial asks nobody"
    run_evaluation(run, sft, trained.scorers, trained.policy)
    if Objective.WORST_BIAS in search.objectives:
        run_bias(run, sft, trained.scorers.reward, trained.policy, trained.splits)


def _keep(kept: Journal, stage: StageResult, report: dict[str, object]) -> None:
    record = StageRecord(
        stage.name, stage.artifact, stage.fingerprint, stage.cached, round(stage.seconds, 3), stage.train_steps
    )
    kept.stage_done(record, report)


class Trained(NamedTuple):
    """What the last round leaves."""

    policy: Done
    scorers: Scorers
    splits: Splits[Preference]


def train_rounds(run: Run, sft: Done) -> Trained | Waiting:
    """Label, train the reward model and run PPO, once or in rounds.

    Each round starts from the policy so far, and stays near the SFT model.
    """
    labelled = run.config.labels
    policy, project = sft, None
    for number in range(1, labelled.rounds + 1):
        run.suffix = f"-{number}" if number < labelled.rounds else ""
        if labelled.asks_people:
            project, waiting = run_people(run, policy, number, project)
            if waiting is not None:
                return waiting
        labels, preferences = run_labels(run)
        splits = run.sources.split_preferences(preferences)
        scorers = run_reward(run, sft, labels, splits)
        policy = run_ppo(run, sft, scorers, start=policy)
    return Trained(policy, scorers, splits)


def _evaluation(evaluation: Done, report: Done, min_win_rate: float) -> dict[str, Any]:
    measured, reward = evaluation.stage["metrics"], report.stage["metrics"]
    assert isinstance(measured, dict)
    assert isinstance(reward, dict)
    found = {**measured, "reward_model_accuracy": reward["accuracy"], "reward_model_ece": reward["ece"]}
    if "judge_accuracy" in reward:
        found["judge_accuracy"] = reward["judge_accuracy"]
    found["gate"] = {"passed": evaluation.stage["passed"], "min_win_rate": min_win_rate}
    return found


def name_policy(
    registry: Registry, policy: Artifact, verdicts: Sequence[Verdict], *, computed: bool, asked_by: str
) -> str:
    """Give a policy the alias that it earned, and take the other one from it; return the alias.

    A run that computed nothing takes no alias away from a newer version, and leaves what somebody forced.
    """
    alias = CHAMPION if all(verdict.passed for verdict in verdicts) else CANDIDATE
    before = [kept for kept in registry.promotions(policy) if kept.alias in (CHAMPION, CANDIDATE)]
    if before and before[-1].reason is not None and not computed:
        return before[-1].alias
    registry.drop_alias(policy, CANDIDATE if alias == CHAMPION else CHAMPION)
    holders = [found for found in registry.artifacts(policy.name) if alias in found.aliases]
    if computed or all(holder.version <= policy.version for holder in holders):
        registry.promote(policy, alias, asked_by=asked_by, verdicts=verdicts)
    return alias
