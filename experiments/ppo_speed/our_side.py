"""Our PPO on a workload.

    python our_side.py --workload DIR --variant fp32 --updates 4 --threads 2

Runs `train_ppo` as the pipeline does, with its checks and metrics, and takes the times of its phases from what it logs:
generation and scoring as told, training is the rest of the wall time of an update.
"""

import argparse
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from contract import VARIANTS, Files, Measurement, Update, Workload, emit
from probe import StepCounter, compiled_graphs, device_name, now, peak_mib, versions

from rlhf.config import CriticKind, ModelSharing, PPOConfig
from rlhf.ppo.train import PPOInputs, train_ppo
from sft.config import Device, Dtype, RuntimeConfig
from sft.core.text import TokenLimits, user
from sft.core.tracking import NullTracker


class UpdateTimes(NullTracker):
    """A tracker that turns what PPO logs into updates."""

    def __init__(self, device: torch.device, answers: int) -> None:
        self.updates: list[Update] = []
        self.graphs: list[int] = []
        self.begun = self.peak_mib = 0.0
        self._device, self._answers, self._start = device, answers, 0.0

    def start(self, total: int, unit: str) -> None:
        """Start the clock: models are loaded."""
        self.begun = self._start = now(self._device)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Close an update; the first call, before any, has no metrics."""
        if not metrics:
            return
        end = now(self._device)
        generate_s, score_s = metrics["time/generate_s"], metrics["time/score_s"]
        self.updates.append(
            Update(
                generate_s=generate_s,
                score_s=score_s,
                train_s=end - self._start - generate_s - score_s,
                answers=self._answers,
                answer_tokens=round(metrics["response/mean_tokens"] * self._answers),
                score=metrics["objective/scores"],
            )
        )
        self.graphs.append(compiled_graphs())
        self.peak_mib = peak_mib(self._device)
        self._start = end

    def note(self, text: str) -> None:
        """Tell what the doctor says."""
        print(text, flush=True)


def configuration(workload: Workload, variant: str, *, updates: int) -> PPOConfig:
    """Return the workload in our words."""
    shared = variant.startswith("shared")
    half = variant.startswith("bf16")
    return PPOConfig(
        total_episodes=workload.prompts * updates,
        batch_size=workload.prompts,
        num_mini_batches=workload.minibatches,
        num_ppo_epochs=workload.epochs,
        micro_batch_tokens=2048 if half else 512,
        response_length=workload.max_answer_tokens,
        temperature=1.0,
        learning_rate=workload.learning_rate,
        critic_learning_rate=workload.learning_rate,
        critic_warmup_iterations=0,
        cliprange=workload.cliprange,
        cliprange_value=workload.cliprange_value,
        gamma=workload.gamma,
        lam=workload.lam,
        kl_coef=workload.kl_coef,
        adam_epsilon=workload.adam_epsilon,
        missing_eos_penalty=0.0,
        models=ModelSharing.SHARED if shared else ModelSharing.SEPARATE,
        critic=CriticKind.HEAD if shared else CriticKind.MODEL,
        compile=variant.endswith("-compiled"),
    )


def main() -> None:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", type=Path, required=True)
    parser.add_argument("--variant", choices=VARIANTS, default="fp32")
    parser.add_argument("--updates", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    warnings.filterwarnings("ignore")
    device = torch.device(given.device)
    files = Files(given.workload)
    workload = files.workload()
    half = given.variant.startswith("bf16") or workload.dtype == "bfloat16"
    if given.variant.startswith("shared"):
        import rlhf.ppo.adapters  # noqa: F401  # peft, which this variant alone needs
    imports_mib, steps, start = peak_mib(device), StepCounter(), now(device)
    times = UpdateTimes(device, workload.prompts)
    with tempfile.TemporaryDirectory() as folder:
        train_ppo(
            configuration(workload, given.variant, updates=given.updates),
            PPOInputs(files.policy, [files.reward], [user(text) for text in files.prompt_texts()]),
            limits=TokenLimits(workload.prompt_tokens, workload.max_answer_tokens),
            runtime=RuntimeConfig(
                device=Device(given.device), dtype=Dtype.BFLOAT16 if half else Dtype.FLOAT32, threads=given.threads
            ),
            seed=given.seed,
            out_dir=Path(folder),
            tracker=times,
        )
    emit(
        Measurement(
            contender=given.variant,
            workload=workload.name,
            updates=times.updates,
            setup_s=times.begun - start,
            imports_mib=imports_mib,
            peak_mib=times.peak_mib,
            optimizer_steps=steps.most,
            graphs=times.graphs,
            device=device_name(device),
            versions=versions(),
        )
    )


if __name__ == "__main__":
    main()
