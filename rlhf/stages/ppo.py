"""Stage `ppo`: SFT model, reward model and prompts in, policy and critic out."""

from collections.abc import Sequence
from pathlib import Path

from rlhf import schema
from rlhf.registry import Artifact
from rlhf.run import Built, Done, Run
from sft.core.durable import json_digest
from sft.core.text import Conversation, as_dicts
from sft.core.tracking import Tracker


def run_ppo(run: Run, sft: Done, reward: Done) -> Done:
    """Train the policy; the critic is registered beside it."""
    prompts = run.sources.prompts.train
    inputs = {
        "sft": sft.artifact.fingerprint,
        "reward": reward.artifact.fingerprint,
        "prompts": json_digest([as_dicts(prompt) for prompt in prompts]),
    }
    fingerprint = run.fingerprint("policy", schema.to_tree(run.config.ppo), inputs)
    parents: list[tuple[str, Artifact]] = [("sft", sft.artifact), ("reward", reward.artifact)]

    def gold(asked: Sequence[Conversation], answers: Sequence[str]) -> list[float]:
        return [float(u) for u in run.sources.gold(list(zip(asked, answers, strict=True)))]

    def build(folder: Path, tracker: Tracker) -> Built:
        from rlhf.ppo.train import train_ppo

        result = train_ppo(
            run.config.ppo,
            sft=sft.path,
            reward=reward.path,
            prompts=prompts,
            limits=run.limits,
            runtime=run.config.runtime,
            seed=run.config.seed,
            out_dir=folder,
            tracker=tracker,
            gold=gold if run.sources.is_simulated else None,
        )
        stage: dict[str, object] = {"metrics": result.metrics, "iterations": result.iterations}
        critic = json_digest({"critic of": fingerprint})
        run.register("critic", critic, parents, Built(result.critic, {"metrics": {}}, 0, run.device()))
        return Built(result.checkpoint, stage, result.steps, run.device())

    done = run.produce("ppo", "policy", fingerprint, parents, build)
    run.finish("ppo", done)
    return done
