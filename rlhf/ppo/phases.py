"""Where the time of an iteration goes, and how much of the machine it uses."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

PHASES = ("generate", "score", "train")
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bfloat16 operations a second, by a part of the device's name; from NVIDIA's data sheets."""


class Stopwatch:
    """Adds up the seconds of named phases; on a GPU each border waits for the work before it."""

    def __init__(self, device: torch.device) -> None:
        """Start at zero."""
        self.device = device
        self.seconds = dict.fromkeys(PHASES, 0.0)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Take the time of a block."""
        self._wait()
        start = time.perf_counter()
        yield
        self._wait()
        self.seconds[phase] += time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def phase_metrics(
    watch: Stopwatch, *, answers: int, answer_tokens: int, tokens: int, widest: int, flops: float
) -> dict[str, float]:
    """Return seconds, speed and utilisation of an iteration.

    Args:
        watch: its seconds.
        answers: answers of the iteration.
        answer_tokens: their tokens.
        tokens: the same with their prompts.
        widest: tokens of the longest prompt with its answer; padded to it, the batch would hold answers * widest.
        flops: floating-point operations that the models need for it, see `model_flops`.
    """
    total = sum(watch.seconds.values())
    found = {f"time/{phase}_s": seconds for phase, seconds in watch.seconds.items()}
    found |= {
        "throughput/answers_per_s": answers / total,
        "throughput/tokens_per_s": answer_tokens / total,
        "throughput/generated_tokens_per_s": answer_tokens / max(watch.seconds["generate"], 1e-9),
        "throughput/padding_left_out": 1 - tokens / (answers * widest),
        "throughput/flops_per_s": flops / total,
    }
    if watch.device.type == "cuda":
        name = torch.cuda.get_device_name(watch.device)
        peak = next((value for part, value in PEAK_FLOPS.items() if part in name), None)
        if peak is not None:
            found["throughput/mfu"] = flops / total / peak
    return found


def model_flops(*, parameters: int, tokens: int, answer_tokens: int, passes: int, one_pass: bool) -> float:
    """Return the operations of an iteration: 2 a parameter and token forward, 4 backward.

    Sampling and four looks (policy, reference, critic, reward model) are forward passes; training is `passes` forward
    and backward passes of policy and critic, or of the one trunk that they share. Attention is left out.

    Source: Kaplan et al. 2020, arXiv 2001.08361, section 2.1.
    """
    trained = 1 if one_pass else 2
    looks = 3 if one_pass else 4
    return 2.0 * parameters * (answer_tokens + tokens * (looks + 3 * passes * trained))
