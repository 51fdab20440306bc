"""Models and tokenizers: build the tiny one, load any folder. Safetensors only, never remote code."""

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from sft.config import Device, Dtype, ModelConfig, RuntimeConfig
from sft.core.durable import file_digest, json_digest
from sft.core.errors import ConfigError, ConfigProblem, DataError
from sft.core.linear import prefers_onednn, use_onednn
from sft.core.packing import use_packed_attention
from sft.core.quiet import quiet_libraries
from sft.core.template_limits import check_template
from sft.core.text import template_of

PAD, EOS = "<|pad|>", "<|eos|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def torch_device(runtime: RuntimeConfig) -> torch.device:
    """Return the device to use. Raises ConfigError when CUDA is asked for and absent."""
    available = torch.cuda.is_available()
    if runtime.device is Device.CUDA and not available:
        problem = ConfigProblem("runtime.device", "cuda", "no CUDA device is visible", "use runtime.device=cpu")
        raise ConfigError([problem])
    return torch.device("cuda" if available and runtime.device is not Device.CPU else "cpu")


def torch_dtype(dtype: Dtype) -> torch.dtype:
    """Return torch's name of a number format."""
    return {Dtype.FLOAT32: torch.float32, Dtype.BFLOAT16: torch.bfloat16}[dtype]


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer whose pad, EOS and role tokens are all distinct."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, EOS, *ROLES],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        additional_special_tokens=list(ROLES),
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def build_tiny(config: ModelConfig, texts: Sequence[str], *, seed: int, out_dir: Path) -> None:
    """Write a small Llama with random weights, and a tokenizer trained on `texts`, to a Hugging Face folder."""
    quiet_libraries()
    tokenizer = train_tokenizer(texts, config.vocab_size)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            max_position_embeddings=config.max_position_embeddings,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )
    model.save_pretrained(out_dir)
    tokenizer.save_pretrained(out_dir)


def load_tokenizer(folder: Path, *, pad_token: str | None = None) -> PreTrainedTokenizerFast:
    """Load a folder's tokenizer, padding on the left; `pad_token` names an existing token to pad with.

    Raises:
        DataError: there is no fast tokenizer, its pad is missing or the EOS, or its chat template breaks a limit.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, padding_side="left")
    if pad_token is not None:
        tokenizer.pad_token = pad_token
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise DataError(f"{folder} has no tokenizer.json; save its tokenizer as a fast one")
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise DataError(
            f"the tokenizer of {folder} has pad {tokenizer.pad_token!r} and EOS {tokenizer.eos_token!r}; name another, "
            "existing token as pad_token in its tokenizer_config.json"
        )
    template = template_of(tokenizer)
    if template is not None and template != CHAT_TEMPLATE:
        check_template(template)
    return tokenizer


def load_causal_lm(folder: Path, *, device: torch.device, dtype: Dtype) -> PreTrainedModel:
    """Load a folder's language model in evaluation mode (dropout off)."""
    quiet_libraries()
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch_dtype(dtype), use_safetensors=True, trust_remote_code=False
    )
    return placed(model, device)


def weights_digest(folder: Path) -> str:
    """Return one sha256 over a folder's weights, whatever else lies there."""
    return json_digest({path.name: file_digest(path) for path in folder.glob("*.safetensors")})


def placed(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """Move a model to a device, switch its dropout off and let it take rows without padding."""
    torch.nn.Module.to(model, device)
    model.eval()
    if device.type == "cpu" and prefers_onednn():
        use_onednn(model)
    return use_packed_attention(model)
