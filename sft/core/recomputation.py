"""Gradient checkpointing: activations that are computed again instead of kept."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    apply_activation_checkpointing,
    checkpoint_wrapper,
)
from torch.utils.checkpoint import noop_context_fn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from sft.core.errors import ConfigError, ConfigProblem

Contexts = tuple[AbstractContextManager[object], AbstractContextManager[object]]
"""Of the forward pass, and of its repetition."""
WRAPPER = "_checkpoint_wrapped_module."
"""What torch puts into the names of wrapped parameters, though not into those of the state dict."""


def use_gradient_checkpointing(
    model: PreTrainedModel, context_fn: Callable[[], Contexts] = noop_context_fn
) -> PreTrainedModel:
    """Keep no activations within a decoder layer, but compute them again in the backward pass.

    Outputs and gradients stay the same. transformers' own switch acts in training mode only, where dropout is on, and
    takes the key-value cache away from a model that samples; this one acts in any mode, where gradients are on.

    Args:
        model: changed in place; names of its parameters change, those of its state dict do not.
        context_fn: see `torch.utils.checkpoint.checkpoint`.

    Raises:
        ConfigError: the model has no such layers.
    """
    if not any(isinstance(module, GradientCheckpointingLayer) for module in model.modules()):
        rule = f"does not work with {type(model).__name__}: it has no layers that transformers can recompute"
        raise ConfigError([ConfigProblem("ppo.gradient_checkpointing", True, rule, "use false")])
    apply_activation_checkpointing(
        model,
        checkpoint_wrapper_fn=partial(checkpoint_wrapper, context_fn=context_fn, preserve_rng_state=False),
        check_fn=lambda module: isinstance(module, GradientCheckpointingLayer),
    )
    return model
