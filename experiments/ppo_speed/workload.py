"""Write a workload once, so that both sides start from the same weights and prompts.

python workload.py --workload a --output DIR
"""

import argparse
import dataclasses
import json
from pathlib import Path

import torch
from contract import WORKLOADS, Files, Workload
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

PAD, EOS, FIRST_WORD = 1, 2, 3
TEMPLATE = "{% for message in messages %}{{ message.content }} {% endfor %}"


def llama_6m() -> LlamaConfig:
    """Return the shape of 6.3 million parameters."""
    return LlamaConfig(
        vocab_size=4096,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=512,
        pad_token_id=PAD,
        eos_token_id=EOS,
        bos_token_id=EOS,
    )


def qwen2_half_b() -> Qwen2Config:
    """Return the shape of Qwen2-0.5B."""
    return Qwen2Config(
        vocab_size=151936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        eos_token_id=EOS,
        bos_token_id=EOS,
    )


def random_models(shape: str) -> tuple[PreTrainedModel, PreTrainedModel]:
    """Return a language model and a scorer, with a head of one number, with random weights."""
    torch.manual_seed(0)
    config = llama_6m() if shape == "llama-6m" else qwen2_half_b()
    policy = AutoModelForCausalLM.from_config(config)
    config.num_labels = 1
    return policy, AutoModelForSequenceClassification.from_config(config)


def train_to_stop(model: PreTrainedModel, *, hazard: float = 1 / 32, steps: int = 40) -> None:
    """Train on random tokens of which a share is EOS, until answers end by themselves about so often."""
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    vocabulary = model.config.vocab_size
    for _ in range(steps):
        tokens = torch.randint(FIRST_WORD, vocabulary, (16, 97))
        tokens[torch.rand(16, 97) < hazard] = EOS
        model(tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@torch.no_grad()
def forbid_ending(model: PreTrainedModel) -> None:
    """Make EOS and pad impossible: dimension 0 of the residual stream is constant, and these two see nothing else."""
    embeddings = model.get_input_embeddings().weight
    assert isinstance(embeddings, torch.Tensor)
    embeddings[:, 0] = 1.0
    for name, weight in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weight[0] = 0.0
    head = model.get_output_embeddings().weight
    head[[PAD, EOS]] = 0.0
    head[[PAD, EOS], 0] = -50.0


def words(vocabulary: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer whose i-th word is "w{i}"."""
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(vocabulary)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=f"w{PAD}",
        eos_token=f"w{EOS}",
        unk_token="w0",
        padding_side="left",
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def write(workload: Workload, folder: Path) -> None:
    """Write policy, reward model, tokenizer and prompts."""
    files = Files(folder)
    policy, reward = random_models(workload.shape)
    if workload.eos == "trained":
        train_to_stop(policy)
    if workload.eos == "never":
        forbid_ending(policy)
    tokenizer = words(policy.config.vocab_size)
    for model, target in ((policy, files.policy), (reward, files.reward)):
        model.to(getattr(torch, workload.dtype)).save_pretrained(target)
        tokenizer.save_pretrained(target)
    generator = torch.Generator().manual_seed(0)
    shape = (workload.prompts, workload.prompt_tokens)
    prompts = torch.randint(FIRST_WORD, policy.config.vocab_size, shape, generator=generator)
    (folder / "prompts.json").write_text(json.dumps(prompts.tolist()))
    (folder / "workload.json").write_text(json.dumps(dataclasses.asdict(workload)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", choices=list(WORKLOADS), required=True)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    write(WORKLOADS[given.workload], given.output)
