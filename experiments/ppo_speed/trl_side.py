"""TRL 1.12.0's PPOTrainer on a workload; runs in a virtual environment of its own.

    python trl_side.py --workload DIR --updates 4 --threads 2

Phases: generation is TRL's `batch_generation`; scoring goes on until the first forward pass with gradients; training is
the rest of the update. TRL is not edited: the two functions are replaced by ones that look at the clock and call them.
"""

import argparse
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
import trl
import trl.experimental.ppo.ppo_trainer as ppo_module
from contract import Files, Measurement, Update, Workload, emit
from datasets import Dataset
from probe import StepCounter, compiled_graphs, device_name, now, peak_mib, versions
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
from trl.experimental.ppo import PPOConfig, PPOTrainer


class Stopwatch(TrainerCallback):
    """Notes when each phase of each update ends."""

    def __init__(self, device: torch.device, eos_id: int) -> None:
        self.updates: list[Update] = []
        self.graphs: list[int] = []
        self._device, self._eos_id = device, eos_id
        self._start = self._generated = self._scored = 0.0
        self._answers_BR = torch.empty(0, 0)
        self._score = float("nan")
        self._generate, self._forward = ppo_module.batch_generation, ppo_module.forward

    def install(self) -> None:
        """Put this clock around the two functions."""
        ppo_module.batch_generation = self.generate
        ppo_module.forward = self.forward

    def generate(self, model: Any, queries: torch.Tensor, *rest: Any) -> Any:
        """Generate as TRL does, and keep the answers for their length."""
        found = self._generate(model, queries, *rest)
        self._answers_BR = found[0][:, queries.shape[1] :]
        self._generated, self._scored = now(self._device), 0.0
        return found

    def forward(self, *arguments: Any) -> Any:
        """Pass forward as TRL does; the first pass with gradients begins the training phase."""
        if torch.is_grad_enabled() and not self._scored:
            self._scored = now(self._device)
        return self._forward(*arguments)

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock."""
        self._start = now(self._device)

    def on_log(self, *_: Any, **given: Any) -> None:
        """Note the mean score."""
        self._score = given["logs"].get("objective/scores", self._score)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Close an update."""
        end = now(self._device)
        ended_BR = (self._answers_BR == self._eos_id).cumsum(dim=1)
        before_eos_BR = ended_BR - (self._answers_BR == self._eos_id).long() == 0
        self.updates.append(
            Update(
                generate_s=self._generated - self._start,
                score_s=self._scored - self._generated,
                train_s=end - self._scored,
                answers=len(self._answers_BR),
                answer_tokens=int(before_eos_BR.sum()),
                score=self._score,
            )
        )
        self.graphs.append(compiled_graphs())
        self._start = end


def configuration(workload: Workload, *, updates: int, seed: int, use_cpu: bool) -> PPOConfig:
    """Return the workload in TRL's words.

    TRL's usual way to say "batch 64, micro-batch 16" is a device batch of 16 and 4 accumulation steps; it then makes
    one optimiser step in four minibatches. A device batch of 64 without accumulation has the same micro-batches of 16
    (a minibatch is never larger) and makes every step, as ours does.
    """
    return PPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=workload.prompts,
        gradient_accumulation_steps=1,
        num_mini_batches=workload.minibatches,
        num_ppo_epochs=workload.epochs,
        total_episodes=workload.prompts * updates,
        response_length=workload.max_answer_tokens,
        stop_token="eos",
        temperature=1.0,
        learning_rate=workload.learning_rate,
        adam_epsilon=workload.adam_epsilon,
        cliprange=workload.cliprange,
        cliprange_value=workload.cliprange_value,
        gamma=workload.gamma,
        lam=workload.lam,
        kl_coef=workload.kl_coef,
        missing_eos_penalty=None,
        local_rollout_forward_batch_size=workload.prompts,
        bf16=False,
        use_cpu=use_cpu,
        gradient_checkpointing=False,
        num_sample_generations=0,
        save_strategy="no",
        eval_strategy="no",
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        seed=seed,
    )


def trainer(files: Files, config: PPOConfig, watch: Stopwatch) -> PPOTrainer:
    """Load four models of the workload's number format, and build the trainer."""
    dtype = getattr(torch, files.workload().dtype)
    policy, reference = (AutoModelForCausalLM.from_pretrained(files.policy, dtype=dtype) for _ in range(2))
    value, reward = (
        AutoModelForSequenceClassification.from_pretrained(files.reward, dtype=dtype, num_labels=1) for _ in range(2)
    )
    dataset = Dataset.from_dict({"input_ids": files.prompts()})
    return PPOTrainer(
        args=config,
        processing_class=AutoTokenizer.from_pretrained(files.policy, padding_side="left"),
        model=policy,
        ref_model=reference,
        reward_model=reward,
        value_model=value,
        train_dataset=dataset,
        eval_dataset=dataset.select(range(1)),
        callbacks=[watch],
    )


def main() -> None:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", type=Path, required=True)
    parser.add_argument("--updates", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    warnings.filterwarnings("ignore")
    device = torch.device(given.device)
    files = Files(given.workload)
    workload = files.workload()
    imports_mib, steps, start = peak_mib(device), StepCounter(), now(device)
    config = configuration(workload, updates=given.updates, seed=given.seed, use_cpu=device.type == "cpu")
    watch = Stopwatch(device, AutoTokenizer.from_pretrained(files.policy).eos_token_id)
    ready = trainer(files, config, watch)
    watch.install()
    setup_s = now(device) - start
    ready.train()
    emit(
        Measurement(
            contender="trl",
            workload=workload.name,
            updates=watch.updates,
            setup_s=setup_s,
            imports_mib=imports_mib,
            peak_mib=peak_mib(device),
            optimizer_steps=steps.most,
            graphs=watch.graphs,
            device=device_name(device),
            versions=f"trl {trl.__version__}, {versions()}",
        )
    )


if __name__ == "__main__":
    main()
