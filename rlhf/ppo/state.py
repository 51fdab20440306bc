"""All that decides how PPO goes on, between files and memory.

Files hold whole tensors, also where processes hold parts of them: then all call these functions, and rank 0 writes.

Sampling, prompt order and minibatches are pure functions of seed and iteration, so no random state is among it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from rlhf.config import PPOConfig
from rlhf.ppo.kl import KLController
from rlhf.ppo.models import Parameters, PPOModels
from rlhf.ppo.scores import RunningMoments
from rlhf.ppo.selection import SelectionState
from rlhf.ppo.update import Optimisers
from sft.core.checkpoint import (
    CheckpointStore,
    LoadedCheckpoint,
    check_alike,
    optimizer_tensors,
    restore_optimizer,
)
from sft.core.distributed import spread_like, wait_for_all, whole
from sft.core.world import World

Weights = dict[str, torch.Tensor]
HistoryRow = dict[str, float | None]


@dataclass
class PPOState:
    """What changes from iteration to iteration, beside weights and optimisers."""

    done: int
    """Finished iterations."""
    kl: KLController
    moments: RunningMoments = field(default_factory=RunningMoments)
    selection: SelectionState = field(default_factory=SelectionState)
    symptoms: dict[str, int] = field(default_factory=dict)
    """How often the doctor found what."""
    first_entropy: float | None = None
    first_ratio_deviation: float = 0.0
    steps: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    """Finite numbers of the last iteration."""
    history: list[HistoryRow] = field(default_factory=list)
    start_scores: list[float] = field(default_factory=list)
    """The judge's scores of the start's answers; empty without looks."""
    best: dict[str, Weights] | None = None
    """Weights of policy and critic that selection keeps, on the CPU; None: the last ones."""

    def as_json(self) -> dict[str, object]:
        """Return all but the weights as JSON takes it."""
        return {
            "done": self.done,
            "kl": list(self.kl),
            "moments": list(self.moments),
            "selection": self.selection.as_json(),
            "symptoms": dict(self.symptoms),
            "first_entropy": self.first_entropy,
            "first_ratio_deviation": self.first_ratio_deviation,
            "steps": self.steps,
            "metrics": dict(self.metrics),
            "history": [dict(row) for row in self.history],
            "start_scores": list(self.start_scores),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any], best: dict[str, Weights] | None) -> "PPOState":
        """Return the state that `as_json` gave, with the weights that it left out."""
        simple = {"done", "symptoms", "first_entropy", "first_ratio_deviation"}
        simple |= {"steps", "metrics", "history", "start_scores"}
        return cls(
            kl=KLController(*stored["kl"]),
            moments=RunningMoments(*stored["moments"]),
            selection=SelectionState.from_json(stored["selection"]),
            best=best,
            **{name: stored[name] for name in simple},
        )


def fresh_state(config: PPOConfig) -> PPOState:
    """Return the state before the first iteration."""
    return PPOState(0, KLController(config.kl_coef, config.kl_target_nats_per_sequence, config.kl_horizon))


def keep_weights(models: PPOModels) -> dict[str, Weights]:
    """Return copies of what is trained, on the CPU."""
    return {
        name: {key: whole(value.detach()).to("cpu", copy=True) for key, value in parameters.items()}
        for name, parameters in _trained(models).items()
    }


def put_weights(models: PPOModels, weights: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
    """Give the models the weights of `keep_weights`, bit by bit.

    Raises:
        DataError: the weights are not those of these models: other names, shapes or number formats.
    """
    for name, parameters in _trained(models).items():
        check_alike(name, parameters, weights[name])
    with torch.no_grad():
        for name, parameters in _trained(models).items():
            for key, value in parameters.items():
                value.copy_(spread_like(weights[name][key], value))


def save_checkpoint(
    store: CheckpointStore, models: PPOModels, optimisers: Optimisers, state: PPOState, *, world: World
) -> None:
    """Write everything that the next iterations depend on, and return when it is there for all processes."""
    groups: dict[str, Mapping[str, torch.Tensor]] = {}
    stored = state.as_json()
    for name, parameters in _trained(models).items():
        optimiser = optimizer_tensors(_optimiser(optimisers, name), list(parameters))
        groups[name] = {key: whole(value.detach()) for key, value in parameters.items()}
        groups[f"{name}-optimizer"] = {key: whole(value) for key, value in optimiser.tensors.items()}
        stored[f"{name}-optimizer"] = optimiser.state
    if state.best is not None:
        groups |= {f"best-{name}": weights for name, weights in state.best.items()}
    if world.rank == 0:
        store.save(state.done, groups, stored)
    wait_for_all(world)


def restore(loaded: LoadedCheckpoint, models: PPOModels, optimisers: Optimisers) -> PPOState:
    """Put a checkpoint into fresh models and optimisers, and return its state.

    Raises:
        DataError: it is of other models.
    """
    tensors, stored = loaded.tensors, loaded.state
    put_weights(models, tensors)
    for name, parameters in _trained(models).items():
        of_optimiser = stored[f"{name}-optimizer"]
        assert isinstance(of_optimiser, dict)
        moments = {
            key: spread_like(value, parameters[key.split(".", 1)[1]])
            for key, value in tensors.get(f"{name}-optimizer", {}).items()
        }
        restore_optimizer(_optimiser(optimisers, name), list(parameters), moments, of_optimiser)
    best = {name: tensors[f"best-{name}"] for name in _trained(models) if f"best-{name}" in tensors}
    return PPOState.from_json(stored, best or None)


def _trained(models: PPOModels) -> dict[str, Parameters]:
    return {"policy": models.policy_parameters(), "critic": models.critic_parameters()}


def _optimiser(optimisers: Optimisers, name: str) -> torch.optim.AdamW:
    return optimisers.policy if name == "policy" else optimisers.critic
