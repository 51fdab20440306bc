"""Making and loading models prints no bars of other libraries: our own Tracker speaks."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers.utils import logging

from reward.model import load_scorer
from sft.config import Dtype, ModelConfig
from sft.model import build_tiny, load_causal_lm

SIZES = {
    "vocab_size": 300,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "work",
    [
        lambda folder, base, reward: build_tiny(ModelConfig(**SIZES), ["a b"], seed=0, out_dir=folder),
        lambda folder, base, reward: load_causal_lm(base, device=CPU, dtype=Dtype.FLOAT32),
        lambda folder, base, reward: load_scorer(reward, device=CPU, dtype=Dtype.FLOAT32),
    ],
    ids=["build", "load", "load a reward model"],
)
def test_models_are_made_and_loaded_without_bars(
    work: Callable[[Path, Path, Path], object],
    base_folder: Path,
    reward_folder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    logging.enable_progress_bar()  # as in a process of its own
    capfd.readouterr()
    work(tmp_path, base_folder, reward_folder)
    assert capfd.readouterr() == ("", "")
