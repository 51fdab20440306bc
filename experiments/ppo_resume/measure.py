"""Bits after SIGKILL: PPO runs that are killed at random moments and started again, against one that nobody disturbed.

Needs no network and no other run. From the project's folder:

    OMP_NUM_THREADS=1 python experiments/ppo_resume/measure.py --kills 100

Children are forked from this process, which imports once and never trains.
"""

import argparse
import dataclasses
import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file

from reward.calibration import Calibration
from reward.model import new_scorer
from rlhf.config import PPOConfig, Selection
from rlhf.ppo.state import fresh_state
from rlhf.ppo.train import PPOInputs, Saving, train_ppo
from rlhf.simulation import make_demonstrations, make_requests
from sft.config import Device, Dtype, ModelConfig, RuntimeConfig, Schedule
from sft.core.checkpoint import Checkpoint, CheckpointStore, LoadedCheckpoint, environment
from sft.core.durable import append_line, write_json
from sft.core.errors import ConfigError, RLHFError
from sft.core.text import TokenLimits, encode_prompt
from sft.core.tracking import NullTracker
from sft.model import build_tiny, load_causal_lm, load_tokenizer

FORK = multiprocessing.get_context("fork")
CPU = torch.device("cpu")
LIMITS = TokenLimits(prompt=32, answer=48)
ITERATIONS = 6
STEPS_IN_ITERATION = 2 * 2 * 2
"""Optimiser steps: epochs x minibatches x (policy and critic)."""
MODEL = ModelConfig(
    vocab_size=400,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=128,
)
CONFIG = PPOConfig(
    total_episodes=8 * ITERATIONS,
    batch_size=8,
    num_mini_batches=2,
    num_ppo_epochs=2,
    micro_batch_tokens=256,
    generation_batch_size=5,
    response_length=8,
    learning_rate=1e-3,
    critic_learning_rate=1e-3,
    critic_warmup_iterations=1,
    lr_scheduler_type=Schedule.COSINE,
    warmup_iterations=2,
    entropy_coef=0.01,
    normalize_scores=True,
    kl_target_nats_per_sequence=0.5,
    kl_horizon=20,
    eval_steps=2,
    eval_prompts=8,
    save_steps=1,
)
SELECTING = dataclasses.replace(CONFIG, select=Selection.WIN_RATE)
VARIANTS = {
    "save_steps=1, the best policy is kept": SELECTING,
    "save_steps=2, the last policy is kept": dataclasses.replace(CONFIG, save_steps=2),
}

Change = Callable[[LoadedCheckpoint], LoadedCheckpoint]


class Job(NamedTuple):
    """A command that is started, killed and started again, and the folder that it works in."""

    config: PPOConfig
    inputs: PPOInputs
    folder: Path
    threads: int = 1
    allow: tuple[str, ...] = ()


class Log(NullTracker):
    """One line per finished iteration."""

    def __init__(self, path: Path) -> None:
        """Write to a file, which outlives kills."""
        self.path = path

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append the iteration's number."""
        if metrics:
            append_line(self.path, str(step))


def make_inputs(folder: Path) -> PPOInputs:
    """Write a small policy, a reward model and a judge with random weights, and return them with prompts."""
    requests = make_requests(60, seed=0)
    texts = [text for e in make_demonstrations(requests, 200, seed=0) for text in (e.prompt[0].content, e.answer)]
    build_tiny(MODEL, texts, seed=0, out_dir=folder / "base")
    tokenizer = load_tokenizer(folder / "base")
    model: Any = load_causal_lm(folder / "base", device=CPU, dtype=Dtype.FLOAT32)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(5)  # freshly drawn ones answer all prompts alike
        embeddings = model.get_input_embeddings().weight
        embeddings[:, 0] += 0.5
        ids = torch.tensor([encode_prompt(tokenizer, request)[-6:] for request in requests])
        usual = model.base_model(input_ids=ids).last_hidden_state.mean(dim=(0, 1))
        embeddings[tokenizer.eos_token_id] += 4 * usual / usual.square().sum()  # about one token in ten
    model.save_pretrained(folder / "sft")
    tokenizer.save_pretrained(folder / "sft")
    scorer = new_scorer(folder / "sft", seed=1, device=CPU)
    scorer.config.pad_token_id = tokenizer.pad_token_id
    for name, sign in (("reward", 1.0), ("judge", -1.0)):  # the judge dislikes what training gains: an early best
        scorer.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        Calibration(0.3, 1.7).save(folder / name)
        weights = load_file(folder / name / "model.safetensors")
        weights["score.weight"] *= sign
        save_file(weights, folder / name / "model.safetensors", {"format": "pt"})
    return PPOInputs(folder / "sft", [folder / "reward"], requests[:12], requests[20:40], folder / "judge")


def train(job: Job, change: Change | None, die_at_step: int | None) -> None:
    """Be the command: train, or carry on from what the folder holds; leave with its exit code."""
    if change is not None:
        _read_changed(change)
    if die_at_step is not None:
        _die_at(die_at_step)
    try:
        train_ppo(
            job.config,
            job.inputs,
            limits=LIMITS,
            runtime=RuntimeConfig(device=Device.CPU, threads=job.threads),
            seed=0,
            out_dir=job.folder,
            tracker=Log(job.folder / "log"),
            saving=Saving(job.folder / "checkpoints", "f" * 64, job.allow),
        )
    except RLHFError as error:
        sys.exit(error.exit_code)


def _read_changed(change: Change) -> None:
    store_class: Any = CheckpointStore  # this process's own
    read = store_class.read

    def changed(store: CheckpointStore, checkpoint: Checkpoint) -> LoadedCheckpoint:
        return change(read(store, checkpoint))

    store_class.read = changed


def _die_at(number: int) -> None:
    optimiser_class: Any = torch.optim.AdamW  # this process's own
    step, calls = optimiser_class.step, itertools.count(1)

    def counted(*args: object, **kwargs: object) -> object:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*args, **kwargs)

    optimiser_class.step = counted


def attempt(
    job: Job, *, kill_after_s: float | None = None, change: Change | None = None, die_at_step: int | None = None
) -> int:
    """Start the command once and return its exit code, -9 where a kill came before its end."""
    job.folder.mkdir(parents=True, exist_ok=True)
    child = FORK.Process(target=train, args=(job, change, die_at_step))
    child.start()
    child.join(kill_after_s)
    if child.is_alive():
        child.kill()
    child.join()
    assert child.exitcode is not None
    return child.exitcode


def largest_difference(first: Path, second: Path) -> float | None:
    """Return 0.0 where all tensors of both policies and critics are equal bit by bit, else the largest difference.

    None where files or names differ.
    """
    largest = 0.0
    for name in ("policy", "critic"):
        a, b = (load_file(folder / name / "model.safetensors") for folder in (first, second))
        if a.keys() != b.keys():
            return None
        unequal = [key for key in a if not torch.equal(a[key], b[key])]
        largest = max([largest, *(float((a[key] - b[key]).abs().max()) for key in unequal)])
    return largest


def went_back(log: Path) -> list[int]:
    """Return by how many finished iterations each new start went back."""
    numbers = [int(line) for line in log.read_text().splitlines()]
    return [before + 1 - after for before, after in itertools.pairwise(numbers) if after <= before]


class Undisturbed(NamedTuple):
    """A run that nobody killed."""

    folder: Path
    seconds: float


def undisturbed(config: PPOConfig, inputs: PPOInputs, folder: Path) -> Undisturbed:
    """Run the command to its end, twice: other work on the machine must not stretch the time that kills fall in."""
    seconds = []
    for job in (Job(config, inputs, folder), Job(config, inputs, folder / "again")):
        started = time.monotonic()
        code = attempt(job)
        assert code == 0, f"the undisturbed run ended with {code}"
        seconds.append(time.monotonic() - started)
    assert largest_difference(folder, folder / "again") == 0.0, "two undisturbed runs differ"
    return Undisturbed(folder, min(seconds))


def kill_many(config: PPOConfig, inputs: PPOInputs, folder: Path, *, kills: int, seed: int) -> dict[str, object]:
    """Kill runs up to three times each until `kills` have landed before the end; return what was found."""
    whole = undisturbed(config, inputs, folder / "undisturbed")
    chance = random.Random(seed)
    landed, equal, runs, in_save = 0, 0, 0, 0
    back: list[int] = []
    at: Counter[int] = Counter()
    while landed < kills:
        job = Job(config, inputs, folder / f"run-{runs}")
        for _ in range(min(3, kills - landed)):
            if attempt(job, kill_after_s=chance.uniform(0, whole.seconds)) == 0:
                break
            landed += 1
            log, saved = job.folder / "log", job.folder / "checkpoints"
            at[max(map(int, log.read_text().split()), default=0) if log.exists() else 0] += 1
            in_save += any(saved.glob(".tmp-*"))
        code = attempt(job)
        assert code == 0, f"seed {seed}, run {runs}: the last start ended with {code}"
        equal += largest_difference(job.folder, whole.folder) == 0.0
        back += went_back(job.folder / "log")
        runs += 1
        shutil.rmtree(job.folder)
    return {
        "seed": seed,
        "kills": landed,
        "runs": runs,
        "bit_identical": equal,
        "most_iterations_repeated": max(back, default=0),
        "iterations_repeated_per_kill": sum(back) / landed,
        "kills_with_an_unfinished_checkpoint_on_disk": in_save,
        "kills_after_iteration": dict(sorted(at.items())),
        "undisturbed_s": whole.seconds,
    }


def without(*names: str) -> Change:
    """Return a change that gives parts of the JSON state the values of a fresh one."""

    def changed(loaded: LoadedCheckpoint) -> LoadedCheckpoint:
        fresh = fresh_state(CONFIG).as_json()
        return loaded._replace(state={**loaded.state, **{name: fresh[name] for name in names}})

    return changed


def without_tensors(*groups: str) -> Change:
    """Return a change that leaves out groups of tensors."""

    def changed(loaded: LoadedCheckpoint) -> LoadedCheckpoint:
        return loaded._replace(tensors={name: t for name, t in loaded.tensors.items() if name not in groups})

    return changed


def with_weights(group: str, source: Path) -> Change:
    """Return a change that starts a model anew."""

    def changed(loaded: LoadedCheckpoint) -> LoadedCheckpoint:
        return loaded._replace(tensors={**loaded.tensors, group: load_file(source / "model.safetensors")})

    return changed


def drop_parts(inputs: PPOInputs, folder: Path) -> list[dict[str, object]]:
    """Kill a run in iteration 5, between the steps of policy and critic; go on without one part of the state."""
    parts: list[tuple[str, PPOConfig, Change | None]] = [
        ("nothing", CONFIG, None),
        ("policy", CONFIG, with_weights("policy", inputs.sft)),
        ("critic", CONFIG, with_weights("critic", inputs.rewards[0])),
        ("optimiser of the policy", CONFIG, without_tensors("policy-optimizer")),
        ("optimiser of the critic", CONFIG, without_tensors("critic-optimizer")),
        ("number of finished iterations", CONFIG, without("done")),
        ("adaptive KL coefficient", CONFIG, without_kl_coefficient),
        ("running moments of the scores", CONFIG, without("moments")),
        ("best policy and critic so far", SELECTING, without_tensors("best-policy", "best-critic")),
        ("best iteration and win rate so far", SELECTING, without("selection")),
        ("the judge's scores of the start", SELECTING, without("start_scores")),
        ("history, counts, numbers of the last iteration", CONFIG, without("history", "steps", "metrics")),
        ("the doctor's counts and first entropy", CONFIG, without("symptoms", "first_entropy")),
    ]
    wholes = {id(c): undisturbed(c, inputs, folder / f"undisturbed-{c.select}") for c in (CONFIG, SELECTING)}
    found: list[dict[str, object]] = []
    for number, (part, config, change) in enumerate(parts):
        job = Job(config, inputs, folder / f"part-{number}")
        stop_in_iteration_5(job)
        assert attempt(job, change=change) == 0, part
        difference = largest_difference(job.folder, wholes[id(config)].folder)
        found.append({"dropped": part, "equal": difference == 0.0, "largest_difference": difference})
    return found


def without_kl_coefficient(loaded: LoadedCheckpoint) -> LoadedCheckpoint:
    """Start the coefficient anew; target and horizon are settings."""
    return loaded._replace(state={**loaded.state, "kl": list(fresh_state(CONFIG).kl)})


def stop_in_iteration_5(job: Job) -> None:
    """Run until between the first step of the policy in iteration 5 and that of the critic."""
    learned_before = STEPS_IN_ITERATION // 2 + 3 * STEPS_IN_ITERATION  # the policy waits in iteration 1
    code = attempt(job, die_at_step=learned_before + 2)
    assert code == -signal.SIGKILL, code


def two_threads(inputs: PPOInputs, folder: Path) -> dict[str, object]:
    """Carry on with two threads instead of one: refused, or accepted with `resume.allow`."""
    whole = undisturbed(CONFIG, inputs, folder / "undisturbed")
    job = Job(CONFIG, inputs, folder / "killed")
    stop_in_iteration_5(job)
    refused = attempt(job._replace(threads=2)) == ConfigError.exit_code
    assert attempt(job._replace(threads=2, allow=("threads",))) == 0
    return {"refused": refused, "largest_difference_when_allowed": largest_difference(job.folder, whole.folder)}


def main() -> None:
    """Measure, and write results.json beside this file or where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="that land before the end, over both variants")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.json"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs = make_inputs(folder)
        results: dict[str, object] = {"environment": environment()}
        for number, (variant, config) in enumerate(VARIANTS.items()):
            share = asked.kills // 2 if number else asked.kills - asked.kills // 2
            results[variant] = kill_many(config, inputs, folder / str(number), kills=share, seed=asked.seed + number)
        results["dropped"] = drop_parts(inputs, folder / "dropped")
        results["two threads instead of one"] = two_threads(inputs, folder / "threads")
    write_json(asked.out, results)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
