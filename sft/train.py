"""Supervised fine-tuning: a base model and demonstrations in, the best checkpoint by validation loss out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase
from trl import SFTConfig as TRLConfig
from trl import SFTTrainer

from sft.config import Dtype, RuntimeConfig, SFTConfig
from sft.core.checkpoint import Saving
from sft.core.errors import DataError
from sft.core.text import TokenLimits, encode_answer, encode_prompt
from sft.core.tracking import Tracker
from sft.data import Example
from sft.divergence import Guard
from sft.model import load_causal_lm, load_tokenizer, torch_device
from sft.trainer import (
    LossPoint,
    Resumable,
    loss_history,
    quiet_trainers,
    save_trained,
    train_or_carry_on,
    training_settings,
    with_lengths,
)

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


class _Trainer(Resumable, SFTTrainer):  # type: ignore[misc]
    """TRL's trainer, guarded and resumable."""


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
    saving: Saving | None = None,
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
        saving: where checkpoints lie; a run with the same fingerprint carries on from the newest. None: no checkpoints.

    Raises:
        ConfigError: the newest checkpoint was made in another environment.
        DataError: no usable row in `train` or `validation`, or a loss that is no number.
        Interrupted: a signal came; the step was finished and saved.
        OutOfMemory: memory did not suffice.
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
    device = torch_device(runtime)
    model = load_causal_lm(base, device=device, dtype=Dtype.FLOAT32)
    model.config.pad_token_id = tokenizer.pad_token_id
    trainer = _Trainer(
        model=model,
        args=TRLConfig(**training_settings(config, runtime, seed=seed, out_dir=out_dir)),
        train_dataset=with_lengths(encoded.rows, "input_ids"),
        eval_dataset=with_lengths(encoded_validation.rows, "input_ids"),
        processing_class=tokenizer,
    )
    guard = Guard(out_dir if saving is None else saving.folder, encoded.rows, ["input_ids"], tokenizer)
    patience = config.early_stopping_patience
    train_or_carry_on(trainer, model, guard, patience=patience, device=device, saving=saving, tracker=tracker)
    best_loss = trainer.evaluate()["eval_loss"]
    save_trained(model, tokenizer, out_dir)
    metrics = {
        "eval_loss": float(best_loss),
        "examples": len(encoded.rows),
        "validation_examples": len(encoded_validation.rows),
        "prompts_shortened": encoded.prompts_shortened + encoded_validation.prompts_shortened,
        "answers_left_out": encoded.left_out + encoded_validation.left_out,
    }
    return SFTResult(out_dir, metrics, trainer.state.global_step, loss_history(trainer.state))
