import dataclasses
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from reward.calibration import Calibration
from reward.model import load_scorer
from rlhf.config import PPOConfig
from rlhf.ppo.metrics import rollout_metrics
from rlhf.ppo.models import SeparateModels
from rlhf.ppo.rollout import Rollout
from rlhf.ppo.scores import RunningMoments
from rlhf.ppo.targets import Targets, make_targets
from rlhf.ppo.train import PPOInputs, PPOResult, Saving, train_ppo
from rlhf.ppo.update import make_optimisers, minibatches
from sft.config import Dtype
from sft.core.errors import DataError
from sft.core.generation import Prompts, Responses
from sft.core.tracking import NullTracker
from sft.model import load_causal_lm, load_tokenizer

CONFIG = PPOConfig(
    total_episodes=24,
    batch_size=8,
    num_mini_batches=2,
    num_ppo_epochs=2,
    micro_batch_tokens=128,
    response_length=8,
    learning_rate=1e-3,
    critic_learning_rate=1e-3,
    critic_warmup_iterations=1,
)
CPU = torch.device("cpu")
NO_MORE: dict[str, object] = {}


class Recorder(NullTracker):
    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.notes: list[str] = []

    def log(self, step: int, metrics) -> None:
        self.rows.append((step, dict(metrics)))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def alert(self, title: str, text: str, level: str = "WARN") -> None:
        self.notes.append(text)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(first: Path, second: Path) -> bool:
    a, b = weights(first), weights(second)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def largest_difference(first: Path, second: Path) -> float:
    a, b = weights(first), weights(second)
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.fixture(scope="module")
def train(sft_folder, reward_folder, requests, limits, runtime):
    def trained(
        out_dir: Path,
        *,
        seed: int = 0,
        tracker=None,
        gold=None,
        prompts=requests[:12],
        saving=None,
        inputs=NO_MORE,
        **changes,
    ) -> PPOResult:
        return train_ppo(
            dataclasses.replace(CONFIG, **changes) if changes else CONFIG,
            PPOInputs(sft_folder, [reward_folder], prompts, **inputs),
            limits=limits,
            runtime=runtime,
            seed=seed,
            out_dir=out_dir,
            tracker=tracker or NullTracker(),
            saving=saving,
            gold=gold,
        )

    return trained


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
def result(train, recorder, tmp_path_factory) -> PPOResult:
    return train(tmp_path_factory.mktemp("ppo") / "out", tracker=recorder)


# Targets, by hand


def rollout_by_hand() -> Rollout:
    """Return two answers: one of two tokens that ended with a score of 2, one of three that was cut off at 1."""
    mask = torch.tensor([[True, True, False], [True, True, True]])
    return Rollout(
        Prompts(torch.ones(2, 1, dtype=torch.long), torch.ones(2, 1, dtype=torch.bool)),
        Responses(torch.zeros(2, 3, dtype=torch.long), mask),
        logprobs_BR=torch.tensor([[-1.0, -1.0, 50.0], [-1.0, -1.0, -1.0]]),
        ref_logprobs_BR=torch.tensor([[-1.5, -1.0, 7.0], [-1.0, -0.5, -1.0]]),
        values_BR=torch.tensor([[0.5, 1.0, 30.0], [0.0, 0.0, 0.0]]),
        entropy_BR=torch.tensor([[1.0, 2.0, 90.0], [3.0, 4.0, 5.0]]),
        scores_B=torch.tensor([2.0, 1.0]),
        ended_B=torch.tensor([True, False]),
        control_B=torch.tensor([False, True]),
    )


def targets_of(config: PPOConfig) -> Targets:
    return make_targets(rollout_by_hand(), config, kl_coef=config.kl_coef, moments=RunningMoments())


def targets_config(**changes) -> PPOConfig:
    return dataclasses.replace(
        CONFIG, **({"kl_coef": 0.1, "gamma": 1.0, "lam": 1.0, "missing_eos_penalty": 3.0} | changes)
    )


def test_targets_by_hand():
    """Rewards -0.05, 2 and 0, 0.05, 1 - 3; with lambda 1 the returns are their sums from the right."""
    targets = targets_of(targets_config())
    assert torch.allclose(targets.returns_BR, torch.tensor([[1.95, 2.0, 0.0], [-1.95, -1.95, -2.0]]))
    raw = np.array([1.45, 1.0, -1.95, -1.95, -2.0])
    expected = (raw - raw.mean()) / raw.std()
    assert targets.advantages_BR[rollout_by_hand().responses.mask_BR].numpy() == pytest.approx(expected, abs=1e-5)
    assert targets.advantages_BR[0, 2] == 0


def test_only_an_answer_without_eos_is_penalised():
    free, dear = (targets_of(targets_config(missing_eos_penalty=p)).returns_BR for p in (0.0, 3.0))
    assert torch.allclose(free - dear, torch.tensor([[0.0, 0, 0], [3, 3, 3]]))


def test_whitened_rewards_are_scaled_before_the_returns():
    """Their mean, 0.6, stays where scaling puts it."""
    plain = targets_of(targets_config(missing_eos_penalty=0.0)).returns_BR
    whitened = targets_of(targets_config(missing_eos_penalty=0.0, whiten_rewards=True)).returns_BR
    deviation = np.std([-0.05, 2, 0, 0.05, 1])
    assert torch.allclose(whitened, plain / deviation, atol=1e-5)


def test_numbers_of_a_rollout_by_hand():
    config = targets_config()
    found = rollout_metrics(rollout_by_hand(), targets_of(config), kl_coef=config.kl_coef)
    assert found["objective/kl"] == pytest.approx((0.5 - 0.5) / 2)
    assert found["objective/entropy"] == pytest.approx(3.0)
    assert found["objective/scores"] == 1.5
    assert found["objective/rlhf_reward"] == pytest.approx((2 + 1 - 3) / 2)
    assert found["response/mean_tokens"] == 2.5
    assert found["response/ended_fraction"] == 0.5
    assert found["response/control_fraction"] == 0.5
    returns, values = np.array([1.95, 2, -1.95, -1.95, -2]), np.array([0.5, 1, 0, 0, 0])
    assert found["val/explained_variance"] == pytest.approx(1 - (returns - values).var() / returns.var(), rel=1e-5)


def test_every_epoch_visits_every_answer_once():
    parts = minibatches(CONFIG, seed=0, iteration=0)
    assert [len(part) for part in parts] == [4] * 4
    for epoch in (parts[:2], parts[2:]):
        assert sorted(torch.cat(epoch).tolist()) == list(range(8))
    assert not torch.equal(torch.cat(parts[:2]), torch.cat(parts[2:]))
    assert not torch.equal(torch.cat(parts), torch.cat(minibatches(CONFIG, seed=0, iteration=1)))


# Training


def test_files_are_safe_and_load(result, reward_folder):
    assert (result.checkpoint.name, result.critic.name) == ("policy", "critic")
    names = {path.name for path in result.checkpoint.parent.rglob("*") if path.is_file()}
    assert {Path(name).suffix for name in names} <= {".safetensors", ".json", ".jinja"}
    assert {path.name for path in result.checkpoint.parent.iterdir()} == {"policy", "critic"}
    load_causal_lm(result.checkpoint, device=CPU, dtype=Dtype.FLOAT32)
    load_scorer(result.critic, device=CPU, dtype=Dtype.FLOAT32)
    assert load_tokenizer(result.checkpoint).eos_token == load_tokenizer(result.critic).eos_token == "<|eos|>"
    assert Calibration.load(result.critic) == Calibration.load(reward_folder)


def test_the_first_ratio_is_1_and_numbers_are_reported(result, recorder):
    assert result.metrics["first_ratio_deviation"] < 1e-5
    assert (result.steps, result.metrics["iterations"]) == (3 * 2 * 2, 3)
    assert [row["iteration"] for row in result.iterations] == [1, 2, 3]
    assert [step for step, _ in recorder.rows] == [1, 2, 3]
    for _, numbers in recorder.rows:
        assert {"objective/kl", "policy/clipfrac_avg", "val/ratio", "loss/value_avg"} <= numbers.keys()
        assert all(np.isfinite(value) for value in numbers.values())
        assert numbers["val/first_ratio_deviation"] < 1e-5
    kl = [numbers["objective/kl"] for _, numbers in recorder.rows]
    assert kl[:2] == pytest.approx([0, 0], abs=1e-5)
    assert abs(kl[2]) > 1e-3
    assert [numbers["lr"] for _, numbers in recorder.rows] == pytest.approx([1e-3, 2e-3 / 3, 1e-3 / 3])


def test_adam_has_the_epsilon_that_early_steps_need(sft_folder, reward_folder):
    """1e-5, not PyTorch's 1e-8: Huang et al. 2024, arXiv 2403.17031."""
    models = SeparateModels.load(sft_folder, reward_folder, device=CPU, dtype=Dtype.FLOAT32)
    for optimiser in make_optimisers(models, PPOConfig()):
        assert [group["eps"] for group in optimiser.param_groups] == [1e-5]


def test_policy_and_critic_have_moved(result, sft_folder, reward_folder):
    assert largest_difference(result.checkpoint, sft_folder) > 1e-4
    assert largest_difference(result.critic, reward_folder) > 1e-4


def test_the_same_seed_gives_the_same_bits_whatever_gold_says(train, result, sft_folder, tmp_path):
    config, before = asdict(CONFIG), {path: path.read_bytes() for path in sft_folder.iterdir()}
    absurd = train(tmp_path / "absurd", gold=lambda prompts, answers: [1e30 * len(a) for a in answers])
    assert same(absurd.checkpoint, result.checkpoint)
    assert same(absurd.critic, result.critic)
    assert absurd.iterations[0]["gold"] > 1e29
    assert [row | {"gold": None} for row in absurd.iterations] == result.iterations
    assert {path: path.read_bytes() for path in sft_folder.iterdir()} == before
    assert asdict(CONFIG) == config
    other = train(tmp_path / "other", seed=1)
    assert not same(other.checkpoint, result.checkpoint)


@pytest.mark.parametrize(
    "changes", [{"micro_batch_tokens": 1}, {"micro_batch_tokens": 9999}, {"generation_batch_size": 3}]
)
def test_batch_sizes_change_memory_and_not_the_result(train, result, tmp_path, changes):
    other = train(tmp_path / "out", **changes)
    assert largest_difference(other.checkpoint, result.checkpoint) < 1e-5
    assert largest_difference(other.critic, result.critic) < 1e-5


def test_while_the_critic_warms_up_the_policy_stays(train, sft_folder, reward_folder, tmp_path):
    result = train(tmp_path / "out", critic_warmup_iterations=3)
    assert same(result.checkpoint, sft_folder)
    assert not same(result.critic, reward_folder)


def test_too_much_kl_stops_before_the_next_update(train, tmp_path):
    tracker = Recorder()
    changes = {"learning_rate": 1e-2, "critic_warmup_iterations": 0, "total_episodes": 80, "kl_coef": 0.0}
    result = train(tmp_path / "out", tracker=tracker, max_kl=0.5, **changes)
    kl = [row["kl"] for row in result.iterations]
    assert 1 < len(kl) < 10
    assert kl[-1] > 0.5 >= max(kl[:-1])
    assert result.steps == 4 * (len(kl) - 1)
    assert tracker.notes[-1] == f"stopped at KL {kl[-1]:.1f} nats > ppo.max_kl=0.5"
    assert (tmp_path / "out" / "policy" / "model.safetensors").is_file()


def test_the_reward_rises(train, tmp_path):
    """Twenty iterations without a KL penalty: the proxy must climb, or a sign is wrong somewhere."""
    result = train(
        tmp_path / "out",
        total_episodes=20 * 32,
        batch_size=32,
        num_mini_batches=4,
        kl_coef=0.0,
        missing_eos_penalty=0.0,
        learning_rate=3e-3,
    )
    rewards = [row["reward"] for row in result.iterations]
    assert np.mean(rewards[-5:]) > np.mean(rewards[:5]) + 0.05


def test_no_prompts_is_an_error(train, tmp_path):
    with pytest.raises(DataError, match=r"no training prompts for PPO; give data\.prompts_path"):
        train(tmp_path / "out", prompts=[])


def test_losses_that_are_no_numbers_stop_the_run(train, tmp_path):
    with pytest.raises(DataError, match=r"non_finite.* lower ppo\.learning_rate.* the minibatch is in .*diverged-it"):
        train(tmp_path / "out", critic_learning_rate=1e30, max_grad_norm=1e30)
    assert [path.suffix for path in (tmp_path / "out").iterdir()] == [".safetensors"]


def test_weights_that_are_no_numbers_are_not_saved(train, tmp_path):
    """A last step can break them, and no later loss of the iteration would show it."""
    saving = Saving(tmp_path / "checkpoints", "0" * 64)
    changes = {"num_mini_batches": 1, "num_ppo_epochs": 1, "critic_learning_rate": 1e38, "save_steps": 1}
    with pytest.raises(DataError, match="non_finite_weights"):
        train(tmp_path / "out", saving=saving, **changes)
    assert not list((tmp_path / "checkpoints").glob("step-*"))
