import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from reward.adapter import save_adapter
from reward.calibration import Calibration
from reward.model import RewardModel, load_scorer, new_scorer, token_scores
from rlhf.config import CriticKind, ModelSharing, PPOConfig
from rlhf.ppo.adapters import SharedModels, use_gradient_checkpointing
from sft.config import Dtype
from sft.core.errors import ConfigError, DataError
from sft.core.generation import Prompts, Responses, draw_uniforms, pad_left, pad_right, sample
from sft.core.likelihood import TokenStatistics, token_statistics
from sft.core.lora import lora_config
from sft.core.text import encode_answer, encode_prompt
from sft.model import load_causal_lm

CPU = torch.device("cpu")
RANK, ALPHA = 4, 6.0
TEMPERATURE = 0.8
ANSWERS = ["of course .", "to fix a tire , use a patch kit . it takes ten minutes .", "good luck ."]
Batch = tuple[Prompts, Responses]
Load = Callable[..., SharedModels]


@pytest.fixture(scope="module")
def batch(tokenizer, requests) -> Batch:
    prompts = [encode_prompt(tokenizer, requests[i])[3 * i :] for i in range(len(ANSWERS))]
    responses = [encode_answer(tokenizer, answer) for answer in ANSWERS]
    return pad_left(prompts, tokenizer.pad_token_id, CPU), pad_right(responses, tokenizer.pad_token_id, CPU)


@pytest.fixture(scope="module")
def folders(sft_folder: Path, tokenizer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return models of three kinds: rotary and tied; biases and an LM head of its own; transposed weights."""
    torch.manual_seed(0)
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    qwen2 = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=400,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            initializer_range=0.3,
            tie_word_embeddings=False,
            **ends,
        )
    )
    gpt2 = GPT2LMHeadModel(
        GPT2Config(vocab_size=400, n_embd=16, n_layer=2, n_head=2, n_positions=128, initializer_range=0.3, **ends)
    )
    for name, weight in qwen2.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight)
    found = {"llama": sft_folder}
    for name, model in (("qwen2", qwen2), ("gpt2", gpt2)):
        found[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(found[name])
        tokenizer.save_pretrained(found[name])
    return found


@pytest.fixture
def load(folders: dict[str, Path]) -> Load:
    def load(
        critic: CriticKind = CriticKind.MODEL,
        *,
        kind: str = "llama",
        dtype: Dtype = Dtype.FLOAT32,
        seed: int = 0,
        lively: bool = True,
        checkpointing: bool = False,
        reward: Path | None = None,
    ) -> SharedModels:
        config = PPOConfig(
            models=ModelSharing.SHARED,
            critic=critic,
            lora_r=RANK,
            lora_alpha=ALPHA,
            gradient_checkpointing=checkpointing,
        )
        folder = folders[kind]
        models = SharedModels.load(folder, reward or folder, config=config, device=CPU, dtype=dtype, seed=seed)
        if lively:
            give_life(models)
        return models

    return load


def trained(models: SharedModels) -> dict[str, torch.nn.Parameter]:
    return models.policy_parameters() | models.critic_parameters()


def give_life(models: SharedModels, seed: int = 5) -> None:
    """Draw all trained weights, as if training had moved them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in trained(models).values():
            weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))


def statistics(models: SharedModels, batch: Batch) -> TokenStatistics:
    with models.computing():
        return models.policy_statistics(*batch, temperature=TEMPERATURE)


def reference(models: SharedModels, batch: Batch) -> TokenStatistics:
    with models.computing():
        return models.reference_statistics(*batch, temperature=TEMPERATURE)


def values(models: SharedModels, batch: Batch) -> torch.Tensor:
    with models.computing():
        return models.values(*batch)


def policy_objective(found: TokenStatistics) -> torch.Tensor:
    """Return a number that weighs every log-probability and entropy differently."""
    weights = torch.linspace(-1, 2, found.logprobs_BR.numel()).view_as(found.logprobs_BR)
    return (weights * found.logprobs_BR).sum() + (weights.flip(1) * found.entropy_BR).sum()


def value_objective(values_BR: torch.Tensor, mask_BR: torch.Tensor) -> torch.Tensor:
    targets = torch.linspace(-1, 2, values_BR.numel()).view_as(values_BR)
    return torch.where(mask_BR, values_BR - targets, 0.0).square().sum()


def gradients(models: SharedModels) -> dict[str, torch.Tensor]:
    """Return the gradients of all trained weights that have one, and forget them."""
    found = {name: weight.grad for name, weight in trained(models).items() if weight.grad is not None}
    models.model.zero_grad()
    models.value_head.zero_grad()
    return found


def step(parameters: dict[str, torch.nn.Parameter], objective: torch.Tensor) -> None:
    objective.backward()
    torch.optim.SGD(list(parameters.values()), lr=1e-3).step()


BOTH_CRITICS = pytest.mark.parametrize("critic", list(CriticKind))
ALL_KINDS = pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
BOTH_FORMATS = pytest.mark.parametrize("dtype", list(Dtype))


# The start


@ALL_KINDS
@BOTH_FORMATS
@BOTH_CRITICS
def test_policy_starts_as_the_reference_and_values_at_zero(load: Load, batch, critic, dtype, kind: str):
    models = load(critic, kind=kind, dtype=dtype, lively=False)
    own, theirs = statistics(models, batch), reference(models, batch)
    assert torch.equal(own.logprobs_BR, theirs.logprobs_BR)
    assert torch.equal(own.entropy_BR, theirs.entropy_BR)
    assert not values(models, batch).any()
    if critic is CriticKind.HEAD:
        with models.computing():
            both, values_BR = models.policy_and_values(*batch, temperature=TEMPERATURE)
        assert torch.equal(both.logprobs_BR, theirs.logprobs_BR)
        assert not values_BR.any()


def test_reference_is_the_sft_model(load: Load, batch, policy):
    expected = token_statistics(policy, *batch, temperature=TEMPERATURE)
    models = load()
    assert torch.equal(reference(models, batch).logprobs_BR, expected.logprobs_BR)
    assert (statistics(models, batch).logprobs_BR - expected.logprobs_BR).abs().max() > 0.1


def test_adapters_depend_on_the_seed_alone(load: Load):
    before = torch.get_rng_state()
    first = load(lively=False, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    again, other = load(lively=False, seed=3), load(lively=False, seed=4)
    for name, weight in trained(first).items():
        assert torch.equal(weight, trained(again)[name])
        assert torch.equal(weight, trained(other)[name]) == ("lora_A" not in name)
    a_policy, a_critic = (next(iter(x.values())) for x in (first.policy_parameters(), first.critic_parameters()))
    assert not torch.equal(a_policy, a_critic)


# What is in memory, and what is trained


def numbers(tensors: list[torch.Tensor]) -> int:
    """Return the numbers in distinct storages."""
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() // x.element_size() for x in tensors}
    return sum(storages.values())


@ALL_KINDS
@BOTH_FORMATS
@BOTH_CRITICS
def test_there_is_one_base(load: Load, folders, batch, critic, dtype, kind: str):
    models = load(critic, kind=kind, dtype=dtype)
    for look in (statistics, values, reference):
        look(models, batch)
    base = load_causal_lm(folders[kind], device=CPU, dtype=dtype)
    held = [*models.model.parameters(), *models.value_head.parameters()]
    assert numbers(held) == numbers(list(base.parameters())) + numbers(list(trained(models).values()))


@ALL_KINDS
@BOTH_CRITICS
def test_adapters_and_head_are_trained_in_float32_and_nothing_else(load: Load, critic, kind: str):
    models = load(critic, kind=kind, dtype=Dtype.BFLOAT16)
    held = [*models.model.parameters(), *models.value_head.parameters()]
    assert {id(x) for x in held if x.requires_grad} == {id(x) for x in trained(models).values()}
    assert {x.dtype for x in trained(models).values()} == {torch.float32}
    assert {x.dtype for x in held if not x.requires_grad} == {torch.bfloat16}
    linear_layers = {"llama": 7, "qwen2": 7, "gpt2": 4}[kind] * 2
    assert len(models.policy_parameters()) == 2 * linear_layers
    assert len(models.critic_parameters()) == (2 * linear_layers + 1 if critic is CriticKind.MODEL else 2)
    assert not models.policy_parameters().keys() & models.critic_parameters().keys()


@BOTH_FORMATS
def test_passes_compute_in_the_format_of_the_run(load: Load, dtype):
    models = load(dtype=dtype)
    with models.computing():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype is {Dtype.FLOAT32: torch.float32, Dtype.BFLOAT16: torch.bfloat16}[dtype]


# Gradients


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_their_own_adapter_though_others_were_used_since(load: Load, batch, checkpointing: bool):
    models = load(checkpointing=checkpointing)
    policy_objective(statistics(models, batch)).backward()
    of_policy = gradients(models)
    value_objective(values(models, batch), batch[1].mask_BR).backward()
    of_critic = gradients(models)
    assert of_policy.keys() == models.policy_parameters().keys()
    assert of_critic.keys() == models.critic_parameters().keys()
    assert all(x.any() for x in [*of_policy.values(), *of_critic.values()])

    policy_loss = policy_objective(statistics(models, batch))
    value_loss = value_objective(values(models, batch), batch[1].mask_BR)
    reference(models, batch)
    (policy_loss + value_loss).backward()
    assert models.adapters.active() is None
    together = gradients(models)
    for name, expected in (of_policy | of_critic).items():
        torch.testing.assert_close(together[name], expected)


def check_against_merged(models: SharedModels, adapter: str, found: dict[str, torch.Tensor], full: PreTrainedModel):
    """Compare with dL/dA = s B^T dL/dW and dL/dB = s dL/dW A^T, W being the merged weight."""
    scale = ALPHA / RANK
    weights = trained(models)
    for name, expected in full.named_parameters():
        a, b = (f"{name.removesuffix('.weight')}.{matrix}.{adapter}.weight" for matrix in ("lora_A", "lora_B"))
        if a not in weights:
            continue
        gradient = expected.grad.T if models.model.config.model_type == "gpt2" else expected.grad
        torch.testing.assert_close(found[a], scale * weights[b].T @ gradient, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found[b], scale * gradient @ weights[a].T, rtol=1e-3, atol=1e-4)


@ALL_KINDS
def test_policy_gradient_is_that_of_the_merged_weights(load: Load, batch, tmp_path: Path, kind: str):
    models = load(kind=kind)
    policy_objective(statistics(models, batch)).backward()
    models.save_policy(tmp_path)
    full = load_causal_lm(tmp_path, device=CPU, dtype=Dtype.FLOAT32)
    policy_objective(token_statistics(full, *batch, temperature=TEMPERATURE)).backward()
    check_against_merged(models, "policy", gradients(models), full)


@ALL_KINDS
def test_critic_gradient_is_that_of_the_merged_weights(load: Load, batch, tmp_path: Path, kind: str):
    models = load(kind=kind)
    value_objective(values(models, batch), batch[1].mask_BR).backward()
    models.save_critic(tmp_path)
    full = load_scorer(tmp_path, device=CPU, dtype=Dtype.FLOAT32)
    value_objective(token_scores(full, *batch)[:, :-1], batch[1].mask_BR).backward()
    found = gradients(models)
    check_against_merged(models, "critic", found, full)
    torch.testing.assert_close(found["value_head.weight"], full.score.weight.grad, rtol=1e-3, atol=1e-4)


@ALL_KINDS
def test_one_pass_gives_what_two_give(load: Load, batch, kind: str):
    models = load(CriticKind.HEAD, kind=kind)
    policy_loss = policy_objective(statistics(models, batch))
    value_loss = value_objective(values(models, batch), batch[1].mask_BR)
    (policy_loss + 3 * value_loss).backward()
    expected = gradients(models)
    assert models.one_pass
    found, values_BR = models.policy_and_values(*batch, temperature=TEMPERATURE)
    torch.testing.assert_close(policy_objective(found), policy_loss)
    torch.testing.assert_close(value_objective(values_BR, batch[1].mask_BR), value_loss)
    (policy_objective(found) + 3 * value_objective(values_BR, batch[1].mask_BR)).backward()
    found_gradients = gradients(models)
    assert found_gradients.keys() == expected.keys() == trained(models).keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found_gradients[name], gradient, rtol=1e-4, atol=1e-4)


def test_value_loss_reaches_the_trunk_that_it_shares(load: Load, batch):
    models = load(CriticKind.HEAD)
    _, values_BR = models.policy_and_values(*batch, temperature=TEMPERATURE)
    value_objective(values_BR, batch[1].mask_BR).backward()
    assert all(weight.grad.any() for weight in models.policy_parameters().values())


def test_two_adapters_have_no_common_pass(load: Load, batch):
    models = load()
    assert not models.one_pass
    with pytest.raises(AssertionError, match="two passes"):
        models.policy_and_values(*batch, temperature=TEMPERATURE)


def test_a_step_of_one_changes_no_other(load: Load, batch):
    models = load()
    looks = {
        "policy": lambda: statistics(models, batch).logprobs_BR.detach(),
        "critic": lambda: values(models, batch).detach(),
        "reference": lambda: reference(models, batch).logprobs_BR.detach(),
    }
    steps = {
        "policy": lambda: step(models.policy_parameters(), policy_objective(statistics(models, batch))),
        "critic": lambda: step(models.critic_parameters(), value_objective(values(models, batch), batch[1].mask_BR)),
    }
    for stepped, make_step in steps.items():
        before = {name: look() for name, look in looks.items()}
        make_step()
        changed = {name for name, look in looks.items() if not torch.equal(look(), before[name])}
        assert changed == {stepped}


# Sampling


def test_sampling_is_from_the_policy(load: Load, batch, tokenizer):
    models = load()
    reference(models, batch)
    with models.sampling() as model:
        found = token_statistics(model, *batch, temperature=TEMPERATURE)
    assert torch.equal(found.logprobs_BR, statistics(models, batch).logprobs_BR)


@torch.no_grad()
def test_checkpointing_leaves_sampling_its_cache(load: Load, batch, tokenizer):
    uniforms_BR = draw_uniforms(seed=0, stream="test", iteration=0, rows=range(3), length=12)
    answers = []
    for checkpointing in (False, True):
        with load(checkpointing=checkpointing).sampling() as model:
            ids = {"eos_id": tokenizer.eos_token_id, "pad_id": tokenizer.pad_token_id}
            answers.append(sample(model, batch[0], uniforms_BR, temperature=1.0, **ids))
    assert torch.equal(answers[0].ids_BR, answers[1].ids_BR)


# Files


@BOTH_CRITICS
def test_weights_go_into_a_fresh_instance_by_name(load: Load, batch, critic):
    models, fresh = load(critic), load(critic, lively=False)
    with torch.no_grad():
        for name, weight in trained(fresh).items():
            weight.copy_(trained(models)[name])
    assert torch.equal(statistics(fresh, batch).logprobs_BR, statistics(models, batch).logprobs_BR)
    assert torch.equal(values(fresh, batch), values(models, batch))


@ALL_KINDS
@BOTH_CRITICS
def test_saved_policy_is_a_plain_model_with_the_same_distribution(load, batch, folders, tmp_path, critic, kind: str):
    models = load(critic, kind=kind)
    before = {name: weight.clone() for name, weight in models.model.state_dict().items()}
    expected = statistics(models, batch)
    models.save_policy(tmp_path)
    assert all(torch.equal(weight, before[name]) for name, weight in models.model.state_dict().items())
    found = token_statistics(load_causal_lm(tmp_path, device=CPU, dtype=Dtype.FLOAT32), *batch, temperature=TEMPERATURE)
    torch.testing.assert_close(found.logprobs_BR, expected.logprobs_BR, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.entropy_BR, expected.entropy_BR, rtol=0, atol=1e-5)
    with (
        safe_open(tmp_path / "model.safetensors", "pt") as saved,
        safe_open(folders[kind] / "model.safetensors", "pt") as original,
    ):
        assert set(saved.keys()) == set(original.keys())
    assert not (tmp_path / "adapter_config.json").exists()


@BOTH_CRITICS
def test_saved_critic_scores_states_with_the_same_values(load: Load, batch, tmp_path: Path, critic):
    models = load(critic)
    models.save_critic(tmp_path)
    scorer, calibration = load_scorer(tmp_path, device=CPU, dtype=Dtype.FLOAT32), Calibration.load(tmp_path)
    found_BR = (token_scores(scorer, *batch)[:, :-1] - calibration.offset) / calibration.temperature
    mask_BR = batch[1].mask_BR
    expected_BR = values(models, batch)
    torch.testing.assert_close(found_BR[mask_BR], expected_BR[mask_BR], rtol=0, atol=1e-5)
    assert expected_BR[mask_BR].std() > 0.1
    assert not expected_BR[~mask_BR].any()
    assert (calibration.offset != 0) == (critic is CriticKind.HEAD)


def test_small_updates_of_a_bfloat16_base_are_saved(load: Load, folders, tmp_path: Path):
    models = load(dtype=Dtype.BFLOAT16)
    assert models.mixed_precision
    with torch.no_grad():
        for weight in models.policy_parameters().values():
            weight.mul_(1e-3)
    models.save_policy(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert saved.keys() == load_file(folders["llama"] / "model.safetensors").keys()
    base = models.model.model.layers[0].mlp.up_proj.base_layer.weight
    delta = saved["model.layers.0.mlp.up_proj.weight"] - base.float()
    a, b = (models.policy_parameters()[f"model.layers.0.mlp.up_proj.lora_{x}.policy.weight"] for x in "AB")
    torch.testing.assert_close(delta, ALPHA / RANK * b @ a, rtol=0, atol=5e-8)
    assert delta.any()


# Gradient checkpointing


def kept_numbers(make_loss: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, int]:
    """Return a loss and how many numbers its graph keeps for the backward pass."""
    kept: dict[int, int] = {}

    def count(x: torch.Tensor) -> torch.Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes() // x.element_size()
        return x

    with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
        loss = make_loss()
    return loss, sum(kept.values())


@ALL_KINDS
def test_checkpointing_keeps_less_and_changes_nothing(load: Load, batch, kind: str):
    found = []
    for checkpointing in (False, True):
        models = load(kind=kind, checkpointing=checkpointing)
        loss, kept = kept_numbers(lambda models=models: policy_objective(statistics(models, batch)))
        loss.backward()
        found.append((loss, kept, gradients(models)))
    (plain, plain_kept, expected), (loss, kept, again) = found
    assert torch.equal(loss, plain)
    assert kept < 0.7 * plain_kept
    assert again.keys() == expected.keys()
    assert all(torch.equal(again[name], gradient) for name, gradient in expected.items())


def test_checkpointing_of_a_whole_model(folders, batch, tmp_path: Path):
    plain, changed = (load_causal_lm(folders["llama"], device=CPU, dtype=Dtype.FLOAT32) for _ in range(2))
    use_gradient_checkpointing(changed)
    for model in (plain, changed):
        policy_objective(token_statistics(model, *batch)).backward()
    for weight, expected in zip(changed.parameters(), plain.parameters(), strict=True):
        assert torch.equal(weight.grad, expected.grad)
    changed.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert saved.keys() == load_file(folders["llama"] / "model.safetensors").keys()


@BOTH_CRITICS
def test_files_do_not_depend_on_checkpointing(load: Load, tmp_path: Path, critic):
    for checkpointing in (False, True):
        models = load(critic, checkpointing=checkpointing)
        models.save_policy(tmp_path / f"policy-{checkpointing}")
        models.save_critic(tmp_path / f"critic-{checkpointing}")
    for name in ("policy", "critic"):
        one, other = (load_file(tmp_path / f"{name}-{flag}" / "model.safetensors") for flag in (False, True))
        assert one.keys() == other.keys()
        assert all(torch.equal(weight, other[key]) for key, weight in one.items())


def test_a_model_without_decoder_layers_cannot_be_checkpointed():
    with pytest.raises(ConfigError, match=r"ppo.gradient_checkpointing=True: does not work with Linear"):
        use_gradient_checkpointing(torch.nn.Linear(2, 2))


def test_a_value_head_refuses_a_model_that_scales_its_logits(tokenizer, tmp_path: Path):
    config = GraniteConfig(
        vocab_size=400,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        logits_scaling=8.0,
    )
    GraniteForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    config = PPOConfig(models=ModelSharing.SHARED, critic=CriticKind.HEAD)
    with pytest.raises(
        ConfigError, match=r"ppo.critic='head': does not work with GraniteForCausalLM.*ppo.critic=model"
    ):
        SharedModels.load(tmp_path, tmp_path, config=config, device=CPU, dtype=Dtype.FLOAT32, seed=0)


# A reward model that is one more adapter


@pytest.fixture(scope="module")
def rewards(folders: dict[str, Path], tokenizer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return, for each base, a reward model of random adapters: merged weights, adapters, calibration."""
    found = {}
    for number, (kind, base) in enumerate(folders.items()):
        found[kind] = folder = tmp_path_factory.mktemp(f"reward-{kind}")
        scorer = new_scorer(base, seed=number, device=CPU)
        scorer.config.pad_token_id = tokenizer.pad_token_id
        adapted = get_peft_model(scorer, lora_config(scorer, r=3, alpha=2.0, task="SEQ_CLS"))
        generator = torch.Generator().manual_seed(number)
        for name, weight in adapted.named_parameters():
            if ".lora_" in name or "modules_to_save" in name:
                weight.data = 0.3 * torch.randn(weight.shape, generator=generator)
        save_adapter(folder, adapted, base=base, r=3, alpha=2.0)
        adapted.merge_and_unload().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        Calibration(0.4, 1.7).save(folder)
    return found


def scores(models: SharedModels, folder: Path, batch: Batch) -> torch.Tensor:
    model = models.reward_model(folder, max_prompt_tokens=50)
    assert model is not None
    return model.score_tokens(*batch)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_the_adapter_scores_as_the_merged_reward_model_does(load: Load, rewards, batch: Batch, kind: str):
    merged = RewardModel.load(rewards[kind], device=CPU, dtype=Dtype.FLOAT32, max_prompt_tokens=50)
    found = scores(load(kind=kind, reward=rewards[kind]), rewards[kind], batch)
    torch.testing.assert_close(found, merged.score_tokens(*batch), atol=1e-4, rtol=1e-4)
    assert found.std() > 0.05


@pytest.mark.parametrize("critic", list(CriticKind))
def test_scoring_changes_neither_policy_nor_critic_nor_reference(load: Load, rewards, batch: Batch, critic):
    plain, with_reward = load(critic), load(critic, reward=rewards["llama"])
    for models in (plain, with_reward):
        policy_objective(statistics(models, batch)).backward()
    scored = scores(with_reward, rewards["llama"], batch)
    assert not scored.requires_grad
    assert torch.equal(values(plain, batch), values(with_reward, batch))
    assert torch.equal(reference(plain, batch).logprobs_BR, reference(with_reward, batch).logprobs_BR)
    assert torch.equal(statistics(plain, batch).logprobs_BR, statistics(with_reward, batch).logprobs_BR)
    one, other = gradients(plain), gradients(with_reward)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_reward_adapter_never_trains_and_adds_no_second_base(load: Load, rewards, batch: Batch):
    plain, models = load(), load(reward=rewards["llama"])
    own = {name: weight for name, weight in models.model.named_parameters() if ".reward." in name}
    assert own
    scores(models, rewards["llama"], batch)
    policy_objective(statistics(models, batch)).backward()
    assert not any(weight.requires_grad or weight.grad is not None for weight in own.values())
    assert not own.keys() & trained(models).keys()
    extra = sum(p.numel() for p in models.model.parameters()) - sum(p.numel() for p in plain.model.parameters())
    assert extra == sum(weight.numel() for weight in own.values())
    assert models.reward_head is not None
    shell = models.reward_model(rewards["llama"], 50).model
    assert {id(p) for p in shell.parameters()} <= {id(p) for p in models.model.parameters()} | {
        id(models.reward_head.weight)
    }


def test_a_reward_model_of_another_base_is_loaded_on_its_own(load: Load, rewards):
    models = load(reward=rewards["qwen2"])
    assert models.reward_model(rewards["qwen2"], 50) is None


def test_saved_policies_hold_nothing_of_the_reward_adapter(load: Load, rewards, tmp_path: Path):
    load().save_policy(tmp_path / "plain")
    load(reward=rewards["llama"]).save_policy(tmp_path / "with")
    assert (tmp_path / "plain/model.safetensors").read_bytes() == (tmp_path / "with/model.safetensors").read_bytes()


def test_adapters_that_do_not_fit_are_refused(load: Load, rewards, tmp_path: Path):
    folder = Path(shutil.copytree(rewards["llama"], tmp_path / "reward"))
    path = folder / "adapter/adapter.safetensors"
    weights = load_file(path)
    del weights["model.layers.0.mlp.up_proj.lora_A"]
    save_file(weights, path)
    with pytest.raises(DataError, match=r"do not fit the SFT model \(model.layers.0.mlp.up_proj.lora_A\)"):
        load(reward=folder)


def test_in_bfloat16_the_scores_are_close(load: Load, rewards, batch: Batch):
    exact = scores(load(reward=rewards["llama"]), rewards["llama"], batch)
    half = scores(load(dtype=Dtype.BFLOAT16, reward=rewards["llama"]), rewards["llama"], batch)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, atol=0.1, rtol=0.1)
