"""Stage `bias`: do reward model and policy treat groups alike? The gate of the registry's `champion`."""

from pathlib import Path

from rlhf import schema
from rlhf.bias import counterfactual_prompts, make_probes, run_checks
from rlhf.labels.trust.quality import Preference
from rlhf.registry import Artifact
from rlhf.run import Built, Done, Run, digest_of
from sft.core.durable import json_digest
from sft.core.text import as_dicts
from sft.core.tracking import Tracker
from sft.split import Splits

LENGTH_PROMPTS = 60
COUNTERFACTUAL_REQUESTS = 60


def run_bias(run: Run, sft: Done, reward: Done, policy: Done, splits: Splits[Preference]) -> Done:
    """Run the suite on held-out prompts; neither training nor calibration saw them."""
    config, kind = run.config.bias, run.report_kind("bias")
    prompts = run.sources.prompts.held_out
    models = {"sft": sft, "reward": reward, "policy": policy}
    inputs = {name: done.artifact.fingerprint for name, done in models.items()}
    inputs |= {"test": digest_of(splits.held_out), "prompts": json_digest([as_dicts(p) for p in prompts])}
    settings = {"bias": schema.to_tree(config)} | run.sampling_settings()
    parents: list[tuple[str, Artifact]] = [(name, done.artifact) for name, done in models.items()]

    def build(folder: Path, tracker: Tracker) -> Built:
        from reward.model import RewardModel
        from rlhf.answers import sample_for_bias
        from sft.model import torch_device

        tracker.start(3, "step")
        pairs = [*((p.prompt, p.chosen, p.rejected) for p in splits.held_out), *run.sources.probe_pairs]
        probes = make_probes(pairs, config.groups, limit=config.probes, seed=run.config.seed)
        requests = counterfactual_prompts(prompts, config.groups, limit=COUNTERFACTUAL_REQUESTS, seed=run.config.seed)
        tracker.log(1, {"probes": len(probes), "requests": len(requests)})
        answers = sample_for_bias(
            policy=policy.path,
            sft=sft.path,
            prompts=prompts[:LENGTH_PROMPTS],
            requests=requests,
            limits=run.sampling_limits,
            temperature=run.config.ppo.temperature,
            runtime=run.config.runtime,
            seed=run.config.seed,
        )
        tracker.log(2, {})
        model = RewardModel.load(
            reward.path,
            device=torch_device(run.config.runtime),
            dtype=run.config.runtime.dtype,
            max_prompt_tokens=run.limits.prompt,
        )
        report = run_checks(
            probes=probes,
            sampled=answers.sampled,
            group_answers=answers.by_group,
            score=model.score_texts,
            config=config,
        )
        tracker.log(3, report.metrics)
        return Built(folder, {"metrics": dict(report.metrics)} | report.as_dict(), 0, run.device())

    done = run.produce("bias", kind, run.fingerprint(kind, settings, inputs), parents, build)
    run.finish("bias", done)
    return done
