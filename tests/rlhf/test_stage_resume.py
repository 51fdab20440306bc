"""The stages of SFT and reward training carry on from their workspace after a kill, and register the same models."""

import os
import signal
import sys
from pathlib import Path

import micro
import pytest
import torch
from kills import FORK, before_call
from safetensors.torch import load_file

from rlhf import pipeline
from rlhf.registry import CHECKPOINTS, Registry
from sft.core.errors import RLHFError
from sft.core.ledger import read_ledger

WORDS = ("sft.num_train_epochs=2", "reward.num_train_epochs=2", "sft.per_device_train_batch_size=32")
MODELS = ("sft", "reward")


def run_until_ppo(folder: Path, signal_at: tuple[int, signal.Signals] | None, extra: tuple[str, ...]) -> None:
    """Be the command up to PPO; leave with 9 there, or with the code of an error."""

    def leave(*_: object, **__: object) -> None:
        os._exit(9)

    pipeline.run_ppo = leave  # type: ignore[assignment]
    if signal_at is not None:
        before_call(torch.optim.AdamW, "step", signal_at[0], lambda: os.kill(os.getpid(), signal_at[1]))
    try:
        micro.run(folder, *WORDS, *extra)
    except RLHFError as error:
        sys.exit(error.exit_code)


def command(folder: Path, *extra: str, signal_at: tuple[int, signal.Signals] | None = None) -> int | None:
    child = FORK.Process(target=run_until_ppo, args=(folder, signal_at, extra))
    child.start()
    child.join(300)
    return child.exitcode


def saved(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "registry" / ".work").glob(f"*/{CHECKPOINTS}/step-*"))


def models(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    registry = Registry(folder / "registry", create=False)
    return {name: load_file(registry.get(name).path / "model.safetensors") for name in MODELS}


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> dict[str, dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert command(folder) == 9
    assert saved(folder) == [], "nothing is left of what is registered"
    return models(folder)


def test_a_line_killed_and_interrupted_within_sft_and_reward_gives_the_models_of_one_that_was_not(expected, tmp_path):
    registry = Registry(tmp_path / "registry")
    assert command(tmp_path, signal_at=(7, signal.SIGKILL)) == -signal.SIGKILL
    assert saved(tmp_path) == ["step-00000005"]
    assert [artifact.name for artifact in registry.artifacts()] == ["base"]

    left = read_ledger(tmp_path / "run" / "metrics.jsonl").entries[-1].step
    more_often = "sft.save_steps=3"  # changes no bit, so that it is the same stage
    assert command(tmp_path, more_often, signal_at=(2, signal.SIGTERM)) == 75
    assert saved(tmp_path) == ["step-00000006", "step-00000007"], "5 was the older one"
    resumed = [e for e in read_ledger(tmp_path / "run" / "metrics.jsonl").entries if "resumed" in e.metrics]
    assert [(entry.stage, entry.step) for entry in resumed] == [("sft", 5)]
    assert left >= 5

    steps = 10  # the rest of SFT, and some of the reward model's
    assert command(tmp_path, signal_at=(steps, signal.SIGKILL)) == -signal.SIGKILL
    assert [a.name for a in registry.artifacts() if a.name in MODELS] == ["sft"]
    assert command(tmp_path) == 9
    assert saved(tmp_path) == []
    found = models(tmp_path)
    for name in MODELS:
        assert found[name].keys() == expected[name].keys()
        assert all(torch.equal(found[name][key], expected[name][key]) for key in expected[name]), name
    for name in MODELS:
        assert not (registry.get(name).path / CHECKPOINTS).exists()
