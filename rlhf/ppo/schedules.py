"""The learning rate over a PPO run, as a pure function of the iteration: nothing to checkpoint."""

import math

from sft.config import Schedule


def learning_rate_factor(iteration: int, iterations: int, *, kind: Schedule, warmup_iterations: int) -> float:
    """Return what the learning rate is multiplied by in an iteration, in (0, 1].

    (iteration + 1) / warmup_iterations while it warms up; then 1 - p (linear), (1 + cos(pi p)) / 2 (cosine) or 1
    (constant), where p = (iteration - warmup) / (iterations - warmup) would be 1 in the iteration after the last.

    Args:
        iteration: 0 to iterations - 1.
        iterations: of the whole run, whether or not it stops earlier.
        kind: how it falls after the warm-up.
        warmup_iterations: first iterations in which it rises; 0: none. As long as the run: it only rises.
    """
    assert 0 <= iteration < iterations, f"iteration {iteration} of {iterations}"
    if iteration < warmup_iterations:
        return (iteration + 1) / warmup_iterations
    progress = (iteration - warmup_iterations) / (iterations - warmup_iterations)
    if kind is Schedule.LINEAR:
        return 1 - progress
    if kind is Schedule.COSINE:
        return (1 + math.cos(math.pi * progress)) / 2
    return 1.0
