"""A run that is killed, interrupted or damaged ends, after the same command, with the bits of one that was not.

Children are forked, since importing anew for each kill would take minutes; all compute with one thread.
"""

import dataclasses
import itertools
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import micro
import pytest
import torch
from commands import Command
from kills import unequal
from safetensors.torch import load_file, save_file

from rlhf.config import PPOConfig, Selection
from rlhf.ppo import rollout
from rlhf.ppo.looks import Looks
from rlhf.ppo.models import SeparateModels
from rlhf.ppo.train import PPOInputs, Saving, train_ppo
from rlhf.registry import CHECKPOINTS, Registry
from sft.config import RuntimeConfig, Schedule
from sft.core import checkpoint
from sft.core.durable import append_line, folder_digest, write_json
from sft.core.errors import DataError, RLHFError
from sft.core.text import TokenLimits
from sft.core.tracking import NullTracker

ROOT = Path(__file__).parents[3]
FORK = multiprocessing.get_context("fork")
ITERATIONS = 6
STEPS_OF_ONE = 2 * 2 * 2
"""Optimiser steps of an iteration: epochs x minibatches x (policy and critic); in the first one the policy waits."""
BETWEEN_POLICY_AND_CRITIC = STEPS_OF_ONE // 2 + 3 * STEPS_OF_ONE + 4
"""A step in iteration 5."""
EVERYTHING = PPOConfig(
    total_episodes=8 * ITERATIONS,
    batch_size=8,
    num_mini_batches=2,
    num_ppo_epochs=2,
    micro_batch_tokens=256,
    generation_batch_size=5,
    response_length=6,
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
    eval_prompts=6,
    select=Selection.WIN_RATE,
    save_steps=1,
)
"""Uses every part of the state."""
VARIANTS = {
    1: EVERYTHING,
    2: dataclasses.replace(EVERYTHING, save_steps=2, select=Selection.KL, max_kl=100.0),
}
"""By `save_steps`."""


class Job(NamedTuple):
    """A command: what it trains from, and the folder in which it works."""

    config: PPOConfig
    inputs: PPOInputs
    limits: TokenLimits
    runtime: RuntimeConfig
    folder: Path
    fingerprint: str = "f" * 64


class Moment(NamedTuple):
    """Just before the n-th call of something the child sends itself a signal."""

    place: str
    call: int
    number: signal.Signals = signal.SIGKILL


PLACES: Mapping[str, tuple[object, str]] = {
    "sampling": (rollout, "sample"),
    "stepping": (torch.optim.AdamW, "step"),
    "looking": (Looks, "scores"),
    "writing tensors": (checkpoint, "save_file"),
    "syncing": (os, "fsync"),
    "moving": (os, "rename"),
    "removing": (shutil, "rmtree"),
    "finishing": (SeparateModels, "save_critic"),
}


class LogFile(NullTracker):
    """Writes a line per finished iteration and per note."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if metrics:
            append_line(self.path, f"ends {step}")

    def note(self, text: str) -> None:
        append_line(self.path, f"note {text}")


def train(job: Job, moment: Moment | None, file_limit: int | None) -> None:
    """Do in the child what the command does; leave with its exit code."""
    if moment is not None:
        send_at(moment)
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    log = job.folder / "log"

    def gold(prompts: Sequence[object], answers: Sequence[str]) -> list[float]:
        append_line(log, "begins")
        return [float(len(answer)) for answer in answers]

    try:
        result = train_ppo(
            job.config,
            job.inputs,
            limits=job.limits,
            runtime=job.runtime,
            seed=0,
            out_dir=job.folder,
            tracker=LogFile(log),
            saving=Saving(job.folder / CHECKPOINTS, job.fingerprint),
            gold=gold,
        )
    except RLHFError as error:
        append_line(log, f"error {error}")
        sys.exit(error.exit_code)
    numbers = {"metrics": result.metrics, "steps": result.steps, "iterations": result.iterations}
    write_json(job.folder / "result.json", numbers)


def send_at(moment: Moment) -> None:
    owner, name = PLACES[moment.place]
    original = getattr(owner, name)
    calls = itertools.count(1)

    def hooked(*args: object, **kwargs: object) -> object:
        if next(calls) == moment.call:
            os.kill(os.getpid(), moment.number)
        return original(*args, **kwargs)

    setattr(owner, name, hooked)


def attempt(
    job: Job, *, moment: Moment | None = None, kill_after_s: float | None = None, file_limit: int | None = None
) -> int:
    """Run the command once and return its exit code; -9 where the kill came before its end."""
    child = FORK.Process(target=train, args=(job, moment, file_limit))
    child.start()
    child.join(60 if kill_after_s is None else kill_after_s)
    if child.is_alive():
        assert kill_after_s is not None, "the child hangs"
        child.kill()
    child.join(60)
    assert child.exitcode is not None
    return child.exitcode


def lines(job: Job, first_word: str) -> list[str]:
    """Return the rest of all log lines that begin with a word."""
    log = job.folder / "log"
    every = log.read_text().splitlines() if log.exists() else []
    return [line[len(first_word) :].strip() for line in every if line.split()[0] == first_word]


def finished(job: Job) -> list[int]:
    """Return the iterations that were finished, in order, over all attempts."""
    return [int(number) for number in lines(job, "ends")]


def repeated(job: Job) -> list[int]:
    """Return how many finished iterations each new attempt went back."""
    every = finished(job)
    assert all(after <= before + 1 for before, after in itertools.pairwise([0, *every])), f"a gap in {every}"
    return [before + 1 - after for before, after in itertools.pairwise(every) if after <= before]


def checkpoints(job: Job) -> list[str]:
    return sorted(path.name for path in (job.folder / CHECKPOINTS).iterdir())


def intact(job: Job) -> dict[str, str]:
    """Return a digest of every checkpoint."""
    return {folder.name: folder_digest(folder) for folder in (job.folder / CHECKPOINTS).glob("step-*")}


def content(folder: Path) -> dict[str, torch.Tensor | object]:
    """Return everything that a run decides: policy and critic, its numbers, and all of its last checkpoint."""
    (last,) = (folder / CHECKPOINTS).glob(f"step-{ITERATIONS:08d}")
    found: dict[str, torch.Tensor | object] = {}
    for path in [*folder.glob("policy/*"), *folder.glob("critic/*"), *last.iterdir(), folder / "result.json"]:
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".safetensors":
            found |= {f"{name}:{key}": tensor for key, tensor in load_file(path).items()}
        elif path.suffix == ".json":
            found |= {f"{name}:{key}": value for key, value in json.loads(path.read_text()).items()}
    return found


def differences(found: Job, expected: Job) -> list[str]:
    """Return the names of all that is not the same bit by bit."""
    return unequal(content(found.folder), content(expected.folder))


class Reference(NamedTuple):
    """A run that nobody disturbed."""

    job: Job
    seconds: float


@pytest.fixture(scope="module")
def judge_folder(reward_folder: Path) -> Path:
    """Return a judge of the opposite opinion: what training gains it dislikes, so that the last policy is not the
    best."""
    folder = reward_folder.with_name("contrary")
    shutil.copytree(reward_folder, folder)
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"score.weight": -weights["score.weight"]}, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def make_job(sft_folder, reward_folder, judge_folder, requests, limits, runtime) -> Callable[[PPOConfig, Path], Job]:
    inputs = PPOInputs(sft_folder, [reward_folder], requests[:12], validation=requests[20:40], judge=judge_folder)

    def made(config: PPOConfig, folder: Path) -> Job:
        folder.mkdir(parents=True, exist_ok=True)
        return Job(config, inputs, limits, runtime, folder)

    return made


@pytest.fixture(scope="module")
def references(make_job, tmp_path_factory) -> dict[int, Reference]:
    found = {}
    for save_steps, config in VARIANTS.items():
        job = make_job(config, tmp_path_factory.mktemp("undisturbed"))
        started = time.monotonic()
        assert attempt(job) == 0
        found[save_steps] = Reference(job, time.monotonic() - started)
    return found


def test_the_undisturbed_run_uses_every_part_of_the_state(references):
    for save_steps, reference in references.items():
        state = json.loads((reference.job.folder / CHECKPOINTS / "step-00000006" / "state.json").read_text())
        assert state["kl"][0] != VARIANTS[save_steps].kl_coef
        assert state["moments"][0] == 8 * ITERATIONS
        assert len(state["start_scores"]) == 6
        assert state["selection"]["best_win_rate"] is not None
        assert 0 < state["selection"]["best_iteration"] < ITERATIONS
        assert state["symptoms"]
        assert len(state["history"]) == ITERATIONS
        assert finished(reference.job) == list(range(1, ITERATIONS + 1))
        assert lines(reference.job, "begins") == [""] * ITERATIONS


# SIGKILL


@pytest.mark.parametrize("save_steps", VARIANTS)
@pytest.mark.parametrize(
    ("kills", "seed"), [pytest.param(6, 0, id="6"), pytest.param(50, 1, id="50", marks=pytest.mark.slow)]
)
def test_kills_at_random_moments_change_no_bit(references, make_job, tmp_path, save_steps: int, kills: int, seed: int):
    """Each run is killed up to twice, at times drawn over the length of an undisturbed one; only kills before the end
    count."""
    reference = references[save_steps]
    chance = random.Random(seed)
    landed = 0
    for number in itertools.count():
        job = make_job(VARIANTS[save_steps], tmp_path / str(number))
        times = [chance.uniform(0, reference.seconds) for _ in range(2)]
        codes = [attempt(job, kill_after_s=seconds) for seconds in times]
        landed += codes.count(-signal.SIGKILL)
        assert set(codes) <= {0, -signal.SIGKILL}, f"seed {seed}, run {number}: exit codes {codes}"
        assert attempt(job) == 0
        where = f"seed {seed}, run {number}, kills after {times} s, iterations {finished(job)}"
        assert differences(job, reference.job) == [], where
        assert all(count <= save_steps for count in repeated(job)), where
        shutil.rmtree(job.folder)
        if landed >= kills:
            break


@pytest.mark.parametrize(
    "moment",
    [
        Moment("sampling", 10),
        Moment("stepping", BETWEEN_POLICY_AND_CRITIC),
        Moment("looking", 4),
        Moment("writing tensors", 12),
        Moment("syncing", 25),
        Moment("moving", 9),
        Moment("removing", 12),
        Moment("finishing", 1),
    ],
    ids=lambda moment: f"{moment.place} {moment.call}",
)
def test_a_kill_at_a_chosen_moment_changes_no_bit(references, make_job, tmp_path, moment: Moment):
    job = make_job(VARIANTS[1], tmp_path)
    assert attempt(job, moment=moment) == -signal.SIGKILL
    assert attempt(job) == 0
    assert differences(job, references[1].job) == []
    assert sum(repeated(job)) <= 1


# Interruption


@pytest.mark.parametrize(
    ("moment", "last"),
    [
        (Moment("sampling", 10, signal.SIGTERM), 3),
        (Moment("stepping", 2 * STEPS_OF_ONE - 1, signal.SIGUSR1), 3),
        (Moment("syncing", 5, signal.SIGTERM), 2),
    ],
    ids=lambda value: value.place if isinstance(value, Moment) else "",
)
def test_a_signal_ends_the_run_after_the_iteration_that_it_came_in(
    references, make_job, tmp_path, moment: Moment, last: int
):
    """Iteration 3 is not due to be saved, but now it is; nothing is repeated, and nothing told twice."""
    job = make_job(VARIANTS[2], tmp_path)
    assert attempt(job, moment=moment) == 75
    assert finished(job) == list(range(1, last + 1))
    assert lines(job, "begins") == [""] * last
    assert checkpoints(job)[-1] == f"step-{last:08d}"
    (told,) = lines(job, "error")
    assert told == f"interrupted by {moment.number.name}; the same command carries on after iteration {last}"
    assert not (job.folder / "policy").exists()
    assert attempt(job) == 0
    assert finished(job) == list(range(1, ITERATIONS + 1))
    assert differences(job, references[2].job) == []
    carries_on = f"carries on after iteration {last} of {ITERATIONS}"
    assert [note for note in lines(job, "note") if note != carries_on] == lines(references[2].job, "note")
    assert carries_on in lines(job, "note")


# Damaged and foreign checkpoints


@pytest.fixture(scope="module")
def stopped(make_job, tmp_path_factory) -> Path:
    """Return the folder of a run that was killed in iteration 5, with checkpoints of iterations 3 and 4."""
    job = make_job(VARIANTS[1], tmp_path_factory.mktemp("stopped"))
    assert attempt(job, moment=Moment("stepping", BETWEEN_POLICY_AND_CRITIC)) == -signal.SIGKILL
    assert checkpoints(job) == ["step-00000003", "step-00000004"]
    return job.folder


@pytest.fixture
def killed(stopped: Path, make_job, tmp_path) -> Job:
    """Return a copy of that run."""
    shutil.copytree(stopped, tmp_path / "killed")
    return make_job(VARIANTS[1], tmp_path / "killed")


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "name", "told"),
    [
        (flip_a_bit, "critic-optimizer.safetensors", "changed since it was registered"),
        (Path.unlink, "best-policy.safetensors", "missing"),
        (cut_off, "MANIFEST.json", "damaged"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    references, killed: Job, damage: Callable[[Path], None], name: str, told: str
):
    damage(killed.folder / CHECKPOINTS / "step-00000004" / name)
    assert attempt(killed) == 0
    (refused,) = [note for note in lines(killed, "note") if note.startswith("checkpoint ")]
    assert re.search(rf"step-00000004 is damaged and not used \(.*{name}: {told}", refused)
    assert f"carries on after iteration 3 of {ITERATIONS}" in lines(killed, "note")
    assert finished(killed) == [1, 2, 3, 4, 4, 5, 6]
    assert differences(killed, references[1].job) == []


def test_checkpoints_of_another_run_are_neither_used_nor_removed(killed: Job):
    before = intact(killed)
    other = killed._replace(fingerprint="e" * 64)
    assert attempt(other, moment=Moment("stepping", 1)) == -signal.SIGKILL
    notes = lines(other, "note")
    assert [note for note in notes if "is of another run (fingerprint ffffffffffff" in note] == notes[-3:-1]
    assert not any(note.startswith("carries on") for note in notes)
    assert intact(killed) == before


# A run that diverges, and a disk that is full


def test_a_run_that_diverges_keeps_its_last_checkpoint_and_shows_the_minibatch(references, killed: Job):
    before = intact(killed)
    wild = dataclasses.replace(killed.config, learning_rate=1e30, critic_learning_rate=1e30, max_grad_norm=1e30)
    assert attempt(killed._replace(config=wild)) == DataError.exit_code
    (told,) = lines(killed, "error")
    dump = Path(told.rsplit(" ", 1)[1])
    assert re.search(r"^PPO stopped: fatal \(non_finite_update\).*the minibatch is in ", told)
    assert dump.name == "diverged-iteration-5.safetensors"
    tensors = load_file(dump)
    rows, width = tensors["responses.ids_BR"].shape
    assert rows == EVERYTHING.minibatch_size
    for name in ("responses.mask_BR", "logprobs_BR", "ref_logprobs_BR", "values_BR"):
        assert tensors[name].shape == (rows, width)
    for name in ("targets.advantages_BR", "targets.returns_BR", "targets.rewards_BR"):
        assert tensors[name].isfinite().all()
    assert {"prompts.ids_BP", "prompts.mask_BP", "scores_B", "ended_B", "targets.scores_B"} <= tensors.keys()
    assert not (killed.folder / "policy").exists()
    assert intact(killed) == before
    assert attempt(killed) == 0
    assert differences(killed, references[1].job) == []


def test_the_minibatch_of_a_diverged_run_outlives_the_workspace_of_its_stage(make_job, tmp_path):
    wild = dataclasses.replace(EVERYTHING, learning_rate=1e30, critic_learning_rate=1e30, max_grad_norm=1e30)
    with suppress(DataError), Registry(tmp_path).workspace("f" * 64) as folder:
        job = make_job(wild, folder)
        assert attempt(job) == DataError.exit_code
        (told,) = lines(job, "error")
        raise DataError(told)
    assert "responses.ids_BR" in load_file(told.rsplit(" ", 1)[1])


def test_a_disk_that_takes_no_more_stops_the_run_and_costs_no_bit(references, killed: Job):
    before = intact(killed)
    assert attempt(killed, file_limit=20_000) == 74
    (told,) = lines(killed, "error")
    assert re.search(r"cannot write .*step-00000005.*free space", told)
    assert intact(killed) == before
    assert attempt(killed) == 0
    assert differences(killed, references[1].job) == []
    assert max(repeated(killed)) == 1


# The whole pipeline

LONGER = "ppo.total_episodes=128"
"""Eight iterations."""


def words(folder: Path) -> list[str]:
    """Return the command of the micro experiment."""
    return ["run", *micro.MICRO, LONGER, f"registry.root={folder / 'registry'}"]


def fresh(folder: Path) -> "subprocess.Popen[str]":
    """Start it in a new interpreter."""
    return subprocess.Popen(
        [sys.executable, "-m", "rlhf", *words(folder)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_iteration(ended: Callable[[], bool], registry: Path, above: int) -> int:
    """Return the iteration of PPO's newest checkpoint once it is higher than `above`; other stages have no critic."""
    deadline = time.monotonic() + 200
    while not ended() and time.monotonic() < deadline:
        found = [int(path.parent.name[5:]) for path in registry.glob(".work/*/checkpoints/step-*/policy.safetensors")]
        if max(found, default=0) > above:
            return max(found)
        time.sleep(0.01)
    raise AssertionError(f"no iteration after {above} was saved")


def test_a_pipeline_killed_and_interrupted_within_ppo_gives_the_policy_of_one_that_was_not(tmp_path, capsys):
    registry = tmp_path / "registry"
    first = Command(*words(tmp_path), cwd=tmp_path)
    before = wait_for_iteration(first.ended, registry, 0)
    first.signal(signal.SIGKILL)
    assert first.wait().returncode == -signal.SIGKILL
    shutil.copytree(registry, tmp_path / "other" / "registry", ignore=shutil.ignore_patterns(CHECKPOINTS))

    second = fresh(tmp_path)
    wait_for_iteration(lambda: second.poll() is not None, registry, before + 1)
    second.send_signal(signal.SIGTERM)
    told = second.communicate()[1]
    assert second.returncode == 75, told
    carried_on = re.search(r"carries on after iteration (\d) of 8", told)
    assert carried_on is not None, told
    assert int(carried_on[1]) >= before
    stopped = re.search(r"interrupted by SIGTERM; the same command carries on after iteration (\d)", told)
    assert stopped is not None, told

    micro.run(tmp_path, LONGER)
    assert f"carries on after iteration {stopped[1]} of 8" in capsys.readouterr().err
    assert list((registry / ".work").iterdir()) == []

    micro.run(tmp_path / "other", LONGER)
    for name in ("policy", "critic"):
        found, expected = (
            load_file(Registry(root, create=False).get(name).path / "model.safetensors")
            for root in (registry, tmp_path / "other" / "registry")
        )
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected), name
