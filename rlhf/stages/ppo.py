"""Stage `ppo`: SFT model, reward model and prompts in, policy and critic out."""

from collections.abc import Sequence
from pathlib import Path

from rlhf import schema
from rlhf.registry import CHECKPOINTS, Artifact
from rlhf.run import Built, Done, Run
from rlhf.stages.reward import Scorers
from sft.core.durable import json_digest
from sft.core.text import Conversation, as_dicts
from sft.core.tracking import Tracker

CHANGES_NOTHING = ("save_steps", "reward_models")
"""Settings that leave the policy's bits as they are, or stand among the inputs."""


def run_ppo(run: Run, sft: Done, scorers: Scorers) -> Done:
    """Train the policy; the critic is registered beside it."""
    config = run.config.ppo
    members = [scorers.reward, *(run.adopt("reward", source) for source in config.reward_models)]
    judge = scorers.judge if config.eval_steps is not None else None
    prompts, validation = run.sources.prompts.train, run.sources.prompts.validation
    inputs = {"sft": sft.artifact.fingerprint, "prompts": _digest(prompts)}
    inputs |= {f"reward-{number}": member.artifact.fingerprint for number, member in enumerate(members)}
    parents: list[tuple[str, Artifact]] = [("sft", sft.artifact)]
    parents += [("reward", member.artifact) for member in members]
    if judge is not None:
        inputs |= {"judge": judge.artifact.fingerprint, "validation": _digest(validation)}
        parents.append(("judge", judge.artifact))
    settings = {name: value for name, value in schema.to_tree(config).items() if name not in CHANGES_NOTHING}
    fingerprint = run.fingerprint("policy", settings, inputs)

    def gold(asked: Sequence[Conversation], answers: Sequence[str]) -> list[float]:
        return [float(u) for u in run.sources.gold(list(zip(asked, answers, strict=True)))]

    def build(folder: Path, tracker: Tracker) -> Built:
        from rlhf.ppo.train import PPOInputs, Saving, train_ppo

        result = train_ppo(
            config,
            PPOInputs(
                sft=sft.path,
                rewards=[member.path for member in members],
                prompts=prompts,
                validation=validation,
                judge=None if judge is None else judge.path,
            ),
            limits=run.limits,
            runtime=run.config.runtime,
            seed=run.config.seed,
            out_dir=folder,
            tracker=tracker,
            saving=Saving(folder / CHECKPOINTS, fingerprint, run.config.resume.allow),
            gold=gold if run.sources.is_simulated else None,
        )
        stage: dict[str, object] = {"metrics": result.metrics, "iterations": result.iterations}
        critic = json_digest({"critic of": fingerprint})
        run.register("critic", critic, parents, Built(result.critic, {"metrics": {}}, 0, run.device()))
        return Built(result.checkpoint, stage, result.steps, run.device())

    done = run.produce("ppo", "policy", fingerprint, parents, build)
    run.finish("ppo", done)
    return done


def _digest(prompts: Sequence[Conversation]) -> str:
    return json_digest([as_dicts(prompt) for prompt in prompts])
