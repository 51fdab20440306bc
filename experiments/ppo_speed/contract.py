"""What the processes of this benchmark tell each other: workloads and measurements. Standard library only.

The process that starts the contenders must stay small: Linux hands its resident size to a child as the child's first
ru_maxrss.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

VARIANTS = ("fp32", "fp32-compiled", "bf16", "bf16-compiled", "shared")
"""Ours. `shared` trains adapters and a value head on one frozen base: not the same algorithm as the others."""

DECODERS = ("transformers", "transformers-eager", "vllm", "ours")
"""Contenders of decoding alone; `transformers-eager` forbids the compilation that `generate` may choose by itself."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The same PPO for both sides."""

    name: str
    prompt_tokens: int
    max_answer_tokens: int
    shape: str
    """`llama-6m` or `qwen2-0.5b`."""
    eos: str
    """`trained`: answers end by themselves; `never`: EOS is impossible; `random`: as random weights have it."""
    dtype: str = "float32"
    prompts: int = 64
    """Answers of one update."""
    epochs: int = 4
    minibatches: int = 4
    learning_rate: float = 1e-5
    cliprange: float = 0.2
    cliprange_value: float = 0.2
    gamma: float = 1.0
    lam: float = 0.95
    kl_coef: float = 0.05
    adam_epsilon: float = 1e-5

    @property
    def minibatch_size(self) -> int:
        """Answers of one optimiser step."""
        return self.prompts // self.minibatches

    @property
    def max_tokens(self) -> int:
        """Most tokens of a prompt with its answer."""
        return self.prompt_tokens + self.max_answer_tokens


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(name="a", prompt_tokens=32, max_answer_tokens=128, shape="llama-6m", eos="trained"),
        Workload(name="b", prompt_tokens=32, max_answer_tokens=128, shape="llama-6m", eos="never"),
        Workload(
            name="gpu", prompt_tokens=256, max_answer_tokens=256, shape="qwen2-0.5b", eos="random", dtype="bfloat16"
        ),
    )
}


@dataclass(frozen=True)
class Files:
    """Where a workload lies once `workload.py` has written it."""

    folder: Path

    @property
    def policy(self) -> Path:
        """Start of the policy, and the reference."""
        return self.folder / "policy"

    @property
    def reward(self) -> Path:
        """The reward model, and the start of the critic."""
        return self.folder / "reward"

    def workload(self) -> Workload:
        """Return what the folder was written for."""
        return Workload(**json.loads((self.folder / "workload.json").read_text()))

    def prompts(self) -> list[list[int]]:
        """Return the prompts' token ids."""
        prompts: list[list[int]] = json.loads((self.folder / "prompts.json").read_text())
        return prompts

    def prompt_texts(self) -> list[str]:
        """Return the prompts as texts, which the workload's tokenizer turns into the same ids."""
        return [" ".join(f"w{token}" for token in prompt) for prompt in self.prompts()]


@dataclass(frozen=True)
class Update:
    """One PPO update: seconds by phase, and what was produced."""

    generate_s: float
    score_s: float
    train_s: float
    answers: int
    answer_tokens: int
    """Up to and including the EOS: what follows it is no use to anyone."""
    score: float
    """Mean score of the reward model."""

    @property
    def total_s(self) -> float:
        """All three phases."""
        return self.generate_s + self.score_s + self.train_s


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One process of one contender."""

    contender: str
    workload: str
    updates: list[Update]
    """The first one is the warm-up; it holds the compilation."""
    setup_s: float
    """Loading models and building optimisers."""
    imports_mib: float
    """Peak memory after the imports."""
    peak_mib: float
    """Peak memory at the end: ru_maxrss on a CPU, max_memory_allocated on a GPU."""
    optimizer_steps: int
    """Steps that one optimiser really took, over all updates."""
    graphs: list[int]
    """Graphs that torch.compile had built by the end of each update; growth after the first one is warm-up that leaked
    into what is reported as steady."""
    device: str
    versions: str

    @classmethod
    def parse(cls, line: str) -> "Measurement":
        """Read what `emit` printed."""
        stored = json.loads(line)
        return cls(**stored | {"updates": [Update(**update) for update in stored["updates"]]})


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """One process of one contender that only decodes."""

    contender: str
    workload: str
    tokens_per_s: list[float]
    """One per repetition, after a warm-up."""
    warmup_s: float
    mean_tokens: float
    """Length of the answers; all must have the maximum."""
    bound_tokens_per_s: float | None
    """By memory bandwidth; on a GPU only."""
    device: str
    versions: str

    @classmethod
    def parse(cls, line: str) -> "Decoding":
        """Read what `emit` printed."""
        return cls(**json.loads(line))


def emit(result: Measurement | Decoding) -> None:
    """Print the result as the last line of standard output."""
    print(json.dumps(dataclasses.asdict(result)), flush=True)
