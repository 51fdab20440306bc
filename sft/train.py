"""Supervised fine-tuning: a base model and demonstrations in, the best checkpoint by validation loss out."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase
from trl import SFTConfig as TRLConfig
from trl import SFTTrainer

from sft.config import Dtype, RuntimeConfig, SFTConfig
from sft.core.errors import DataError
from sft.core.text import TokenLimits, encode_answer, encode_prompt
from sft.core.tracking import Tracker
from sft.data import Example
from sft.model import load_causal_lm, load_tokenizer, torch_device
from sft.trainer import LossPoint, callbacks, loss_history, quiet_trainers, silence, training_settings, with_lengths

IGNORED = -100
"""Label of a token that the loss does not count."""


@dataclass(frozen=True)
class SFTResult:
    """What SFT leaves behind: a Hugging Face folder, numbers, and the loss curve."""

    checkpoint: Path
    metrics: dict[str, float]
    steps: int
    loss: list[LossPoint]


class EncodedExamples(NamedTuple):
    """Token ids with labels, and what did not fit."""

    rows: list[dict[str, list[int]]]
    prompts_shortened: int
    left_out: int


def encode_examples(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], limits: TokenLimits
) -> EncodedExamples:
    """Return prompt ids + answer ids + EOS with labels on answer and EOS alone.

    Prompts longer than the limit keep their last tokens; examples with longer answers are left out. Both are counted.
    """
    rows, shortened, left_out = [], 0, 0
    for example in examples:
        prompt_ids = encode_prompt(tokenizer, example.prompt)
        answer_ids = encode_answer(tokenizer, example.answer)
        if len(answer_ids) - 1 > limits.answer:
            left_out += 1
            continue
        shortened += len(prompt_ids) > limits.prompt
        prompt_ids = prompt_ids[-limits.prompt :]
        rows.append({"input_ids": prompt_ids + answer_ids, "labels": [IGNORED] * len(prompt_ids) + answer_ids})
    return EncodedExamples(rows, shortened, left_out)


def train_sft(
    config: SFTConfig,
    *,
    base: Path,
    pad_token: str | None,
    train: Sequence[Example],
    validation: Sequence[Example],
    limits: TokenLimits,
    runtime: RuntimeConfig,
    seed: int,
    out_dir: Path,
    tracker: Tracker,
) -> SFTResult:
    """Fine-tune `base` on demonstrations; keep the weights with the lowest validation loss.

    Args:
        config: learning rate, epochs, early stopping.
        base: Hugging Face folder of the model to start from.
        pad_token: existing token to pad with, or None to use the tokenizer's own.
        train: demonstrations to learn from.
        validation: demonstrations that select the checkpoint; other prompts than those of `train`.
        limits: longest prompt and answer in tokens.
        runtime: device, dtype, threads.
        seed: order of the rows.
        out_dir: empty folder; afterwards holds the model and its tokenizer.
        tracker: where the numbers go.

    Raises:
        DataError: no usable row in `train` or `validation`.
    """
    quiet_trainers()
    torch.set_num_threads(runtime.threads)
    tokenizer = load_tokenizer(base, pad_token=pad_token)
    encoded = encode_examples(tokenizer, train, limits)
    encoded_validation = encode_examples(tokenizer, validation, limits)
    for name, part in (("train", encoded), ("validation", encoded_validation)):
        if not part.rows:
            raise DataError(
                f"no usable demonstration in the {name} split ({part.left_out} left out as longer than "
                f"data.max_answer_tokens={limits.answer}); give more data or raise data.max_answer_tokens"
            )
    model = load_causal_lm(base, device=torch_device(runtime), dtype=Dtype.FLOAT32)
    model.config.pad_token_id = tokenizer.pad_token_id
    checkpoints = out_dir / "checkpoints"
    trainer = SFTTrainer(
        model=model,
        args=TRLConfig(**training_settings(config, runtime, seed=seed, out_dir=checkpoints)),
        train_dataset=with_lengths(encoded.rows, "input_ids"),
        eval_dataset=with_lengths(encoded_validation.rows, "input_ids"),
        processing_class=tokenizer,
        callbacks=callbacks(config, tracker),
    )
    silence(trainer)
    trainer.train()
    best_loss = trainer.evaluate()["eval_loss"]
    shutil.rmtree(checkpoints, ignore_errors=True)
    trainer.model.save_pretrained(out_dir)
    tokenizer.save_pretrained(out_dir)
    metrics = {
        "eval_loss": float(best_loss),
        "examples": len(encoded.rows),
        "validation_examples": len(encoded_validation.rows),
        "prompts_shortened": encoded.prompts_shortened + encoded_validation.prompts_shortened,
        "answers_left_out": encoded.left_out + encoded_validation.left_out,
    }
    return SFTResult(out_dir, metrics, trainer.state.global_step, loss_history(trainer.state))
