"""How the work of PPO is divided among processes: rows always, weights where they are sharded (FSDP2).

Every process holds the whole rollout, so targets, metrics and decisions are the same computation everywhere. Only
sampling, looking at answers, and gradients are divided.

Letters: B batch, P prompt tokens (padded on the left), R response tokens (padded on the right).
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, cast

import torch
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import CheckpointWrapper
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.functional import pad
from transformers.modeling_layers import GradientCheckpointingLayer

from reward.model import Scorer
from rlhf.config import ModelSharing, PPOConfig
from rlhf.ppo.models import PPOModels, SeparateModels
from rlhf.ppo.rollout import Rollout
from sft.config import RuntimeConfig, Strategy
from sft.core.distributed import gather_json, gather_rows, sum_gradients
from sft.core.errors import ConfigProblem
from sft.core.generation import Prompts, Responses
from sft.core.packing import fill_batches
from sft.core.world import ALONE, World


class MicroBatch(NamedTuple):
    """Rows that go through the models together, and the token count that their loss is divided by."""

    rows: torch.Tensor
    num_tokens: int | torch.Tensor


class Division(NamedTuple):
    """One process's part of the work; the default is all of it."""

    world: World = ALONE
    shards: tuple[FSDPModule, ...] = ()
    """The modules whose weights are spread over the processes; empty: every process holds all."""

    @contextmanager
    def weights_gathered(self) -> Iterator[None]:
        """Hold all weights while the block lasts; every process enters it.

        Inside, a forward pass waits for no other process, so each may make as many as its answers need.
        """
        for module in self.shards:
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        try:
            yield
        finally:
            for module in self.shards:
                module.set_reshard_after_forward(True, recurse=False)
            self.let_go()

    def let_go(self) -> None:
        """Hold no more than this process's part of the weights, as optimizer and checkpoints want it."""
        for module in self.shards:
            module.reshard()

    def micro_batches(self, rollout: Rollout, rows: torch.Tensor, max_tokens: int) -> list[MicroBatch]:
        """Return this process's part of a minibatch, in rows of like length.

        Sharded weights are exchanged in every pass, so all processes make the same number: those with fewer repeat the
        shortest row for a loss of zero.
        """
        num_tokens = int(rollout.responses.mask_BR[rows].sum())
        own = rows[list(self.world.share(len(rows)))]
        batches = fill_batches(rollout.lengths()[own].tolist(), max_tokens)
        found = [MicroBatch(own[some], num_tokens) for some in batches]
        if self.shards:
            shortest = rows[rollout.lengths()[rows].argmin()][None]
            idle = MicroBatch(shortest, torch.tensor(math.inf, device=rows.device))
            found += [idle] * (max(gather_json(self.world, len(found))) - len(found))
        return found

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Add up the gradients of all processes, once after all micro-batches; sharded ones are summed already."""
        if not self.shards:
            sum_gradients(self.world, parameters)

    def gather(self, rollout: Rollout, count: int, *, pad_id: int) -> Rollout:
        """Return the rollout of all `count` rows from those that each process made of its share."""
        if self.world.size == 1:
            return rollout
        widths = gather_json(self.world, [rollout.prompts.ids_BP.shape[1], rollout.responses.ids_BR.shape[1]])
        prompt_room = max(width for width, _ in widths) - rollout.prompts.ids_BP.shape[1]
        response_room = max(width for _, width in widths) - rollout.responses.ids_BR.shape[1]

        def all_rows(x: torch.Tensor) -> torch.Tensor:
            return gather_rows(self.world, x, count)

        def widened(x: torch.Tensor) -> torch.Tensor:
            return pad(x, (0, response_room)) if x.dim() == 2 else x

        prompts = Prompts(
            all_rows(pad(rollout.prompts.ids_BP, (prompt_room, 0), value=pad_id)),
            all_rows(pad(rollout.prompts.mask_BP, (prompt_room, 0), value=False)),
        )
        responses = Responses(
            all_rows(pad(rollout.responses.ids_BR, (0, response_room), value=pad_id)),
            all_rows(pad(rollout.responses.mask_BR, (0, response_room), value=False)),
        )
        return Rollout(prompts, responses, *(all_rows(widened(x)) for x in rollout[2:]))


def division_problems(config: PPOConfig, runtime: RuntimeConfig, world: World) -> list[ConfigProblem]:
    """Return the settings that cannot be divided among these processes."""
    found = []
    if config.batch_size < world.size:
        rule = f"is less than the {world.size} processes: some would have nothing to do"
        found.append(ConfigProblem("ppo.batch_size", config.batch_size, rule, f"use {world.size} or more"))
    if world.size > 1 and runtime.strategy is Strategy.FSDP:
        strategy = runtime.strategy.value
        if config.models is ModelSharing.SHARED:
            rule = "is possible with ppo.models=separate only"
            remedy = "use runtime.strategy=ddp: adapters and their optimizer states are small"
            found.append(ConfigProblem("runtime.strategy", strategy, rule, remedy))
        if config.compile:
            rule = "does not go with ppo.compile"
            found.append(ConfigProblem("runtime.strategy", strategy, rule, "use ppo.compile=false"))
    return found


def divide(models: PPOModels, world: World, strategy: Strategy) -> Division:
    """Return how these processes divide the work; with FSDP, the models are sharded in place."""
    if world.size == 1 or strategy is Strategy.DDP:
        return Division(world)
    assert isinstance(models, SeparateModels), "see division_problems"
    return shard(models, world)


def shard(models: SeparateModels, world: World) -> Division:
    """Spread the weights of policy and critic over the processes, layer by layer; gradients are summed, not averaged.

    Reference and reward models stay whole: they have no gradients and no optimizer state. The critic's trunk and head
    are called one after the other, so that each is a root of its own.
    """
    mesh = init_device_mesh(models.device.type, (world.size,))
    critic = cast(Scorer, models.critic)
    roots = (models.policy, critic.base_model, critic.score)
    layers = [layer for root in roots for layer in _layers(root)]
    shards = tuple(fully_shard(module, mesh=mesh) for module in (*layers, *roots))
    for module in shards:
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)
    return Division(world, shards)


def _layers(root: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the decoder layers; where activations are recomputed, what wraps them, so that weights stay meanwhile."""
    modules = list(root.modules())
    wrappers = [module for module in modules if isinstance(module, CheckpointWrapper)]
    return [*wrappers] or [module for module in modules if isinstance(module, GradientCheckpointingLayer)]
