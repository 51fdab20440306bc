"""Planned memory: counted against real models, by hand, and against the measured peak of a process."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from reward.config import RewardConfig
from rlhf.config import CriticKind, ExperimentConfig, ModelSharing, PPOConfig, Selection
from rlhf.memory import (
    CHUNK_NUMBERS,
    PROCESS_BYTES,
    ModelShape,
    Phase,
    Shapes,
    available_memory,
    checked_plan,
    memory_problems,
    plan_memory,
    planned_problems,
)
from sft.config import DataConfig, Device, Dtype, ModelConfig, RuntimeConfig
from sft.core.errors import ConfigError

SHAPE = ModelShape(parameters=1000, hidden=10, intermediate=20, layers=3, attention=8, keys=4, vocabulary=50)
SHAPES = Shapes(SHAPE, (SHAPE._replace(parameters=900),))
SMALL = PPOConfig(
    total_episodes=16, batch_size=16, num_mini_batches=2, micro_batch_tokens=64, response_length=6, lora_r=2
)


def configured(ppo: PPOConfig = SMALL, dtype: Dtype = Dtype.FLOAT32, **changes: object) -> ExperimentConfig:
    return ExperimentConfig(
        ppo=dataclasses.replace(ppo, **changes),
        data=DataConfig(max_prompt_tokens=14),
        runtime=RuntimeConfig(device=Device.CPU, dtype=dtype),
        reward=RewardConfig(judge_fraction=0.3),
    )


def parts(config: ExperimentConfig, shapes: Shapes = SHAPES, *, on_gpu: bool = False) -> dict[str, int]:
    return {part.name: part.bytes for part in plan_memory(config, shapes, on_gpu=on_gpu).parts}


# Shapes, counted against real models


def test_the_tiny_model_is_counted_exactly(base_folder: Path):
    found = ModelShape.of_folder(base_folder)
    config = ModelConfig(
        vocab_size=400, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
    )
    assert found == ModelShape.of_tiny(config)
    from safetensors.torch import load_file

    assert found.parameters == sum(x.numel() for x in load_file(base_folder / "model.safetensors").values())


def test_a_model_without_weights_is_counted_from_its_sizes(tmp_path: Path):
    """Fewer heads of keys, heads of a size of their own, an LM head of its own."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=40,
        hidden_size=24,
        intermediate_size=56,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        tie_word_embeddings=False,
    )
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    found = ModelShape.of_folder(tmp_path)
    assert found == ModelShape(sum(p.numel() for p in model.parameters()), 24, 56, 3, 64, 32, 40)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"n_embd": 8, "n_layer": 2}', '{"hidden_size": null}', None])
def test_an_unknown_kind_has_no_shape(tmp_path: Path, text: str | None):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    assert ModelShape.of_folder(tmp_path) is None
    assert Shapes.of_folders(tmp_path, [tmp_path], None) is None


def test_a_broken_file_of_weights_does_not_hide_the_sizes(base_folder: Path, tmp_path: Path):
    (tmp_path / "config.json").write_bytes((base_folder / "config.json").read_bytes())
    for content in (b"", b"\xff" * 20, b"\x02\0\0\0\0\0\0\0[]"):
        (tmp_path / "model.safetensors").write_bytes(content)
        assert ModelShape.of_folder(tmp_path) == ModelShape.of_folder(base_folder)


def test_adapters_are_counted_exactly(sft_folder: Path):
    import torch

    from rlhf.ppo.adapters import SharedModels

    config = PPOConfig(models=ModelSharing.SHARED, lora_r=3)
    models = SharedModels.load(
        sft_folder, sft_folder, config=config, device=torch.device("cpu"), dtype=Dtype.FLOAT32, seed=0
    )
    shape = ModelShape.of_folder(sft_folder)
    assert shape is not None
    assert shape.adapter(3) == sum(p.numel() for p in models.policy_parameters().values())


@pytest.mark.parametrize("sharing", list(ModelSharing))
@pytest.mark.parametrize("keys", [2, 4])
def test_what_a_forward_pass_keeps(sharing: ModelSharing, keys: int):
    """Bytes of every tensor that autograd saves, each once, beside the weights and the logits.

    The last layer keeps less of longer prompts, whose states nobody reads there; the plan counts the most.
    """
    import torch
    from peft import LoraConfig
    from transformers import LlamaConfig, LlamaForCausalLM

    from sft.core.generation import Prompts, Responses
    from sft.core.likelihood import token_statistics
    from sft.core.packing import use_packed_attention

    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 5, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=40, num_key_value_heads=keys, **sizes)
    model = use_packed_attention(LlamaForCausalLM(config).eval())
    if sharing is ModelSharing.SHARED:
        model.requires_grad_(False)
        model.add_adapter(LoraConfig(r=4, target_modules="all-linear"))
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids, mask = torch.ones(8, 31, dtype=torch.long), torch.ones(8, 31, dtype=torch.bool)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        token_statistics(model, Prompts(ids[:, :1], mask[:, :1]), Responses(ids, mask))
    tokens, logits = 8 * 32, 8 * 31 * 40 * 4
    measured = sum(tensor.untyped_storage().nbytes() for tensor in saved.values()) - logits
    shape = ModelShape(0, 64, 96, 5, 64, 16 * keys, 40)
    settings = PPOConfig(models=sharing, lora_r=4)
    assert shape.kept_bytes(settings, Dtype.FLOAT32) * tokens == pytest.approx(measured, rel=0.05)


# A plan, by hand


def test_a_plan_by_hand():
    """Rows of 14 + 6 tokens: 16 are sampled at once, 3 fit into a micro-batch of 64 tokens."""
    found = parts(configured())
    forward = 3 * 10 + 3 * 20
    kept = 4 * 3 * (6 * 10 + 5 * 8 + 4 * 20) + 3 * 40
    logits = 3 * 6 * 50
    assert logits < CHUNK_NUMBERS
    expected = {
        "Python and libraries": PROCESS_BYTES,
        "policy": 4000,
        "policy, optimiser": 8000,
        "critic": 3600,
        "critic, optimiser": 7200,
        "reference": 4000,
        "reward model 1": 3600,
        "key-value cache": 16 * 20 * 3 * 4 * 2 * 4,
        "reading of the prompts": 16 * 14 * (4 * forward + 5 * 14),
        "next tokens": 16 * 50 * 24,
        "forward passes": max(3 * 20 * 4 * forward + 16 * logits, 16 * 21 * 4 * forward),
        "policy, gradients": 4000,
        "critic, gradients": 3600,
        "activations": 60 * kept,
        "logits": 16 * logits,
    }
    training = 4000 + 3600 + expected["activations"] + expected["logits"]
    expected["freed blocks and gaps"] = int(1.4 * training)
    assert found == expected
    plan = plan_memory(configured(), SHAPES)
    assert plan.peak is Phase.TRAINING
    assert plan.total == PROCESS_BYTES + 30400 + training + int(1.4 * training)


def test_shared_models_hold_one_base():
    adapter = SHAPE.adapter(2)
    assert adapter == 3 * 2 * (2 * (10 + 8) + 2 * (10 + 4) + 3 * (10 + 20))
    found = parts(configured(models=ModelSharing.SHARED))
    assert found["base"] == found["merged policy"] == 4000
    assert "reference" not in found
    assert found["policy"] == found["policy, gradients"] == 4 * adapter
    assert found["critic, optimiser"] == 8 * (adapter + 10)
    head = parts(configured(models=ModelSharing.SHARED, critic=CriticKind.HEAD))
    assert (head["critic"], head["critic, optimiser"]) == (40, 80)


def test_options_that_take_memory():
    plain = parts(configured())
    looking = parts(
        configured(eval_steps=2, select=Selection.WIN_RATE), Shapes(SHAPE, (SHAPE, SHAPE), SHAPE._replace(parameters=7))
    )
    assert looking.keys() - plain.keys() == {"judge", "best policy and critic", "reward model 2"}
    assert (looking["judge"], looking["best policy and critic"], looking["reward model 2"]) == (28, 8000, 4000)
    assert parts(configured(generation_batch_size=4))["key-value cache"] * 4 == plain["key-value cache"]
    assert parts(configured(micro_batch_tokens=20))["activations"] * 3 == plain["activations"]
    assert parts(configured(micro_batch_tokens=9999))["activations"] * 3 == plain["activations"] * 8
    layer = 4 * (6 * 10 + 5 * 8 + 4 * 20)
    assert parts(configured(gradient_checkpointing=True))["activations"] == 60 * (layer + 3 * 40 + 3 * 40)
    half = parts(configured(dtype=Dtype.BFLOAT16))
    assert (half["policy"], half["reference"], half["reward model 1"]) == (4000, 2000, 1800)
    assert half["activations"] < plain["activations"]


def test_a_critic_that_starts_from_the_policy_has_its_shape():
    foreign = Shapes(SHAPE, (SHAPE._replace(parameters=5, vocabulary=49),))
    assert parts(configured(), foreign)["critic"] == 4000


def test_a_gpu_holds_neither_libraries_nor_the_best_weights():
    found = parts(configured(select=Selection.KL, max_kl=1.0), on_gpu=True)
    assert not found.keys() & {"Python and libraries", "best policy and critic", "freed blocks and gaps"}


def test_the_table_names_every_part_and_the_peak():
    lines = plan_memory(configured(), SHAPES).table().splitlines()
    assert lines[0] == "planned memory of PPO: 430.4 MiB at its peak, while training"
    assert lines[1].split() == ["always", "Python", "and", "libraries", "430.0", "MiB"]
    assert len(lines) == 1 + len(plan_memory(configured(), SHAPES).parts)


# Refusals


WIDE_SHAPE = ModelShape(2_000_000, 128, 384, 4, 128, 128, 30_000)
WIDE = Shapes(WIDE_SHAPE, (WIDE_SHAPE,))
NORMAL = ExperimentConfig()


def fields(available: int, config: ExperimentConfig = NORMAL) -> str:
    (found,) = memory_problems(config, WIDE, available)
    assert f"{plan_memory(config, WIDE).total:,} bytes" in found.rule
    assert f"{available:,}" in found.rule
    return found.field


def test_what_fits_is_not_refused():
    need = plan_memory(NORMAL, WIDE).total
    assert memory_problems(NORMAL, WIDE, need) == []
    assert len(memory_problems(NORMAL, WIDE, need - 1)) == 1


def test_a_remedy_fits_and_names_what_to_blame():
    """With less and less memory the remedies grow stronger, and each was planned to fit."""
    need, blamed = plan_memory(NORMAL, WIDE).total, set()
    for available in range(need - 1, 1 << 28, -(10 << 20)):
        (found,) = memory_problems(NORMAL, WIDE, available)
        blamed.add(found.field)
        if found.remedy.startswith("use ppo."):
            assert plan_memory(with_words(found.remedy), WIDE).total <= available
        else:
            assert found.field == "ppo.models"
            assert "smaller model" in found.remedy
    assert blamed == {"ppo.micro_batch_tokens", "ppo.models"}
    assert fields(need - 1) == "ppo.micro_batch_tokens"
    sampling = ExperimentConfig(ppo=PPOConfig(total_episodes=4096, batch_size=4096, num_mini_batches=64))
    assert plan_memory(sampling, WIDE).peak is Phase.SAMPLING
    assert fields(plan_memory(sampling, WIDE).total - 1, sampling) == "ppo.generation_batch_size"


def with_words(remedy: str) -> ExperimentConfig:
    changes: dict[str, object] = {}
    for word in remedy.removeprefix("use ").split():
        name, _, value = word.removeprefix("ppo.").partition("=")
        changes[name] = (
            int(value) if value.isdecimal() else ModelSharing.SHARED if value == "shared" else value == "true"
        )
    return ExperimentConfig(ppo=dataclasses.replace(NORMAL.ppo, **changes))


def test_a_plan_from_folders(base_folder: Path, reward_folder: Path, tmp_path: Path):
    config, models = configured(), (base_folder, [reward_folder], None)
    assert checked_plan(config, *models, gpu_free=None).startswith("planned memory of PPO: 43")
    assert "is not planned" in checked_plan(config, tmp_path, [reward_folder], None, gpu_free=1)
    with pytest.raises(ConfigError, match=r"ppo\.\w+=.* needs .* and 1,000 .* on the GPU; use a smaller model"):
        checked_plan(config, *models, gpu_free=1000)


def test_shapes_before_any_model_exists(base_folder: Path, reward_folder: Path):
    tiny = ExperimentConfig()
    shape = ModelShape.of_tiny(tiny.model)
    assert Shapes.of_config(tiny) == Shapes(shape, (shape,), None)
    tiny.sft.from_ = "registered:1"
    assert Shapes.of_config(tiny) is None
    tiny.sft.from_, tiny.reward.from_, tiny.ppo.eval_steps = str(base_folder), str(reward_folder), 5
    tiny.ppo.reward_models = ["registered:2"]
    found = Shapes.of_config(tiny)
    base, reward = ModelShape.of_folder(base_folder), ModelShape.of_folder(reward_folder)
    assert base != reward
    assert found == Shapes(base, (reward, base), base)


def test_a_gpu_is_asked_later():
    config = ExperimentConfig(runtime=RuntimeConfig(device=Device.CUDA))
    assert planned_problems(config, 1) == []
    config.runtime.device = Device.CPU
    assert len(planned_problems(config, 1)) == 1
    assert planned_problems(config, None) == []


# The machine


def machine(root: Path, files: Mapping[str, object]) -> int | None:
    for name, content in {"proc/meminfo": "MemTotal: 9 kB\nMemAvailable:    8000 kB\n", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(str(content))
    return available_memory(root)


def test_memory_of_a_machine(tmp_path: Path):
    assert available_memory(tmp_path) is None
    assert machine(tmp_path, {}) == 8000 * 1024


def test_the_nearest_limit_counts(tmp_path: Path):
    """Version 2: a group within a group; the file cache of each counts as free."""
    group = "sys/fs/cgroup"
    files = {
        "proc/self/cgroup": "0::/outer/inner\n",
        f"{group}/outer/memory.max": 5_000_000,
        f"{group}/outer/memory.current": 2_000_000,
        f"{group}/outer/memory.stat": "anon 1\ninactive_file 500000\n",
        f"{group}/outer/inner/memory.max": "max",
        f"{group}/outer/inner/memory.current": 1,
    }
    assert machine(tmp_path, files) == 3_500_000
    assert machine(tmp_path, {f"{group}/outer/inner/memory.max": 1_000_001}) == 1_000_000
    assert machine(tmp_path, {f"{group}/outer/inner/memory.current": 2_000_000}) == 0


def test_limits_of_version_1(tmp_path: Path):
    group = "sys/fs/cgroup/memory/box"
    files = {
        "proc/self/cgroup": "5:cpu:/elsewhere\n4:memory:/box\n",
        f"{group}/memory.limit_in_bytes": 6_000_000,
        f"{group}/memory.usage_in_bytes": 5_000_000,
        f"{group}/memory.stat": "total_inactive_file 1000000\n",
    }
    assert machine(tmp_path, files) == 2_000_000
    assert machine(tmp_path, {f"{group}/memory.limit_in_bytes": 9223372036854771712}) == 8000 * 1024


def test_inside_a_container_the_mount_is_the_group(tmp_path: Path):
    files = {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": 3_000_000,
        "sys/fs/cgroup/memory.current": 1_000_000,
    }
    assert machine(tmp_path, files) == 2_000_000


def test_planning_loads_no_torch():
    code = "import sys, rlhf.memory; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Against the peak of a process


class Size(NamedTuple):
    hidden: int
    layers: int
    vocabulary: int


SIZES = {"1M": Size(128, 4, 1024), "6M": Size(256, 6, 4096), "26M": Size(512, 7, 4096)}
PEAK = """
import json, re, sys
from pathlib import Path
from rlhf.config import ExperimentConfig, PPOConfig
from rlhf.memory import Shapes, plan_memory
from rlhf.ppo.train import PPOInputs, train_ppo
from sft.config import DataConfig, Device, RuntimeConfig
from sft.core.text import Message, TokenLimits
from sft.core.tracking import NullTracker

folder = Path(sys.argv[1])
config = ExperimentConfig(
    ppo=PPOConfig(total_episodes=32, batch_size=16, num_mini_batches=2, num_ppo_epochs=1, micro_batch_tokens=1024,
                  response_length=64, critic_warmup_iterations=0),
    data=DataConfig(max_prompt_tokens=64),
    runtime=RuntimeConfig(device=Device.CPU, threads=1),
)
prompts = [(Message("user", f"tell me all about {i} " * 30),) for i in range(16)]
inputs = PPOInputs(folder / "sft", [folder / "reward"], prompts)
train_ppo(config.ppo, inputs, limits=TokenLimits(64, 64), runtime=config.runtime, seed=0, out_dir=folder / "out",
          tracker=NullTracker())
plan = plan_memory(config, Shapes.of_folders(inputs.sft, inputs.rewards, None))
peak = 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
print(json.dumps([plan.total, peak]))
"""
"""VmHWM, not ru_maxrss: that of a child starts at what its parent holds."""


def save_models(size: Size, folder: Path) -> None:
    import torch

    from reward.calibration import Calibration
    from reward.train import new_scorer
    from sft.model import build_tiny, load_tokenizer

    config = ModelConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=3 * size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=4,
    )
    texts = [" ".join(f"w{(j * 7919 + k * 104729) % 100003}" for k in range(12)) for j in range(1500)]
    build_tiny(config, texts, seed=0, out_dir=folder / "sft")
    scorer, tokenizer = new_scorer(folder / "sft", seed=1, device=torch.device("cpu")), load_tokenizer(folder / "sft")
    scorer.config.pad_token_id = tokenizer.pad_token_id
    scorer.save_pretrained(folder / "reward")
    tokenizer.save_pretrained(folder / "reward")
    Calibration(0.0, 1.0).save(folder / "reward")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the peak")
@pytest.mark.parametrize(
    "size", [pytest.param(size, marks=[pytest.mark.slow] * (size != "1M"), id=size) for size in SIZES]
)
def test_the_plan_is_within_a_quarter_of_the_peak(tmp_path: Path, size: str):
    save_models(SIZES[size], tmp_path)
    done = subprocess.run([sys.executable, "-c", PEAK, str(tmp_path)], capture_output=True, text=True, check=True)
    planned, peak = json.loads(done.stdout.splitlines()[-1])
    assert planned == pytest.approx(peak, rel=0.25), f"planned {planned >> 20} MiB, peak {peak >> 20} MiB"


def test_a_reward_model_of_adapters_takes_their_room_and_only_with_shared_models():
    def planned(sharing: ModelSharing, rank: int | None) -> int:
        config = ExperimentConfig(ppo=PPOConfig(models=sharing), reward=RewardConfig(lora_r=rank))
        shapes = Shapes.of_config(config)
        assert shapes is not None
        (part,) = [part for part in plan_memory(config, shapes).parts if part.name == "reward model 1"]
        return part.bytes

    shape = ModelShape.of_tiny(ExperimentConfig().model)
    assert planned(ModelSharing.SHARED, 5) == 4 * shape.adapter(5)
    for sharing, rank in ((ModelSharing.SHARED, None), (ModelSharing.SEPARATE, None), (ModelSharing.SEPARATE, 5)):
        assert planned(sharing, rank) == 4 * shape.parameters
