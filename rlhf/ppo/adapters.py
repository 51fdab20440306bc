"""All models of PPO on one frozen base: policy and critic are LoRA adapters, the reference is the base.

A reward model that was trained as adapters on the same base is one more. LoRA: see `sft/core/lora.py`.

Letters: B batch, R response tokens, F response tokens of all rows in one line and what fills it up, N tokens of all
rows with their prompts, D hidden, V vocabulary.
"""

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import torch
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from reward.adapter import Adapter, load_adapter
from reward.calibration import Calibration
from reward.model import RewardModel
from rlhf.config import CriticKind, PPOConfig
from rlhf.ppo.models import Parameters
from sft.config import Dtype
from sft.core.errors import ConfigError, ConfigProblem, DataError
from sft.core.generation import Prompts, Responses
from sft.core.likelihood import TokenStatistics, choices, chosen_statistics, spread, token_statistics
from sft.core.lora import lora_config
from sft.core.packing import Packed, pack, packed_inputs
from sft.core.recomputation import Contexts, use_gradient_checkpointing
from sft.model import load_causal_lm, load_tokenizer

POLICY, CRITIC, REWARD = "policy", "critic", "reward"


class Adapters(NamedTuple):
    """The adapted layers of a model by their names in it; each holds all adapters."""

    layers: dict[str, LoraLayer]
    trained: tuple[str, ...]
    """Names of the adapters that train; others are frozen."""

    @classmethod
    def add(
        cls, model: PreTrainedModel, names: list[str], config: PPOConfig, *, frozen: Adapter | None = None, seed: int
    ) -> "Adapters":
        """Freeze a model and give every linear layer but the output embeddings float32 adapters that change nothing.

        Nothing, since B starts at zero; A is drawn from the seed. The first adapter is active. `frozen` becomes one
        more, REWARD, with the weights that it has.
        """
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            torch.default_generator.manual_seed(seed)
            for name in names:
                model.add_adapter(lora_config(model, r=config.lora_r, alpha=config.lora_alpha), name)
            if frozen is not None:
                model.add_adapter(lora_config(model, r=frozen.r, alpha=frozen.alpha), REWARD)
        layers = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
        adapters = cls(layers, tuple(names))
        for layer in layers.values():
            layer.lora_A.float()
            layer.lora_B.float()
        if frozen is not None:
            adapters._put(REWARD, frozen.matrices)
        model.eval()
        adapters.activate(names[0])
        return adapters

    @torch.no_grad()
    def _put(self, name: str, matrices: dict[str, torch.Tensor]) -> None:
        own = self.parameters(name)
        wanted = {key.removesuffix(f".{name}.weight") for key in own}
        if wanted != matrices.keys():
            strange = min(wanted ^ matrices.keys())
            raise DataError(f"the reward model's adapters do not fit the SFT model ({strange}); train it again")
        for key, weight in own.items():
            weight.copy_(matrices[key.removesuffix(f".{name}.weight")])

    def active(self) -> str | None:
        """Return the adapter in use, None where the base stands alone."""
        layer = next(iter(self.layers.values()))
        return None if layer.disable_adapters else layer.active_adapters[0]

    def activate(self, name: str | None) -> None:
        """Use one adapter, or None.

        All that train stay trainable: peft freezes those that are not in use, and a backward pass that comes after the
        switch would then lose their gradients without a word.
        """
        if name == self.active():
            return
        for layer in self.layers.values():
            layer.enable_adapters(name is not None)
            if name is not None:
                layer.set_adapter(name)
            for matrices in (layer.lora_A, layer.lora_B):
                for other, matrix in matrices.items():
                    matrix.requires_grad_(other in self.trained)

    def parameters(self, name: str) -> Parameters:
        """Return the weights of one adapter."""
        return {
            f"{layer_name}.{matrix}.{name}.weight": module[name].weight
            for layer_name, layer in self.layers.items()
            for matrix, module in (("lora_A", layer.lora_A), ("lora_B", layer.lora_B))
        }

    @torch.no_grad()
    def merged(self, model: PreTrainedModel, name: str) -> dict[str, torch.Tensor]:
        """Return the model's weights with W + (alpha / r) B A in the adapted layers, in float32.

        Weights without an adapter are the model's own where these are float32; tied weights stay tied.
        """
        found: dict[str, torch.Tensor] = {}
        floats: dict[int, torch.Tensor] = {}
        for key, weight in model.state_dict().items():
            if ".lora_" in key:
                continue
            layer_name, is_adapted, kind = key.partition(".base_layer.")
            if is_adapted and kind == "weight":
                delta = self.layers[layer_name].get_delta_weight(name)
                found[f"{layer_name}.weight"] = delta.add_(weight)
            else:
                found[key.replace(".base_layer.", ".")] = floats.setdefault(weight.data_ptr(), weight.float())
        return found

    def recompute_contexts(self) -> Contexts:
        """Return contexts for a layer's forward pass and for its repetition, with the same adapter."""
        return nullcontext(), self.using(self.active())

    @contextmanager
    def using(self, name: str | None) -> Iterator[None]:
        """Use one adapter, or None, and afterwards that from before."""
        before = self.active()
        self.activate(name)
        try:
            yield
        finally:
            self.activate(before)


class SharedModels(NamedTuple):
    """One frozen base; see `PPOModels`. Between two calls any adapter may be active: each call activates its own."""

    model: PreTrainedModel
    adapters: Adapters
    value_head: torch.nn.Linear
    """On the final hidden state, in float32. Has a bias where it stands on the policy's trunk."""
    tokenizer: PreTrainedTokenizerFast
    mixed_precision: bool
    one_pass: bool
    reward_head: torch.nn.Linear | None
    """Of the reward model that is an adapter, in float32; None where it is a model of its own."""

    @classmethod
    def load(
        cls, sft: Path, reward: Path, *, config: PPOConfig, device: torch.device, dtype: Dtype, seed: int
    ) -> "SharedModels":
        """Load the SFT model once, and add adapters and a value head; all values start at 0.

        The reward model becomes one more adapter where it was trained as one on this very SFT model.

        Raises:
            ConfigError: the model cannot carry what the configuration asks for.
            DataError: the reward model's adapters are damaged.
        """
        one_pass = config.critic is CriticKind.HEAD
        model = load_causal_lm(sft, device=device, dtype=dtype)
        if one_pass:
            _refuse_changed_logits(model)
        trained = load_adapter(reward, base=sft)
        adapters = Adapters.add(model, [POLICY] if one_pass else [POLICY, CRITIC], config, frozen=trained, seed=seed)
        head = torch.nn.utils.skip_init(torch.nn.Linear, model.config.hidden_size, 1, bias=one_pass, device=device)
        for weight in head.parameters():
            torch.nn.init.zeros_(weight)
        if config.gradient_checkpointing:
            use_gradient_checkpointing(model, adapters.recompute_contexts)
        reward_head = None if trained is None else _frozen_head(trained.head, device)
        return cls(model, adapters, head, load_tokenizer(sft), dtype is Dtype.BFLOAT16, one_pass, reward_head)

    @property
    def device(self) -> torch.device:
        """Return where the tensors live."""
        return self.model.device

    @property
    def critic_adapter(self) -> str:
        """Return the adapter of the trunk that the value head stands on."""
        return POLICY if self.one_pass else CRITIC

    def computing(self) -> AbstractContextManager[object]:
        """Return bfloat16 on float32 adapters, or float32."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.mixed_precision)

    def sampling(self) -> AbstractContextManager[PreTrainedModel]:
        """Return the base with the policy's adapter; call no other method before sampling has ended."""
        self.adapters.activate(POLICY)
        return nullcontext(self.model)

    def policy_statistics(self, prompts: Prompts, responses: Responses, *, temperature: float) -> TokenStatistics:
        """See `PPOModels`."""
        self.adapters.activate(POLICY)
        return token_statistics(self.model, prompts, responses, temperature=temperature)

    def reference_statistics(self, prompts: Prompts, responses: Responses, *, temperature: float) -> TokenStatistics:
        """See `PPOModels`."""
        self.adapters.activate(None)
        return token_statistics(self.model, prompts, responses, temperature=temperature)

    def values(self, prompts: Prompts, responses: Responses) -> torch.Tensor:
        """See `PPOModels`. Zero outside the response mask."""
        self.adapters.activate(self.critic_adapter)
        packed = pack(prompts, responses)
        states_F, _ = choices(packed, responses)
        return self._values(self._hidden(packed, states_F), responses.mask_BR)

    def policy_and_values(
        self, prompts: Prompts, responses: Responses, *, temperature: float
    ) -> tuple[TokenStatistics, torch.Tensor]:
        """See `PPOModels`."""
        assert self.one_pass, "policy and critic have adapters of their own: two passes"
        self.adapters.activate(POLICY)
        packed, mask_BR = pack(prompts, responses), responses.mask_BR
        states_F, tokens_F = choices(packed, responses)
        hidden_FD = self._hidden(packed, states_F)
        logits_FV = self.model.get_output_embeddings()(hidden_FD)
        logprobs_F, entropy_F = chosen_statistics(logits_FV, tokens_F, temperature)
        statistics = TokenStatistics(spread(logprobs_F, mask_BR), spread(entropy_F, mask_BR))
        return statistics, self._values(hidden_FD, mask_BR)

    def _hidden(self, packed: Packed, states_F: torch.Tensor) -> torch.Tensor:
        """Return the final hidden states that are asked for, shape (F, D)."""
        inputs = packed_inputs(self.model, packed, states_F)
        hidden_ND: torch.Tensor = self.model.base_model(**inputs).last_hidden_state.squeeze(0)
        return hidden_ND[states_F]

    def _values(self, hidden_FD: torch.Tensor, mask_BR: torch.Tensor) -> torch.Tensor:
        values_F: torch.Tensor = self.value_head(hidden_FD.float()).squeeze(-1)
        return spread(values_F.float(), mask_BR)

    def reward_model(self, folder: Path, max_prompt_tokens: int) -> RewardModel | None:
        """Return the reward model on the shared base, calibrated as in its folder; None where it is none of these."""
        if self.reward_head is None:
            return None
        with torch.device("meta"):
            shell = AutoModelForSequenceClassification.from_config(_scorer_config(self.model, self.tokenizer))
        setattr(shell, shell.base_model_prefix, self.model.base_model)
        shell.score = self.reward_head
        calibration, tokenizer = Calibration.load(folder), load_tokenizer(folder)
        return RewardModel(shell.eval(), tokenizer, calibration, max_prompt_tokens, using=self._as_reward)

    @contextmanager
    def _as_reward(self) -> Iterator[None]:
        with self.adapters.using(REWARD), self.computing():
            yield

    def policy_parameters(self) -> Parameters:
        """Return the policy's adapter."""
        return self.adapters.parameters(POLICY)

    def critic_parameters(self) -> Parameters:
        """Return the value head, and the critic's adapter where it has one."""
        head = {f"value_head.{name}": weight for name, weight in self.value_head.named_parameters()}
        return head if self.one_pass else self.adapters.parameters(CRITIC) | head

    def save_policy(self, folder: Path) -> None:
        """Write a whole model in float32 with the adapter merged; the base in memory stays as it is."""
        with torch.device("meta"):
            shell = type(self.model)(deepcopy(self.model.config))
        shell.generation_config = self.model.generation_config
        shell.save_pretrained(folder, state_dict=self.adapters.merged(self.model, POLICY))
        self.tokenizer.save_pretrained(folder)

    def save_critic(self, folder: Path) -> None:
        """Write a whole scorer in float32 with the adapter merged, whose calibrated scores are the values.

        A scorer's head has no bias: the value head's becomes the calibration's offset.
        """
        with torch.device("meta"):
            shell = AutoModelForSequenceClassification.from_config(_scorer_config(self.model, self.tokenizer))
        trunk = f"{self.model.base_model_prefix}."
        merged = self.adapters.merged(self.model, self.critic_adapter)
        weights = {key: weight for key, weight in merged.items() if key.startswith(trunk)}
        weights["score.weight"] = self.value_head.weight.detach()
        shell.save_pretrained(folder, state_dict=weights)
        self.tokenizer.save_pretrained(folder)
        offset = -self.value_head.bias.item() if self.one_pass else 0.0
        Calibration(offset, temperature=1.0).save(folder)


def _scorer_config(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> PreTrainedConfig:
    config = deepcopy(model.config)
    config.num_labels = 1
    config.pad_token_id = tokenizer.pad_token_id
    return config


def _frozen_head(weight: torch.Tensor, device: torch.device) -> torch.nn.Linear:
    head: torch.nn.Linear = torch.nn.utils.skip_init(torch.nn.Linear, weight.shape[1], 1, bias=False, device=device)
    head.weight.data.copy_(weight)
    head.requires_grad_(False)
    return head


@torch.no_grad()
def _refuse_changed_logits(model: PreTrainedModel) -> None:
    """Raise ConfigError where logits are more than the output embeddings of the final hidden state."""
    ids = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    plain = model.get_output_embeddings()(model.base_model(input_ids=ids).last_hidden_state)
    if not torch.allclose(plain, model(input_ids=ids).logits):
        rule = f"does not work with {type(model).__name__}, which scales or caps its logits"
        raise ConfigError([ConfigProblem("ppo.critic", CriticKind.HEAD.value, rule, "use ppo.critic=model")])
