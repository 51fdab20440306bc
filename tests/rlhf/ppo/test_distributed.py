"""PPO on two processes against one with the same global batch. Processes are forked, sockets are real."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from micro import MICRO
from ranks import run_ranks, start, told, wait
from safetensors.torch import load_file

from rlhf import preflight
from rlhf.config import CriticKind, ModelSharing, PPOConfig
from rlhf.pipeline import check_processes, follow, run_experiment
from rlhf.ppo.models import SeparateModels
from rlhf.ppo.sharding import divide, division_problems
from rlhf.ppo.train import PPOInputs, Saving, train_ppo
from sft.config import Device, Dtype, RuntimeConfig, Strategy
from sft.core.distributed import whole
from sft.core.durable import write_json
from sft.core.errors import ConfigError, Interrupted
from sft.core.tracking import NullTracker
from sft.core.world import ALONE, World

CPU = torch.device("cpu")
CONFIG = PPOConfig(
    total_episodes=30,
    batch_size=10,
    num_mini_batches=2,
    num_ppo_epochs=2,
    micro_batch_tokens=48,
    response_length=8,
    learning_rate=1e-3,
    critic_learning_rate=1e-3,
    critic_warmup_iterations=1,
    entropy_coef=0.01,
    eval_steps=1,
    eval_prompts=4,
    save_steps=1,
)
"""Five rows a minibatch: the processes differ in rows, and in micro-batches."""
STRATEGIES = list(Strategy)
BOTH = pytest.mark.parametrize("strategy", STRATEGIES)


class At(NullTracker):
    """Does something at the end of an iteration, and prints notes."""

    def __init__(self, step: int, do: Callable[[], None]) -> None:
        self.step, self.do = step, do

    def log(self, step: int, metrics) -> None:
        if step == self.step and metrics:
            self.do()

    def note(self, text: str) -> None:
        print(text, flush=True)


def signal_self(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


@pytest.fixture(scope="module")
def train(sft_folder, reward_folder, requests, limits):
    """Return what trains in one process of a world; its results stand in numbers-RANK.json."""

    def trained(
        folder: Path, *, world: World = ALONE, strategy=Strategy.DDP, tracker=None, saves=False, allow=(), **changes
    ) -> Path:
        result = train_ppo(
            dataclasses.replace(CONFIG, **changes),
            PPOInputs(sft_folder, [reward_folder], requests[:12], requests[20:30], reward_folder),
            limits=limits,
            runtime=RuntimeConfig(device=Device.CPU, threads=1, world_size=world.size, strategy=strategy),
            seed=0,
            out_dir=folder,
            tracker=tracker or NullTracker(),
            saving=Saving(folder / "checkpoints", "f" * 64, allow) if saves else None,
            world=world,
        )
        write_json(folder / f"numbers-{world.rank}.json", [result.iterations, result.metrics])
        return folder

    return trained


@pytest.fixture(scope="module")
def alone(train, tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def pair(train, tmp_path_factory) -> Callable[[Strategy], Path]:
    """Return what gives the folder of an uninterrupted run of two processes."""
    found: dict[Strategy, Path] = {}

    def trained(strategy: Strategy) -> Path:
        if strategy not in found:
            folder = found[strategy] = tmp_path_factory.mktemp(strategy)

            def work(peers) -> None:
                with peers.together() as world:
                    train(folder, world=world, strategy=strategy)

            run_ranks(2, folder, work)
        return found[strategy]

    return trained


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{model}.{name}": value
        for model in ("policy", "critic")
        for name, value in load_file(folder / model / "model.safetensors").items()
    }


def difference(first: Path, second: Path) -> float:
    """Return the largest difference of any weight of policy and critic."""
    a, b = weights(first), weights(second)
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def numbers(folder: Path, rank: int = 0) -> tuple[list[dict[str, float]], dict[str, float]]:
    """Return the rows of all iterations, and the last numbers but those that rounding decides: shares of ties."""
    iterations, metrics = json.loads((folder / f"numbers-{rank}.json").read_text())
    return iterations, {name: value for name, value in metrics.items() if "clipfrac" not in name}


@BOTH
def test_two_processes_give_what_one_gives(pair, alone, strategy):
    together = pair(strategy)
    assert difference(together, alone) < 1e-5
    (ours, our_last), (theirs, their_last) = numbers(together), numbers(alone)
    assert len(ours) == 3
    for row, expected in zip(ours, theirs, strict=True):
        assert row == pytest.approx(expected, abs=1e-5)
    assert {"loss/policy_avg", "loss/value_avg", "eval/win_rate", "policy/approxkl_avg"} <= our_last.keys()
    assert our_last == pytest.approx(their_last, abs=1e-5)


@BOTH
def test_all_processes_see_the_same_numbers(pair, strategy):
    assert numbers(pair(strategy), 0) == numbers(pair(strategy), 1)


@pytest.mark.parametrize("critic", list(CriticKind))
def test_shared_models_train_together_too(train, critic, tmp_path):
    changes = {"models": ModelSharing.SHARED, "critic": critic, "total_episodes": 20, "eval_steps": None}

    def work(peers) -> None:
        with peers.together() as world:
            train(tmp_path, world=world, **changes)

    run_ranks(2, tmp_path, work)
    assert difference(tmp_path, train(tmp_path / "alone", **changes)) < 1e-5


def test_sharded_models_may_recompute_activations(train, tmp_path):
    changes = {"gradient_checkpointing": True, "total_episodes": 20, "eval_steps": None}

    def work(peers) -> None:
        with peers.together() as world:
            train(tmp_path, world=world, strategy=Strategy.FSDP, **changes)

    run_ranks(2, tmp_path, work)
    assert difference(tmp_path, train(tmp_path / "alone", **changes)) < 1e-5


@BOTH
def test_a_killed_process_stops_the_other_and_the_same_command_carries_on(train, pair, strategy, tmp_path):
    """Bit by bit as if nothing had happened; a checkpoint of two processes is refused to one."""

    def work(peers, do: Callable[[], None]) -> None:
        with peers.together() as world:
            train(tmp_path, world=world, strategy=strategy, tracker=At(2, do) if world.rank else None, saves=True)

    killed = start(2, tmp_path, lambda peers: work(peers, signal_self(signal.SIGKILL)))
    assert wait(killed, seconds=30) == [1, -signal.SIGKILL]
    assert "another process of this run has died" in told(tmp_path)
    newest = max(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert newest in ("step-00000001", "step-00000002")  # rank 0 may have saved before it noticed

    with pytest.raises(ConfigError, match=r"resume\.allow=\[\]: lacks world_size"):
        train(tmp_path, saves=True)
    run_ranks(2, tmp_path, lambda peers: work(peers, lambda: None))
    assert f"carries on after iteration {newest[-1]} of 3" in told(tmp_path)
    resumed, uninterrupted = weights(tmp_path), weights(pair(strategy))
    assert all(torch.equal(resumed[name], uninterrupted[name]) for name in uninterrupted)


def test_another_number_of_processes_carries_on_where_it_is_allowed(train, pair, alone, tmp_path):
    def work(peers) -> None:
        with peers.together() as world, pytest.raises(Interrupted):
            train(tmp_path, world=world, tracker=At(1, signal_self(signal.SIGTERM)), saves=True)

    run_ranks(2, tmp_path, work)
    train(tmp_path, saves=True, allow=["world_size"])
    assert difference(tmp_path, alone) < 1e-5


@pytest.mark.parametrize("asked", [0, 1])
def test_a_signal_to_one_process_stops_all_at_the_same_iteration(train, asked, tmp_path):
    def work(peers) -> None:
        do = signal_self(signal.SIGUSR1) if peers.world.rank == asked else lambda: None
        with peers.together() as world, pytest.raises(Interrupted, match=r"SIGUSR1.* carries on after iteration 2"):
            train(tmp_path, world=world, tracker=At(2, do), saves=True, save_steps=5, total_episodes=40)

    run_ranks(2, tmp_path, work)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]


def test_sharded_weights_lie_in_parts_and_gather_for_sampling(sft_folder, reward_folder, tmp_path):
    def work(peers) -> None:
        with peers.together() as world:
            models = SeparateModels.load(sft_folder, reward_folder, device=CPU, dtype=Dtype.FLOAT32)
            before = {name: value.detach().clone() for name, value in models.policy.named_parameters()}
            division = divide(models, world, Strategy.FSDP)
            for parameters in (models.policy_parameters(), models.critic_parameters()):
                local = sum(p.to_local().numel() for p in parameters.values())
                assert 0.4 < local / sum(p.numel() for p in parameters.values()) < 0.6
            with division.weights_gathered():
                assert all(torch.equal(p, before[name]) for name, p in models.policy.named_parameters())
                ids = torch.ones(1, 3 + world.rank, dtype=torch.long)
                for _ in range(1 + 3 * world.rank):  # waits for nobody
                    models.policy(input_ids=ids)
            assert all(torch.equal(whole(p.detach()), before[n]) for n, p in models.policy_parameters().items())

    run_ranks(2, tmp_path, work)


def test_what_cannot_be_divided():
    two, fsdp = World(0, 2), RuntimeConfig(strategy=Strategy.FSDP)
    shared = dataclasses.replace(CONFIG, models=ModelSharing.SHARED)
    assert division_problems(CONFIG, fsdp, two) == division_problems(shared, fsdp, ALONE) == []
    compiled = dataclasses.replace(CONFIG, compile=True)
    for config in (shared, compiled):
        assert [p.field for p in division_problems(config, fsdp, two)] == ["runtime.strategy"]
    (problem,) = division_problems(CONFIG, RuntimeConfig(), World(0, 11))
    assert str(problem).startswith("ppo.batch_size=10: is less than the 11 processes")


def experiment(folder: Path, *extra: str):
    (point,) = preflight.check([*MICRO, f"registry.root={folder / 'registry'}", *extra])
    return point.config


def test_the_pipeline_refuses_another_number_of_processes(tmp_path):
    with pytest.raises(ConfigError, match=r"runtime\.world_size=3: but 2 processes take part; start it with torchrun"):
        check_processes(experiment(tmp_path, "runtime.world_size=3"), World(0, 2))
    shared = experiment(tmp_path, "runtime.strategy=fsdp", "ppo.models=shared")
    with pytest.raises(ConfigError, match=r"runtime\.strategy='fsdp'"):
        check_processes(shared, World(0, 2))


def test_the_pipeline_on_two_processes(tmp_path):
    """Rank 0 runs all stages, the other takes part in PPO and ends with rank 0's exit code; only rank 0 writes."""

    def work(peers) -> None:
        if peers.world.rank:
            sys.exit(follow(peers) + 10)
        config = experiment(tmp_path, "runtime.world_size=2")
        with peers.leading():
            run_experiment(config, experiment="micro", out_dir=tmp_path / "out", peers=peers)

    assert wait(start(2, tmp_path, work), seconds=90) == [0, 10], told(tmp_path)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["registry"]["policy"] == "policy:1"
    assert (tmp_path / "rank-1.txt").read_text() == ""
    assert (tmp_path / "registry" / "critic" / "1" / "model.safetensors").is_file()


@pytest.mark.slow
def test_torchrun(tmp_path):
    """The command as people type it; a second one finds everything done."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "rlhf"]
    command += ["run", *MICRO, f"registry.root={tmp_path}/registry", f"hydra.run.dir={tmp_path}/out", "--json"]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    for _ in range(2):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
        assert json.loads(done.stdout)["registry"]["policy"] == "policy:1"
    refused = subprocess.run([*command, "runtime.world_size=3"], env=environment, capture_output=True, text=True)
    assert "runtime.world_size=3: but 2 processes take part" in refused.stderr
