"""Each option of the loop does what it says, seen from outside: through `train_ppo` on tiny models."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from reward.calibration import Calibration
from reward.model import load_scorer, token_scores
from reward.train import new_scorer
from rlhf.config import Ensemble, ModelSharing, PPOConfig, Selection
from rlhf.ppo import train as loop
from rlhf.ppo.rollout import Rollout
from rlhf.ppo.targets import Targets, make_targets
from rlhf.ppo.train import PPOInputs, PPOResult, train_ppo
from sft.config import Dtype, ModelConfig, Schedule
from sft.core.errors import ConfigError, DataError
from sft.core.likelihood import token_statistics
from sft.core.tracking import NullTracker
from sft.model import build_tiny, load_causal_lm, load_tokenizer

CONFIG = PPOConfig(
    total_episodes=24,
    batch_size=8,
    num_mini_batches=2,
    num_ppo_epochs=2,
    micro_batch_tokens=256,
    response_length=8,
    learning_rate=1e-3,
    critic_learning_rate=1e-3,
    lr_scheduler_type=Schedule.CONSTANT,
    critic_warmup_iterations=0,
    missing_eos_penalty=0.0,
)
CPU = torch.device("cpu")
LOOKS = {"eval_steps": 2, "eval_prompts": 12}
DRIFTING = {"total_episodes": 80, "learning_rate": 1e-2, "kl_coef": 0.0}
"""A policy that soon leaves the reference."""


class Recorder(NullTracker):
    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.notes: list[str] = []

    def log(self, step: int, metrics) -> None:
        self.rows.append(dict(metrics))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def column(self, name: str) -> list[float]:
        return [row[name] for row in self.rows]


@dataclasses.dataclass
class Ran:
    result: PPOResult
    told: Recorder

    def column(self, name: str) -> list[float]:
        return self.told.column(name)


Train = Callable[..., Ran]


@pytest.fixture
def train(sft_folder: Path, reward_folder: Path, requests, limits, runtime, tmp_path_factory) -> Train:
    def trained(*, rewards=None, judge=None, gold=None, out_dir=None, start=None, **changes) -> Ran:
        told = Recorder()
        result = train_ppo(
            dataclasses.replace(CONFIG, **changes),
            PPOInputs(sft_folder, rewards or [reward_folder], requests[:12], requests[20:40], judge, start),
            limits=limits,
            runtime=runtime,
            seed=0,
            out_dir=out_dir or tmp_path_factory.mktemp("ppo") / "out",
            tracker=told,
            gold=gold,
        )
        return Ran(result, told)

    return trained


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Rollout, Targets]]:
    """Return what every iteration saw and aimed at, filled as the loop runs."""
    found: list[tuple[Rollout, Targets]] = []

    def spy(rollout: Rollout, *args: object, **settings) -> Targets:
        targets = make_targets(rollout, *args, **settings)
        found.append((rollout, targets))
        return targets

    monkeypatch.setattr(loop, "make_targets", spy)
    return found


def same(first: Path, second: Path) -> bool:
    a, b = (load_file(folder / "model.safetensors") for folder in (first, second))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def same_policy(first: Ran, second: Ran) -> bool:
    return same(first.result.checkpoint, second.result.checkpoint) and same(first.result.critic, second.result.critic)


def copy_scorer(source: Path, folder: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> Path:
    """Write a reward model whose head is changed."""
    model = load_scorer(source, device=CPU, dtype=Dtype.FLOAT32)
    with torch.no_grad():
        model.score.weight.copy_(change(model.score.weight))
    model.save_pretrained(folder)
    load_tokenizer(source).save_pretrained(folder)
    Calibration.load(source).save(folder)
    return folder


@pytest.fixture(scope="module")
def opposite(reward_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a judge that likes what the reward model dislikes."""
    return copy_scorer(reward_folder, tmp_path_factory.mktemp("opposite"), lambda weight: -weight)


@pytest.fixture(scope="module")
def rival(opposite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the same with scores on the level of the reward model's, so that now one is lower and now the other."""
    folder = copy_scorer(opposite, tmp_path_factory.mktemp("rival"), lambda weight: weight)
    Calibration(-0.47, 1.7).save(folder)
    return folder


# The KL in the reward


def test_the_adaptive_coefficient_moves_by_the_formula(train: Train):
    """Down by a tenth (0.2 * 8 / 16) while the policy is the reference, up once it has left."""
    target = 0.3
    ran = train(**DRIFTING | {"kl_coef": 0.05, "total_episodes": 48}, kl_target_nats_per_sequence=target, kl_horizon=16)
    coefs, kls = ran.column("objective/kl_coef"), ran.column("objective/kl")
    steps = [1 + min(max(kl / target - 1, -0.2), 0.2) * 8 / 16 for kl in kls]
    assert coefs[0] == 0.05
    assert steps[0] == pytest.approx(0.9)
    assert max(steps) == pytest.approx(1.1)
    expected = [coef * step for coef, step in zip(coefs, steps, strict=True)]
    assert coefs[1:] == pytest.approx(expected[:-1])


# Scores


def test_scores_are_normalised_by_all_so_far_and_then_clipped(train: Train, seen: list[tuple[Rollout, Targets]]):
    ran = train(normalize_scores=True, score_clip=0.8)
    so_far = np.empty(0)
    clipped = 0
    for rollout, targets in seen:
        raw = rollout.scores_B.double().numpy()
        so_far = np.concatenate([so_far, raw])
        expected = np.clip((raw - so_far.mean()) / so_far.std(), -0.8, 0.8)
        clipped += int((abs(expected) == 0.8).sum())
        assert targets.scores_B.numpy() == pytest.approx(expected, abs=1e-5)
    assert len(seen) == 3
    assert 3 < clipped < 21
    rollout, targets = seen[0]
    last_B = rollout.responses.mask_BR.sum(dim=1) - 1
    assert torch.allclose(targets.rewards_BR[range(8), last_B], targets.scores_B, atol=1e-5)
    assert ran.column("objective/scores")[0] == pytest.approx(float(rollout.scores_B.mean()))


def test_the_length_penalty_shortens_answers(train: Train):
    ran = train(
        total_episodes=12 * 32,
        batch_size=32,
        learning_rate=5e-3,
        kl_coef=0.0,
        reward_model_weight=0.0,
        reward_functions={"length_penalty": 100.0},
    )
    lengths = [row["length"] for row in ran.result.iterations]
    assert np.mean(lengths[-3:]) < 0.6 * np.mean(lengths[:3])


def scores_by_hand(folder: Path, rollout: Rollout, tokenizer) -> list[float]:
    """Score one answer at a time, without padding, with transformers alone.

    All answers end with the EOS; of those with other control tokens the text is read.
    """
    eos_id, marks = tokenizer.eos_token_id, {*tokenizer.all_special_ids} - {tokenizer.eos_token_id}
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1).eval()
    calibration = Calibration.load(folder)
    found = []
    for row in range(len(rollout.scores_B)):
        prompt = rollout.prompts.ids_BP[row][rollout.prompts.mask_BP[row]].tolist()
        answer = rollout.responses.ids_BR[row][rollout.responses.mask_BR[row]].tolist()
        if not marks.isdisjoint(answer):
            answer = tokenizer(tokenizer.decode(answer, skip_special_tokens=True).strip())["input_ids"]
        ids = prompt + answer + [eos_id] * (not answer or answer[-1] != eos_id)
        with torch.no_grad():
            raw = float(model(input_ids=torch.tensor([ids])).logits)
        found.append((raw - calibration.offset) / calibration.temperature)
    return found


def test_the_worst_of_two_reward_models_scores(
    train: Train, seen: list[tuple[Rollout, Targets]], reward_folder: Path, rival: Path, tokenizer
):
    ran = train(rewards=[reward_folder, rival], ensemble=Ensemble.WORST)
    rollout = seen[0][0]
    by_model = np.array([scores_by_hand(folder, rollout, tokenizer) for folder in (reward_folder, rival)])
    assert len(set(by_model.argmin(axis=0))) == 2
    assert rollout.scores_B.numpy() == pytest.approx(by_model.min(axis=0), abs=1e-4)
    assert ran.column("objective/scores")[0] == pytest.approx(by_model.min(axis=0).mean(), abs=1e-4)


def test_the_critic_starts_at_zero_where_the_reward_model_reads_other_tokens(
    train: Train, seen: list[tuple[Rollout, Targets]], tmp_path: Path
):
    config = ModelConfig(
        vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    build_tiny(config, ["the quick brown fox jumps over the lazy dog"] * 3, seed=3, out_dir=tmp_path / "base")
    tokenizer, scorer = load_tokenizer(tmp_path / "base"), new_scorer(tmp_path / "base", seed=2, device=CPU)
    scorer.config.pad_token_id = tokenizer.pad_token_id
    scorer.save_pretrained(tmp_path / "reward")
    tokenizer.save_pretrained(tmp_path / "reward")
    Calibration(0.1, 0.01).save(tmp_path / "reward")
    ran = train(rewards=[tmp_path / "reward"], total_episodes=16)
    first, second = (rollout for rollout, _ in seen)
    assert not first.values_BR.any()
    assert first.scores_B.std() > 1e-3
    assert second.values_BR.any()
    assert Calibration.load(ran.result.critic) == Calibration(0.0, 1.0)
    assert load_tokenizer(ran.result.critic).get_vocab() == load_tokenizer(ran.result.checkpoint).get_vocab()


# The update


def test_an_entropy_bonus_raises_the_entropy(train: Train):
    plain, curious = (train(entropy_coef=coef, total_episodes=64).column("objective/entropy") for coef in (0.0, 0.5))
    assert curious[0] == plain[0]
    assert curious[-1] > plain[-1] + 0.1


def test_the_dual_clip_acts_where_it_binds_alone(train: Train):
    plain, loose, tight = (
        train(dual_clip=bound, learning_rate=1e-2, total_episodes=16) for bound in (None, 1e6, 1.0001)
    )
    assert same_policy(plain, loose)
    assert not same(plain.result.checkpoint, tight.result.checkpoint)


@pytest.mark.parametrize(
    ("schedule", "after"),
    [
        (Schedule.COSINE, [1.0, (1 + math.cos(math.pi / 3)) / 2, (1 + math.cos(2 * math.pi / 3)) / 2]),
        (Schedule.LINEAR, [1, 2 / 3, 1 / 3]),
        (Schedule.CONSTANT, [1, 1, 1]),
    ],
)
def test_learning_rates_as_logged(train: Train, schedule: Schedule, after: list[float]):
    """Two iterations of five warm up: a half, then all."""
    ran = train(lr_scheduler_type=schedule, warmup_iterations=2, total_episodes=40)
    assert ran.column("lr") == pytest.approx([1e-3 * factor for factor in [0.5, 1.0, *after]])


# Looks and selection


def test_looks_are_logged_when_due_and_disturb_nothing(train: Train, opposite: Path):
    """Neither do absurd words of gold beside them."""
    blind = train(total_episodes=40)
    looking = train(total_episodes=40, judge=opposite, **LOOKS)
    absurd = train(
        total_episodes=40, judge=opposite, gold=lambda prompts, answers: [-1e30 * len(a) for a in answers], **LOOKS
    )
    assert ["eval/win_rate" in row for row in looking.told.rows] == [False, True, False, True, False]
    assert all("eval/win_rate" not in row for row in blind.told.rows)
    for row in looking.told.rows[1::2]:
        assert 0 <= row["eval/win_rate_low"] <= row["eval/win_rate"] <= row["eval/win_rate_high"] <= 1
    assert same_policy(looking, blind)
    assert same_policy(absurd, blind)
    assert absurd.told.rows[0]["objective/gold"] < -1e29


def test_the_policy_of_the_best_look_is_kept_whatever_gold_says(train: Train, opposite: Path):
    """The judge's taste is the opposite of the reward, so that training makes it worse."""
    settings = DRIFTING | LOOKS | {"select": Selection.WIN_RATE, "total_episodes": 64}

    def gold(prompts, answers):
        return [float(len(a)) for a in answers]

    plain, golden = train(judge=opposite, **settings), train(judge=opposite, gold=gold, **settings)
    win_rates = [row["eval/win_rate"] for row in plain.told.rows if "eval/win_rate" in row]
    best = 2 * (1 + int(np.argmax(win_rates)))
    assert len(win_rates) == 4
    assert best < 8
    assert f"kept the policy after iteration {best} (win_rate: {max(win_rates):.3g})" in plain.told.notes
    assert same_policy(plain, train(**DRIFTING | {"total_episodes": 8 * best}))
    assert same_policy(plain, golden)


def test_patience_ends_a_run(train: Train, opposite: Path):
    ran = train(judge=opposite, early_stopping_patience=2, **DRIFTING | LOOKS | {"total_episodes": 160})
    win_rates = [row["eval/win_rate"] for row in ran.told.rows if "eval/win_rate" in row]
    best = int(np.argmax(win_rates))
    assert len(win_rates) == best + 3
    assert len(ran.result.iterations) == 2 * (best + 3) < 20
    note = f"stopped after iteration {2 * (best + 3)}: no better win rate in 2 looks (ppo.early_stopping_patience)"
    assert note in ran.told.notes


def test_the_last_policy_within_the_kl_is_kept(train: Train):
    """A rollout measures the policy before its update: three rollouts within the limit are two updates."""
    slowly = DRIFTING | {"learning_rate": 1e-3}
    ran = train(select=Selection.KL, max_kl=0.5, **slowly)
    kls = [row["kl"] for row in ran.result.iterations]
    within = [number for number, kl in enumerate(kls) if kl <= 0.5]
    assert kls[-1] > 0.5
    assert within == list(range(len(kls) - 1))
    assert within[-1] >= 1
    assert f"kept the policy after iteration {within[-1]} (kl: {kls[within[-1]]:.3g})" in ran.told.notes
    assert same_policy(ran, train(**slowly | {"total_episodes": 8 * within[-1]}))


# Where the policy starts


@pytest.fixture
def elsewhere(train: Train) -> Path:
    """Return a policy that has left the reference."""
    return train(**DRIFTING | {"total_episodes": 16}).result.checkpoint


def test_a_policy_that_starts_elsewhere_is_held_to_the_sft_model(
    train: Train, elsewhere: Path, seen, sft_folder: Path, reward_folder: Path
):
    seen.clear()
    ran = train(start=elsewhere, total_episodes=8, critic_warmup_iterations=1)
    rollout = seen[0][0]
    mask_BR = rollout.responses.mask_BR
    for folder, found_BR in ((elsewhere, rollout.logprobs_BR), (sft_folder, rollout.ref_logprobs_BR)):
        model = load_causal_lm(folder, device=CPU, dtype=Dtype.FLOAT32)
        expected_BR = token_statistics(model, rollout.prompts, rollout.responses, temperature=1.0).logprobs_BR
        assert torch.allclose(found_BR[mask_BR], expected_BR[mask_BR], atol=1e-5)
    critic = load_scorer(reward_folder, device=CPU, dtype=Dtype.FLOAT32)
    raw_BR = token_scores(critic, rollout.prompts, rollout.responses)[:, :-1]
    calibration = Calibration.load(reward_folder)
    assert torch.allclose(
        rollout.values_BR[mask_BR], ((raw_BR - calibration.offset) / calibration.temperature)[mask_BR], atol=1e-5
    )
    assert ran.column("objective/kl")[0] > 0.1
    assert ran.column("val/first_ratio_deviation")[0] < 1e-5
    assert same(ran.result.checkpoint, elsewhere)  # the critic warmed up, and the policy stood still


def test_to_start_from_the_sft_model_is_to_start_from_nothing_else(train: Train, sft_folder: Path):
    assert same_policy(train(), train(start=sft_folder))


def test_a_start_of_other_tokens_is_refused(train: Train, tmp_path: Path):
    build_tiny(ModelConfig(vocab_size=300, hidden_size=32), ["other words"] * 50, seed=0, out_dir=tmp_path / "other")
    with pytest.raises(DataError, match="no KL is defined between them; start from a policy"):
        train(start=tmp_path / "other")


def test_adapters_cannot_start_elsewhere_than_their_base(train: Train, sft_folder: Path):
    with pytest.raises(ConfigError, match=r"use ppo\.models=separate, or labels\.rounds=1"):
        train(start=sft_folder, models=ModelSharing.SHARED)


# The doctor


def test_a_broken_reward_model_stops_the_run_before_any_step(
    train: Train, reward_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    broken = copy_scorer(reward_folder, tmp_path / "broken", lambda weight: weight * float("nan"))
    steps = []
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda optimiser: steps.append(optimiser))
    with pytest.raises(DataError, match=r"PPO stopped: fatal \(non_finite_scores\).* runtime\.dtype=float32"):
        train(rewards=[broken], out_dir=tmp_path / "out")
    assert steps == []
    assert not (tmp_path / "out").exists()


def test_a_warning_is_told_once(train: Train):
    ran = train(response_length=1)
    assert all(row["response/ended_fraction"] < 0.5 for row in ran.told.rows)
    assert len(ran.told.rows) == 3
    assert sum("truncated_answers" in note for note in ran.told.notes) == 1
