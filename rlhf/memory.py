"""The memory that PPO will need, from the shapes of its models alone: no weights are loaded, torch is not imported.

Some parts are held from the first step to the last; others come and go with a phase, and the largest phase counts.
`docs/memory.md` compares plans with measured peaks. Outside `rlhf/ppo`, whose door loads torch.

Letters: H hidden size, I size of the feed-forward layers, A = heads * head size, K = heads of keys * head size,
V vocabulary.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from rlhf.config import CriticKind, ExperimentConfig, ModelSharing, PPOConfig, Selection
from rlhf.inputs import names_folder
from sft.config import Device, Dtype, ModelConfig, ModelKind
from sft.core.config import raise_problems
from sft.core.errors import ConfigProblem

PROCESS_BYTES = 430 << 20
"""Resident set on a CPU of torch and transformers, imported and used; measured with torch 2.13 on Linux."""
HEAP_FACTOR = {
    (ModelSharing.SEPARATE, CriticKind.MODEL): 2.4,
    (ModelSharing.SHARED, CriticKind.HEAD): 2.9,
    (ModelSharing.SHARED, CriticKind.MODEL): 4.0,
}
"""What glibc's heap takes at the peak over what is in use there: before glibc 2.38, `posix_memalign` cannot use a freed
block of exactly its size again, so gaps remain, more of them the more passes follow one another. Fitted on a CPU to the
peaks in docs/memory.md."""
CHUNK_NUMBERS = 1 << 18
"""As in `sft/core/likelihood.py`: logits whose log-probabilities are taken together."""
REWARD_ROWS = 64
"""As in `rlhf/ppo/rewards.py`: answers that a reward model reads at once."""
MAX_HEADER_BYTES = 100 << 20
"""As in safetensors."""
_NVIDIA = Path("/dev/nvidiactl")


class ModelShape(NamedTuple):
    """What a decoder's memory depends on."""

    parameters: int
    hidden: int
    intermediate: int
    layers: int
    attention: int
    """A."""
    keys: int
    """K."""
    vocabulary: int

    @classmethod
    def of_tiny(cls, model: ModelConfig) -> "ModelShape":
        """Return the shape of a `model.kind=tiny` model."""
        return cls._of_numbers(
            {
                "hidden_size": model.hidden_size,
                "intermediate_size": model.intermediate_size,
                "num_hidden_layers": model.num_hidden_layers,
                "num_attention_heads": model.num_attention_heads,
                "vocab_size": model.vocab_size,
            },
            tied=True,
        )

    @classmethod
    def of_folder(cls, folder: Path) -> "ModelShape | None":
        """Return the shape of a Hugging Face folder; None where its config.json does not describe a plain decoder.

        Parameters are counted in the headers of its safetensors files, else from the sizes.
        """
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
            optional = ("num_key_value_heads", "head_dim")
            sizes = {name: int(config[name]) for name in names}
            sizes |= {name: int(config[name]) for name in optional if config.get(name) is not None}
            shape = cls._of_numbers(sizes, tied=bool(config.get("tie_word_embeddings", True)))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError):
            return None
        counted = sum(map(_parameters_in, folder.glob("*.safetensors")))
        return shape._replace(parameters=counted) if counted else shape

    @classmethod
    def _of_numbers(cls, sizes: Mapping[str, int], *, tied: bool) -> "ModelShape":
        hidden, intermediate, heads = sizes["hidden_size"], sizes["intermediate_size"], sizes["num_attention_heads"]
        head_size = sizes.get("head_dim", hidden // heads)
        attention, keys = heads * head_size, sizes.get("num_key_value_heads", heads) * head_size
        layer = 2 * hidden * (attention + keys) + 3 * hidden * intermediate + 2 * hidden
        embeddings = sizes["vocab_size"] * hidden * (1 if tied else 2)
        layers = sizes["num_hidden_layers"]
        parameters = embeddings + layers * layer + hidden
        return cls(parameters, hidden, intermediate, layers, attention, keys, sizes["vocab_size"])

    def adapter(self, rank: int) -> int:
        """Return the numbers of LoRA adapters of all linear layers but the output embeddings."""
        hidden, attention, keys = self.hidden, self.attention, self.keys
        ends = 2 * (hidden + attention) + 2 * (hidden + keys) + 3 * (hidden + self.intermediate)
        return self.layers * rank * ends

    def forward_numbers(self) -> int:
        """Return the numbers that a layer holds per token while it computes and keeps nothing."""
        return 3 * self.hidden + max(3 * self.intermediate, 6 * self.attention)

    def kept_bytes(self, config: PPOConfig, dtype: Dtype) -> int:
        """Return what the forward pass keeps per token for the backward pass.

        A Llama layer keeps 6 H + 5 A + 4 I numbers: residual stream, normalised and scaled, before attention and
        before the feed-forward layers; queries, repeated keys and values, attended twice; gate, its activation, the
        other branch, their product. Adapters keep the scaled ones no longer and r numbers for each of 7 layers. With
        bfloat16, what linear layers and attention read has half the size. The final norm keeps 3 H.
        """
        if dtype is Dtype.BFLOAT16:
            layer = 20 * self.hidden + 16 * self.attention + 8 * self.intermediate
        else:
            layer = 4 * (6 * self.hidden + 5 * self.attention + 4 * self.intermediate)
        if config.models is ModelSharing.SHARED:
            layer += 4 * (7 * config.lora_r - 2 * self.hidden)
        residual = 4 * self.hidden
        return 3 * residual + (self.layers * residual + layer if config.gradient_checkpointing else self.layers * layer)


def _parameters_in(path: Path) -> int:
    """Return the numbers in a safetensors file: eight bytes of length, then JSON with every tensor's shape."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length <= MAX_HEADER_BYTES else {}
        return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0


class Shapes(NamedTuple):
    """The models of a run."""

    policy: ModelShape
    rewards: tuple[ModelShape, ...]
    """The stage's own first."""
    judge: ModelShape | None = None
    reward_rank: int | None = None
    """Of the first reward model's adapters on the policy's base; None: it was trained whole."""

    @classmethod
    def of_folders(cls, sft: Path, rewards: Sequence[Path], judge: Path | None) -> "Shapes | None":
        """Return the shapes of models on disk; None where one of them is of an unknown kind."""
        policy, *others = (ModelShape.of_folder(folder) for folder in (sft, *rewards))
        judges = None if judge is None else ModelShape.of_folder(judge)
        known = tuple(shape for shape in others if shape is not None)
        if policy is None or len(known) < len(others) or (judge is not None and judges is None):
            return None
        from reward.adapter import adapter_rank  # the models lie on disk, so torch is loaded

        return cls(policy, known, judges, adapter_rank(rewards[0], base=sft))

    @classmethod
    def of_config(cls, config: ExperimentConfig) -> "Shapes | None":
        """Return the shapes that a configuration leads to, before any model exists.

        None where they cannot be known yet: a hub id that was not downloaded, a registered model, an unknown kind.
        A reward model that is trained has the policy's shape, and a registered one is taken to have it.
        """
        policy = _policy_shape(config)
        if policy is None:
            return None
        sources = [config.reward.from_, *config.ppo.reward_models]
        rewards = tuple(
            (ModelShape.of_folder(Path(source).expanduser()) if source and names_folder(source) else None) or policy
            for source in sources
        )
        rank = config.reward.lora_r if config.reward.from_ is None else None
        return cls(policy, rewards, None if config.ppo.eval_steps is None else policy, rank)


def _policy_shape(config: ExperimentConfig) -> ModelShape | None:
    source = config.sft.from_
    if source is not None:
        return ModelShape.of_folder(Path(source).expanduser()) if names_folder(source) else None
    if config.model.kind is ModelKind.TINY:
        return ModelShape.of_tiny(config.model)
    return ModelShape.of_folder(Path(config.model.path or ""))


class Phase(StrEnum):
    """When a part of the memory is taken."""

    ALWAYS = "always"
    SAMPLING = "sampling"
    SCORING = "scoring"
    TRAINING = "training"
    SAVING = "saving"


class Part(NamedTuple):
    """One row of a plan."""

    name: str
    bytes: int
    phase: Phase


class MemoryPlan(NamedTuple):
    """What PPO will need at its peak; prompts and answers at their longest."""

    parts: tuple[Part, ...]

    def of(self, phase: Phase) -> int:
        """Return the bytes that one phase adds, or, of ALWAYS, that are held throughout."""
        return sum(part.bytes for part in self.parts if part.phase is phase)

    @property
    def peak(self) -> Phase:
        """The phase that needs most."""
        return max((phase for phase in Phase if phase is not Phase.ALWAYS), key=self.of)

    @property
    def total(self) -> int:
        """Bytes at the peak."""
        return self.of(Phase.ALWAYS) + self.of(self.peak)

    def table(self) -> str:
        """Return the plan as text, a part a line."""
        lines = [f"planned memory of PPO: {_shown(self.total)} at its peak, while {self.peak}"]
        lines += [f"  {part.phase:<8}  {part.name:<28}{_shown(part.bytes):>10}" for part in self.parts if part.bytes]
        return "\n".join(lines)


def _shown(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.1f} MiB"


def plan_memory(config: ExperimentConfig, shapes: Shapes, *, on_gpu: bool = False) -> MemoryPlan:
    """Return the memory that PPO will need in one process: on the CPU, or on the GPU alone."""
    parts = [*_held(config, shapes, on_gpu), *_sampling(config, shapes.policy), *_scoring(config, shapes)]
    parts += _training(config, shapes)
    if not on_gpu:
        parts += _saving(config, shapes)
        plan = MemoryPlan(tuple(parts))
        kept = int((HEAP_FACTOR[config.ppo.models, config.ppo.critic] - 1) * plan.of(plan.peak))
        parts.append(Part("freed blocks and gaps", kept, plan.peak))
    return MemoryPlan(tuple(parts))


def _critic(shapes: Shapes) -> ModelShape:
    """Return the critic's shape: the reward model's where this reads the policy's tokens, else the policy's."""
    return shapes.rewards[0] if shapes.rewards[0].vocabulary == shapes.policy.vocabulary else shapes.policy


def _trained(config: PPOConfig, shapes: Shapes) -> tuple[int, int]:
    """Return how many numbers of policy and critic are trained."""
    if config.models is ModelSharing.SEPARATE:
        return shapes.policy.parameters, _critic(shapes).parameters
    adapter = shapes.policy.adapter(config.lora_r)
    return adapter, (adapter if config.critic is CriticKind.MODEL else 0) + shapes.policy.hidden


def _held(config: ExperimentConfig, shapes: Shapes, on_gpu: bool) -> Iterator[Part]:
    ppo, frozen = config.ppo, _size(config.runtime.dtype)
    policy, critic = _trained(ppo, shapes)
    if not on_gpu:
        yield Part("Python and libraries", PROCESS_BYTES, Phase.ALWAYS)
    if ppo.models is ModelSharing.SHARED:
        yield Part("base", frozen * shapes.policy.parameters, Phase.ALWAYS)
    yield Part("policy", 4 * policy, Phase.ALWAYS)
    yield Part("policy, optimiser", 8 * policy, Phase.ALWAYS)
    yield Part("critic", 4 * critic, Phase.ALWAYS)
    yield Part("critic, optimiser", 8 * critic, Phase.ALWAYS)
    if ppo.models is ModelSharing.SEPARATE:
        yield Part("reference", frozen * shapes.policy.parameters, Phase.ALWAYS)
    for number, shape in enumerate(shapes.rewards):
        rank = shapes.reward_rank if number == 0 and ppo.models is ModelSharing.SHARED else None
        own = frozen * shape.parameters if rank is None else 4 * shape.adapter(rank)
        yield Part(f"reward model {number + 1}", own, Phase.ALWAYS)
    if shapes.judge is not None:
        yield Part("judge", frozen * shapes.judge.parameters, Phase.ALWAYS)
    if ppo.select is not Selection.LAST and not on_gpu:
        yield Part("best policy and critic", 4 * (policy + critic), Phase.ALWAYS)


def _sampling(config: ExperimentConfig, policy: ModelShape) -> Iterator[Part]:
    ppo, prompt = config.ppo, config.data.max_prompt_tokens
    rows = min(ppo.generation_batch_size or ppo.batch_size, ppo.batch_size)
    cached = rows * (prompt + ppo.response_length) * policy.layers * policy.keys
    yield Part("key-value cache", cached * 2 * 4, Phase.SAMPLING)
    reading = rows * prompt * (4 * policy.forward_numbers() + 5 * prompt)
    yield Part("reading of the prompts", reading, Phase.SAMPLING)
    yield Part("next tokens", rows * policy.vocabulary * 24, Phase.SAMPLING)


def _scoring(config: ExperimentConfig, shapes: Shapes) -> Iterator[Part]:
    ppo, row = config.ppo, _row_tokens(config)
    rows = _micro_batch_rows(config, ppo.batch_size)
    own = rows * row * 4 * shapes.policy.forward_numbers() + _logits(config, shapes.policy, rows)
    read = min(REWARD_ROWS, ppo.batch_size) * (row + 1) * 4
    yield Part("forward passes", max(own, *(read * s.forward_numbers() for s in shapes.rewards)), Phase.SCORING)


def _training(config: ExperimentConfig, shapes: Shapes) -> Iterator[Part]:
    ppo, dtype = config.ppo, config.runtime.dtype
    policy, critic = _trained(ppo, shapes)
    yield Part("policy, gradients", 4 * policy, Phase.TRAINING)
    yield Part("critic, gradients", 4 * critic, Phase.TRAINING)
    rows = _micro_batch_rows(config, ppo.minibatch_size)
    tokens = rows * _row_tokens(config)
    yield Part("activations", tokens * shapes.policy.kept_bytes(ppo, dtype), Phase.TRAINING)
    yield Part("logits", _logits(config, shapes.policy, rows), Phase.TRAINING)
    if dtype is Dtype.BFLOAT16 and ppo.models is ModelSharing.SEPARATE:
        yield Part("policy in bfloat16", 2 * shapes.policy.parameters, Phase.TRAINING)


def _saving(config: ExperimentConfig, shapes: Shapes) -> Iterator[Part]:
    """A policy of adapters is written as a whole model."""
    if config.ppo.models is ModelSharing.SHARED:
        yield Part("merged policy", 4 * shapes.policy.parameters, Phase.SAVING)


def _size(dtype: Dtype) -> int:
    return 2 if dtype is Dtype.BFLOAT16 else 4


def _row_tokens(config: ExperimentConfig) -> int:
    return config.data.max_prompt_tokens + config.ppo.response_length


def _micro_batch_rows(config: ExperimentConfig, rows: int) -> int:
    return max(1, min(rows, config.ppo.micro_batch_tokens // _row_tokens(config)))


def _logits(config: ExperimentConfig, policy: ModelShape, rows: int) -> int:
    """Return the bytes of the logits of answers, and of one chunk's log-softmax, probabilities and product."""
    logits = rows * config.ppo.response_length * policy.vocabulary
    return logits * _size(config.runtime.dtype) + min(logits, CHUNK_NUMBERS) * 12


def checked_plan(
    config: ExperimentConfig, sft: Path, rewards: Sequence[Path], judge: Path | None, *, gpu_free: int | None
) -> str:
    """Return the plan of a run as text, once its models lie on disk.

    Args:
        config: of the experiment.
        sft: folder that the policy starts as.
        rewards: folders of the reward models, the stage's own first.
        judge: folder of the reward model for the looks, if any.
        gpu_free: free bytes of the GPU that the models go to; None: they stay on the CPU.

    Raises:
        ConfigError: the run does not fit.
    """
    shapes = Shapes.of_folders(sft, rewards, judge)
    if shapes is None:
        return f"memory of PPO is not planned: the config.json in {sft}, or of a reward model, is of an unknown kind"
    on_gpu = gpu_free is not None
    available = gpu_free
    if not on_gpu and (free := available_memory()) is not None:
        available = free + PROCESS_BYTES  # this process has taken its own part already
    if available is not None:
        raise_problems(memory_problems(config, shapes, available, on_gpu=on_gpu))
    return plan_memory(config, shapes, on_gpu=on_gpu).table()


def planned_problems(config: ExperimentConfig, available: int | None) -> list[ConfigProblem]:
    """Return why a run will not fit into `available` bytes of main memory, as far as its configuration tells.

    Nothing is found for a GPU, which only torch can ask, nor where the models' shapes are not known yet: `checked_plan`
    looks again when PPO starts.
    """
    on_gpu = config.runtime.device is Device.CUDA or (config.runtime.device is Device.AUTO and _NVIDIA.exists())
    shapes = Shapes.of_config(config)
    if on_gpu or shapes is None or available is None:
        return []
    return memory_problems(config, shapes, available)


def memory_problems(
    config: ExperimentConfig, shapes: Shapes, available: int, *, on_gpu: bool = False
) -> list[ConfigProblem]:
    """Return why a run does not fit into `available` bytes: one problem, whose remedy was planned to fit, or none."""
    plan = plan_memory(config, shapes, on_gpu=on_gpu)
    if plan.total <= available:
        return []
    field, remedy = "models", "use a smaller model, runtime.dtype=bfloat16, or a machine with more memory"
    for changes in _changes(config):
        changed = replace(config, ppo=replace(config.ppo, **changes))
        if plan_memory(changed, shapes, on_gpu=on_gpu).total <= available:
            field = next(iter(changes))
            remedy = "use " + " ".join(f"ppo.{name}={_written(value)}" for name, value in changes.items())
            break
    rule = (
        f"needs {plan.total:,} bytes ({_shown(plan.total)}) while {plan.peak}, and {available:,} "
        f"({_shown(available)}) are available {'on the GPU' if on_gpu else 'on this machine'}"
    )
    value = vars(config.ppo)[field]
    return [ConfigProblem(f"ppo.{field}", value.value if isinstance(value, StrEnum) else value, rule, remedy)]


def _changes(config: ExperimentConfig) -> Iterator[dict[str, Any]]:
    """Yield changes of `ppo` that take less memory, the mildest first; the first name is what to blame."""
    ppo, least = config.ppo, _row_tokens(config)
    rows, tokens = ppo.generation_batch_size or ppo.batch_size, ppo.micro_batch_tokens
    fewer_rows = [{"generation_batch_size": rows >> n} for n in range(1, rows.bit_length())]
    fewer_tokens = [{"micro_batch_tokens": max(tokens >> n, least)} for n in range(1, tokens.bit_length())]
    yield from fewer_rows
    yield from fewer_tokens
    both: dict[str, Any] = {}
    no_change: dict[str, int] = {}
    for token_change, row_change in zip_longest(fewer_tokens, fewer_rows, fillvalue=no_change):
        both = both | token_change | row_change
        yield both
    both = both | {"gradient_checkpointing": True}
    yield both
    if ppo.models is ModelSharing.SEPARATE:
        yield {"models": ModelSharing.SHARED}
        yield {"models": ModelSharing.SHARED} | both


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def available_memory(root: Path = Path("/")) -> int | None:
    """Return the bytes of main memory that this process can still take: of the machine, or of its control group.

    None where there is no Linux to ask. `root` stands for the root of the file system.
    """
    free = _field(root / "proc/meminfo", "MemAvailable:")
    if free is None:
        return None
    rooms = [room for folder in _control_groups(root) if (room := _room(folder)) is not None]
    return min([free * 1024, *rooms])


def _control_groups(root: Path) -> Iterator[Path]:
    """Yield the folders of the memory groups, version 1 or 2, that this process is in, and of those around them."""
    mounts = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            mount = mounts / controllers
            inside = mount / path.lstrip("/")
            yield from (folder for folder in (inside, *inside.parents) if folder == mount or mount in folder.parents)


def _room(folder: Path) -> int | None:
    """Return what a control group leaves, its file cache counted as free; None without a limit."""
    for limit_file, used_file, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit, used = _number(folder / limit_file), _number(folder / used_file)
        if limit is not None and used is not None:
            return max(0, limit - used + (_field(folder / "memory.stat", cache) or 0))
    return None


def _number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _field(path: Path, name: str) -> int | None:
    """Return the number behind a name at the start of a line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.split()[:1] == [name]), None)
