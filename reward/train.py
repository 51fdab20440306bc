"""Reward model training: an SFT model and comparisons in, a calibrated scorer out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from peft import PeftModel, get_peft_model
from transformers import PreTrainedModel
from trl import RewardConfig as TRLConfig
from trl import RewardTrainer

from reward.adapter import save_adapter
from reward.calibration import Calibration, fit_temperature
from reward.config import RewardConfig
from reward.data import Comparison, encode_comparisons
from reward.model import RewardModel, new_scorer
from sft.config import RuntimeConfig
from sft.core.checkpoint import Saving
from sft.core.errors import DataError
from sft.core.lora import lora_config
from sft.core.text import TokenLimits
from sft.core.tracking import Tracker
from sft.data import Example
from sft.divergence import Guard
from sft.model import load_tokenizer, torch_device
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


@dataclass(frozen=True)
class RewardResult:
    """What reward training leaves behind: a Hugging Face folder with calibration.json, numbers, the loss curve."""

    checkpoint: Path
    metrics: dict[str, float]
    steps: int
    loss: list[LossPoint]


class _Trainer(Resumable, RewardTrainer):  # type: ignore[misc]
    """TRL's trainer, guarded and resumable."""


def margins(model: RewardModel, comparisons: Sequence[Comparison]) -> npt.NDArray[np.float64]:
    """Return the calibrated r_chosen - r_rejected of each comparison."""
    chosen = model.score_texts([(c.prompt, c.chosen) for c in comparisons])
    return chosen - model.score_texts([(c.prompt, c.rejected) for c in comparisons])


def train_reward(
    config: RewardConfig,
    *,
    sft: Path,
    train: Sequence[Comparison],
    validation: Sequence[Comparison],
    references: Sequence[Example],
    limits: TokenLimits,
    runtime: RuntimeConfig,
    seed: int,
    out_dir: Path,
    tracker: Tracker,
    saving: Saving | None = None,
) -> RewardResult:
    """Train a Bradley-Terry model; keep the weights with the lowest validation loss, then calibrate them.

    Args:
        config: learning rate, epochs, early stopping.
        sft: Hugging Face folder of the SFT model, whose weights and tokenizer are taken over.
        train: comparisons to learn from.
        validation: comparisons that select the checkpoint and fit the temperature; other prompts than `train`.
        references: answers of the SFT data; the mean of their scores becomes the offset, so that 0 is the SFT level.
        limits: longest prompt and answer in tokens.
        runtime: device, dtype, threads.
        seed: of the head and the order of the rows.
        out_dir: empty folder; afterwards holds the model, its tokenizer and calibration.json.
        tracker: where the numbers go.
        saving: where checkpoints lie; a run with the same fingerprint carries on from the newest. None: no checkpoints.

    Raises:
        ConfigError: the newest checkpoint was made in another environment.
        DataError: no usable comparison in `train` or `validation`, or a loss that is no number.
        Interrupted: a signal came; the step was finished and saved.
        OutOfMemory: memory did not suffice.
    """
    quiet_trainers()
    torch.set_num_threads(runtime.threads)
    tokenizer = load_tokenizer(sft)
    encoded = encode_comparisons(tokenizer, train, limits)
    encoded_validation = encode_comparisons(tokenizer, validation, limits)
    for name, part in (("train", encoded), ("validation", encoded_validation)):
        if not part.rows:
            raise DataError(
                f"no usable comparison in the {name} split ({part.left_out} left out as longer than "
                f"data.max_answer_tokens={limits.answer}); give more data or raise data.max_answer_tokens"
            )
    device = torch_device(runtime)
    model: PreTrainedModel | PeftModel = new_scorer(sft, seed=seed, device=device)
    model.config.pad_token_id = tokenizer.pad_token_id
    if config.lora_r is not None:
        model = _adapted(model, config.lora_r, config.lora_alpha, seed=seed)
    settings = training_settings(config, runtime, seed=seed, out_dir=out_dir)
    columns = ("chosen_ids", "rejected_ids")
    trainer = _Trainer(
        model=model,
        args=TRLConfig(**settings, center_rewards_coefficient=config.center_rewards_coefficient),
        train_dataset=with_lengths(encoded.rows, *columns),
        eval_dataset=with_lengths(encoded_validation.rows, *columns),
        processing_class=tokenizer,
    )
    guard = Guard(out_dir if saving is None else saving.folder, encoded.rows, columns, tokenizer)
    patience = config.early_stopping_patience
    train_or_carry_on(trainer, model, guard, patience=patience, device=device, saving=saving, tracker=tracker)
    model.eval()
    if config.lora_r is not None:
        assert isinstance(model, PeftModel)
        save_adapter(out_dir, model, base=sft, r=config.lora_r, alpha=config.lora_alpha)
        model = model.merge_and_unload()
    trained = RewardModel(model, tokenizer, Calibration(0.0, 1.0), limits.prompt)
    raw_margins = margins(trained, encoded_validation.kept)
    offset = float(trained.score_texts([(example.prompt, example.answer) for example in references]).mean())
    calibration = Calibration(offset, fit_temperature(raw_margins))
    save_trained(model, tokenizer, out_dir)
    calibration.save(out_dir)
    metrics = {
        "validation_accuracy": float(np.mean(raw_margins > 0)),
        "offset": calibration.offset,
        "temperature": calibration.temperature,
        "comparisons": len(encoded.rows),
        "validation_comparisons": len(encoded_validation.rows),
        "prompts_shortened": encoded.prompts_shortened + encoded_validation.prompts_shortened,
        "comparisons_left_out": encoded.left_out + encoded_validation.left_out,
    }
    return RewardResult(out_dir, metrics, trainer.state.global_step, loss_history(trainer.state))


def _adapted(model: PreTrainedModel, r: int, alpha: float, *, seed: int) -> PeftModel:
    """Return a scorer of which LoRA adapters and the head train."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return get_peft_model(model, lora_config(model, r=r, alpha=alpha, task="SEQ_CLS"))
