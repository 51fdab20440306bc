"""Three rounds of labels against one round with as many, by gold: scripted annotators, the embedded world.

Three arms a seed, all from one SFT model, with the same number of labels and of PPO episodes:

    three    three rounds: a third of the labels, on answers of the policy so far; PPO from it
    one      all labels on answers of the SFT model; one PPO run of three times the length
    restarts all labels on answers of the SFT model; PPO three times in a row, critic and schedule renewed as in `three`

Run from the project's folder; it carries on where it was stopped:

    python experiments/iterative/measure.py --root runs/iterative --small --seeds 0 1 2
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rlhf import preflight, schema
from rlhf.config import ExperimentConfig
from rlhf.pipeline import Trained, train_rounds
from rlhf.registry import Registry
from rlhf.run import Done, Run
from rlhf.sources import Sources
from rlhf.stages.labels import run_labels
from rlhf.stages.people import run_people
from rlhf.stages.ppo import run_ppo
from rlhf.stages.reward import Scorers, run_reward
from rlhf.stages.sft import run_sft
from sft.core.durable import write_json
from sft.core.generation import SamplingSettings, sample_answers
from sft.core.statistics import Estimate, clustered_mean
from sft.core.text import Conversation, prompt_key
from sft.core.tracking import RunTracker
from sft.model import load_causal_lm, load_tokenizer, torch_device

Floats = npt.NDArray[np.float64]
ANSWERS = 4
"""Sampled answers of each policy to each test prompt."""
OTHERS = ("one", "restarts")
SMALLER = [
    "model.hidden_size=64",
    "model.intermediate_size=192",
    "model.num_hidden_layers=3",
    "simulation.prompts=500",
    "simulation.demonstrations=2000",
    "ppo.kl_coef=0.05",
]
"""The quickstart's world and model, made smaller, so that a seed takes minutes on one thread; a looser leash."""


def with_ppo(config: ExperimentConfig, **values: int) -> ExperimentConfig:
    """Return the experiment with other settings of PPO."""
    return dataclasses.replace(config, ppo=dataclasses.replace(config.ppo, **values))


def three(run: Run, sft: Done) -> tuple[Done, Scorers]:
    """Return the policy of all rounds, and the last reward model."""
    found = train_rounds(run, sft)
    assert isinstance(found, Trained), "scripted annotators answer at once"
    return found.policy, found.scorers


def label_once(run: Run, sft: Done) -> Scorers:
    """Return the reward model of as many labels as all rounds have, on answers of the SFT model."""
    _, waiting = run_people(run, sft, 1, None)
    assert waiting is None, "scripted annotators answer at once"
    labels, preferences = run_labels(run)
    return run_reward(run, sft, labels, run.sources.split_preferences(preferences))


def measure(words: list[str], root: Path, seed: int, *, others: Sequence[str]) -> dict[str, object]:
    """Train three rounds and the other arms of one seed and compare them by gold."""
    common = ["wandb=disabled", "runtime.device=cpu", "runtime.threads=1", f"registry.root={root / 'registry'}"]
    (point,) = preflight.check(["experiment=iterative", *common, f"seed={seed}", *words])
    config = point.config
    rounds = config.labels.rounds
    at_once = dataclasses.replace(config.labels, rounds=1, tasks=rounds * config.labels.tasks)
    once = dataclasses.replace(config, labels=at_once)
    long = with_ppo(once, total_episodes=rounds * config.ppo.total_episodes)
    registry = Registry(root / "registry")

    def begin(config: ExperimentConfig, name: str) -> Run:
        folder = root / f"seed-{seed}" / name
        tracker = RunTracker(
            folder,
            run_id=f"{name}-{seed}",
            experiment=name,
            mode="disabled",
            project="rlhf",
            entity=None,
            config=schema.to_tree(config),
            tags=[],
        )
        return Run(config, registry, tracker, Sources(config, folder))

    first = begin(config, "three")
    sft = run_sft(first)
    policies, scorers = {"sft": sft}, {}
    policies["three"], scorers["three"] = three(first, sft)
    if "one" in others:
        second = begin(long, "one")
        scorers["one"] = label_once(second, sft)
        policies["one"] = run_ppo(second, sft, scorers["one"])
    if "restarts" in others:
        third = begin(once, "restarts")
        scorers["restarts"] = label_once(third, sft)
        policy = sft
        for number in range(rounds):
            third.suffix = f"-{number + 1}"
            policy = run_ppo(third, sft, scorers["restarts"], start=policy)
        policies["restarts"] = policy
    prompts = first.sources.prompts.test
    golds = {name: answered(first, done, prompts, name) for name, done in policies.items()}
    return {"seed": seed, **compare(golds, prompts, seed), "reward_accuracy": accuracies(scorers)}


def answered(run: Run, policy: Done, prompts: Sequence[Conversation], stream: str) -> Floats:
    """Return the gold utility of several sampled answers to each prompt."""
    asked = [prompt for prompt in prompts for _ in range(ANSWERS)]
    settings = SamplingSettings(
        run.sampling_limits.prompt, run.sampling_limits.answer, run.config.ppo.temperature, 64, run.config.seed, stream
    )
    model = load_causal_lm(policy.path, device=torch_device(run.config.runtime), dtype=run.config.runtime.dtype)
    answers = sample_answers(model, load_tokenizer(policy.path), asked, settings)
    return run.sources.gold([(prompt, answer.text) for prompt, answer in zip(asked, answers, strict=True)])


def compare(golds: dict[str, Floats], prompts: Sequence[Conversation], seed: int) -> dict[str, object]:
    """Return mean gold utilities and win rates by gold; intervals resample prompts."""
    clusters = [prompt_key(prompt) for prompt in prompts for _ in range(ANSWERS)]

    def mean(values: Floats) -> dict[str, object]:
        found: Estimate = clustered_mean(values, clusters, seed=seed)
        return found.as_dict()

    def wins(name: str, other: str) -> dict[str, object]:
        return mean(0.5 + 0.5 * np.sign(golds[name] - golds[other]))

    return {
        "gold": {name: mean(values) for name, values in golds.items()},
        "wins_against_sft": {name: wins(name, "sft") for name in golds if name != "sft"},
        "three_against": {name: wins("three", name) for name in golds if name not in ("sft", "three")},
    }


def accuracies(scorers: dict[str, Scorers]) -> dict[str, object]:
    """Return the accuracy of each arm's last reward model on held-out labels of its own kind."""
    return {name: found.report.stage["metrics"]["accuracy"] for name, found in scorers.items()}  # type: ignore[index]


def main() -> None:
    """Measure seed by seed; after each write the output file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder of registry, labels and logs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results.json"))
    parser.add_argument("--arms", choices=OTHERS, nargs="+", default=list(OTHERS), help="what to compare three with")
    parser.add_argument("--small", action="store_true", help="a smaller model and world, minutes a seed on one thread")
    parser.add_argument("words", nargs="*", help="overrides, such as labels.tasks=300")
    arguments = parser.parse_args()
    words = [*SMALLER, *arguments.words] if arguments.small else arguments.words
    rows = []
    for seed in arguments.seeds:
        rows.append(measure(words, arguments.root, seed, others=arguments.arms))
        print(rows[-1], flush=True)
        write_json(arguments.output, {"overrides": words, "seeds": rows})


if __name__ == "__main__":
    main()
