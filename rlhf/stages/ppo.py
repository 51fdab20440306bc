"""Stage `ppo`: SFT model, reward model, prompts and perhaps a policy to start from in, policy and critic out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rlhf import schema
from rlhf.registry import CHECKPOINTS, Artifact
from rlhf.run import Built, Done, Run
from rlhf.stages.reward import Scorers
from sft.core.durable import json_digest
from sft.core.text import Conversation, Message, TokenLimits, as_dicts
from sft.core.tracking import NullTracker, Tracker
from sft.core.world import ALONE, World

if TYPE_CHECKING:
    from rlhf.ppo.train import Gold, PPOResult
    from sft.core.distributed import Peers

CHANGES_NOTHING = ("save_steps", "reward_models")
"""Settings that leave the policy's bits as they are, or stand among the inputs."""


def run_ppo(run: Run, sft: Done, scorers: Scorers, *, start: Done | None = None) -> Done:
    """Train the policy, and register it with its critic.

    Args:
        run: in progress.
        sft: the model that the KL is to.
        scorers: reward model and judge.
        start: what the policy starts as, such as that of the round before; None: the SFT model.
            Source: Bai et al. 2022, arXiv 2204.05862, section 4.5, and Dong et al. 2024, arXiv 2405.07863, whose
            reference is the first model in every round: one that moved along would let the policy drift on.
    """
    config = run.config.ppo
    members = [scorers.reward, *(run.adopt("reward", source) for source in config.reward_models)]
    judge = scorers.judge if config.eval_steps is not None else None
    prompts, validation = run.sources.prompts.train, run.sources.prompts.validation
    inputs = {"sft": sft.artifact.fingerprint, "prompts": _digest(prompts)}
    inputs |= {f"reward-{number}": member.artifact.fingerprint for number, member in enumerate(members)}
    parents: list[tuple[str, Artifact]] = [(sft.artifact.kind, sft.artifact)]
    elsewhere = None if start is None or start.artifact.fingerprint == sft.artifact.fingerprint else start
    if elsewhere is not None:
        inputs |= {"start": elsewhere.artifact.fingerprint}
        parents.append(("start", elsewhere.artifact))
    parents += [("reward", member.artifact) for member in members]
    if judge is not None:
        inputs |= {"judge": judge.artifact.fingerprint, "validation": _digest(validation)}
        parents.append(("judge", judge.artifact))
    settings = {name: value for name, value in schema.to_tree(config).items() if name not in CHANGES_NOTHING}
    fingerprint = run.fingerprint("policy", settings, inputs)

    def gold(asked: Sequence[Conversation], answers: Sequence[str]) -> list[float]:
        return [float(u) for u in run.sources.gold(list(zip(asked, answers, strict=True)))]

    def build(folder: Path, tracker: Tracker) -> Built:
        task = Task(
            experiment=schema.to_tree(run.config),
            sft=str(sft.path),
            start=None if elsewhere is None else str(elsewhere.path),
            rewards=[str(member.path) for member in members],
            prompts=[as_dicts(prompt) for prompt in prompts],
            validation=[as_dicts(prompt) for prompt in validation],
            judge=None if judge is None else str(judge.path),
            folder=str(folder),
            fingerprint=fingerprint,
        )
        tracker.note(_memory(run, task))
        result = _lead(run.peers, task, tracker, gold if run.sources.is_simulated else None)
        stage: dict[str, object] = {"metrics": result.metrics, "iterations": result.iterations}
        tracker.lines("kl_reward", "Reward against KL to the reference", "kl, nats per answer", _frontier(result))
        critic = json_digest({"critic of": fingerprint})
        run.register("critic", critic, parents, Built(result.critic, {"metrics": {}}, 0, run.device()))
        return Built(result.checkpoint, stage, result.steps, run.device())

    done = run.produce("ppo", "policy", fingerprint, parents, build)
    run.finish("ppo", done)
    return done


def _frontier(result: "PPOResult") -> dict[str, list[tuple[float, float]]]:
    """Return proxy reward, and gold utility where it is known, against KL, by KL."""
    measured = {
        name: [(row["kl"], row[column]) for row in result.iterations]
        for name, column in (("proxy reward", "reward"), ("gold utility", "gold"))
    }
    return {
        name: sorted((kl, value) for kl, value in pairs if kl is not None and value is not None)
        for name, pairs in measured.items()
    }


def _memory(run: Run, task: "Task") -> str:
    """Return the planned memory as a table, or raise ConfigError where it cannot fit."""
    import torch

    from rlhf.memory import checked_plan
    from sft.model import torch_device

    device = torch_device(run.config.runtime)
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    judge = None if task.judge is None else Path(task.judge)
    return checked_plan(run.config, Path(task.sft), [Path(reward) for reward in task.rewards], judge, gpu_free=free)


class Task(NamedTuple):
    """What a process needs to take part in the training: JSON values, which rank 0 sends to the others."""

    experiment: dict[str, object]
    """The whole configuration."""
    sft: str
    start: str | None
    """None: the SFT model."""
    rewards: list[str]
    prompts: list[list[dict[str, str]]]
    validation: list[list[dict[str, str]]]
    judge: str | None
    folder: str
    """Where rank 0 writes, and all read checkpoints."""
    fingerprint: str


def _lead(peers: "Peers | None", task: Task, tracker: Tracker, gold: "Gold | None") -> "PPOResult":
    """Train alone, or with the other processes of this run."""
    if peers is None:
        return _train(task, tracker, gold, ALONE)
    from sft.core.distributed import from_rank_0

    peers.tell({"train": "ppo"})
    with peers.together() as world:
        from_rank_0(world, task._asdict())
        return _train(task, tracker, gold, world)


def follow_ppo(peers: "Peers") -> None:
    """Take part in the training that rank 0 has ordered; writes nothing.

    Raises:
        RLHFError: what rank 0 raises too, or what ends the training for all.
    """
    from sft.core.distributed import from_rank_0

    with peers.together() as world:
        _train(Task(**from_rank_0(world, None)), NullTracker(), None, world)


def _train(task: Task, tracker: Tracker, gold: "Gold | None", world: World) -> "PPOResult":
    from rlhf.ppo.train import PPOInputs, train_ppo
    from sft.core.checkpoint import Saving

    config = schema.build(task.experiment)
    folder = Path(task.folder)
    return train_ppo(
        config.ppo,
        PPOInputs(
            sft=Path(task.sft),
            rewards=[Path(reward) for reward in task.rewards],
            prompts=_conversations(task.prompts),
            validation=_conversations(task.validation),
            judge=None if task.judge is None else Path(task.judge),
            start=None if task.start is None else Path(task.start),
        ),
        limits=TokenLimits(config.data.max_prompt_tokens, config.data.max_answer_tokens),
        runtime=config.runtime,
        seed=config.seed,
        out_dir=folder,
        tracker=tracker,
        saving=Saving(folder / CHECKPOINTS, task.fingerprint, config.resume.allow),
        gold=gold,
        world=world,
    )


def _conversations(prompts: Sequence[Sequence[Mapping[str, str]]]) -> list[Conversation]:
    return [tuple(Message(**message) for message in prompt) for prompt in prompts]


def _digest(prompts: Sequence[Conversation]) -> str:
    return json_digest([as_dicts(prompt) for prompt in prompts])
