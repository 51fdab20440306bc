"""False alarms and power of the bias gate: labels, reward model and bias checks repeated, SFT model and policy reused.

Each repetition draws new answer pairs, annotators and labels (their own seed), trains a reward model on them and runs
all checks. Run from the project's folder after a quickstart:

    python experiments/planted_bias/measure.py --registry registry --repetitions 20 --planted 0.0 1.0
"""

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path

import torch

from reward.model import RewardModel
from reward.train import train_reward
from rlhf import preflight
from rlhf.answers import sample_for_bias
from rlhf.bias import BiasReport, counterfactual_prompts, make_probes, run_checks
from rlhf.config import ExperimentConfig
from rlhf.labels.importing.ingest import ingest
from rlhf.labels.trust.quality import aggregate
from rlhf.registry import Registry
from rlhf.sources import Sources, write_simulated_labels
from rlhf.stages.bias import COUNTERFACTUAL_REQUESTS, LENGTH_PROMPTS
from rlhf.stages.reward import as_comparisons
from sft.config import LabelFormat
from sft.core.durable import write_json
from sft.core.statistics import proportion
from sft.core.text import TokenLimits
from sft.core.tracking import NullTracker


def repeat(config: ExperimentConfig, registry: Registry, *, planted: float, repetition: int) -> BiasReport:
    """Return the verdicts of one repetition."""
    limits = TokenLimits(config.data.max_prompt_tokens, config.data.max_answer_tokens)
    simulation = dataclasses.replace(config.simulation, planted_bias=planted)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = Sources(config, folder)
        labels = folder / "labels.jsonl"
        write_simulated_labels(labels, sources.requests, simulation, seed=1000 + repetition)
        ingested = ingest(
            labels, format=LabelFormat.AUTO, max_quarantine_fraction=0.0, quarantine_path=folder / "quarantine.jsonl"
        )
        splits = sources.split_preferences(aggregate(ingested.judgements).preferences)
        trained = train_reward(
            config.reward,
            sft=registry.get("sft:1").path,
            train=as_comparisons(splits.train),
            validation=as_comparisons(splits.validation),
            references=sources.demonstrations.validation,
            limits=limits,
            runtime=config.runtime,
            seed=1000 + repetition,
            out_dir=folder / "reward",
            tracker=NullTracker(),
        )
        model = RewardModel.load(
            trained.checkpoint, device=torch.device("cpu"), dtype=config.runtime.dtype, max_prompt_tokens=limits.prompt
        )
        groups = config.bias.groups
        pairs = [*((p.prompt, p.chosen, p.rejected) for p in splits.test), *sources.probe_pairs]
        prompts = sources.prompts.test
        requests = counterfactual_prompts(prompts, groups, limit=COUNTERFACTUAL_REQUESTS, seed=repetition)
        answers = sample_for_bias(
            policy=registry.get("policy:1").path,
            sft=registry.get("sft:1").path,
            prompts=prompts[:LENGTH_PROMPTS],
            requests=requests,
            limits=TokenLimits(limits.prompt, config.ppo.response_length),
            temperature=config.ppo.temperature,
            runtime=config.runtime,
            seed=repetition,
        )
        return run_checks(
            probes=make_probes(pairs, groups, limit=config.bias.probes, seed=repetition),
            sampled=answers.sampled,
            group_answers=answers.by_group,
            score=model.score_texts,
            config=config.bias,
        )


def main() -> None:
    """Repeat, print one line each, and write the output file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--registry", type=Path, default=Path("registry"))
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="number of the first repetition")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results.json"))
    parser.add_argument("--planted", type=float, nargs="+", default=[0.0, 1.0])
    arguments = parser.parse_args()
    words = [f"runtime.threads={arguments.threads}", "runtime.device=cpu", f"registry.root={arguments.registry}"]
    (point,) = preflight.check(["experiment=quickstart", *words])
    registry = Registry(arguments.registry, create=False)
    found: dict[str, object] = {}
    for planted in arguments.planted:
        rows = []
        for repetition in range(arguments.first, arguments.first + arguments.repetitions):
            report = repeat(point.config, registry, planted=planted, repetition=repetition)
            effects = {f"{c.name}/{c.group}": round(c.effect, 3) for c in report.checks}
            failed = [f"{c.name}/{c.group}" for c in report.failed]
            rows.append({"repetition": repetition, "failed": failed, "effects": effects})
            swaps = {name: effect for name, effect in effects.items() if name.startswith("swap_one")}
            print(json.dumps({"planted": planted, "repetition": repetition, "failed": failed, **swaps}), flush=True)
        share = proportion([float(bool(row["failed"])) for row in rows])
        low, high = share.ci
        print(f"planted {planted}: failed {share.value:.2f} [{low:.2f}, {high:.2f}], n {share.n}", flush=True)
        found[str(planted)] = {"failed": share.as_dict(), "rows": rows}
        write_json(arguments.output, found)


if __name__ == "__main__":
    main()
