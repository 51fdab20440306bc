"""Silence of transformers, where our own Tracker speaks."""

import os

import transformers


def quiet_libraries() -> None:
    """Stop telemetry, progress bars and advice."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
