"""The quickstart shrunk to seconds: the real pipeline on a micro world with a micro model."""

from pathlib import Path

from rlhf import preflight
from rlhf.pipeline import run_experiment

MICRO = [
    "experiment=quickstart",
    "wandb=disabled",
    "model.hidden_size=32",
    "model.intermediate_size=64",
    "model.num_hidden_layers=2",
    "model.vocab_size=400",
    "simulation.prompts=120",
    "simulation.demonstrations=200",
    "simulation.pairs=200",
    "sft.num_train_epochs=1",
    "sft.eval_steps=5",
    "reward.num_train_epochs=1",
    "reward.eval_steps=5",
    "ppo.batch_size=16",
    "ppo.total_episodes=48",
    "ppo.response_length=12",
    "evaluation.prompts=10",
    "bias.probes=60",
    "runtime.threads=1",
    "runtime.device=cpu",
]


def run(folder: Path, *extra: str, name: str = "run") -> dict:
    """Run the micro experiment in this process, with its registry in `folder`."""
    words = [*MICRO, f"registry.root={folder / 'registry'}", *extra]
    (point,) = preflight.check(words)
    return run_experiment(point.config, experiment=point.experiment, out_dir=folder / name).as_dict()
