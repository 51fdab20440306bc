"""torch.compile for the layers of a decoder, where the machine can."""

import shutil
import sysconfig
from pathlib import Path

import torch
from transformers import PreTrainedModel

from sft.core.packing import decoder_layers

TOKEN_MULTIPLE = 256
"""Compiled layers meet lines of tokens in multiples of this: a few shapes, each compiled once, and little filling."""


def missing_for_compilation(device: torch.device) -> list[str]:
    """Return what torch.compile lacks on this machine; on a GPU it brings its own compiler."""
    if device.type != "cpu":
        return []
    header = Path(sysconfig.get_path("include")) / "Python.h"
    missing = [] if shutil.which("g++") else ["g++ (Debian package g++)"]
    return missing + ([] if header.is_file() else [f"{header} (Debian package python3-dev)"])


def compile_layers(model: PreTrainedModel) -> None:
    """Compile each decoder layer in place, for fixed shapes; all layers of one shape share the compiled code.

    A kernel then depends on the shape alone, so the same batch gives the same bits in every run.
    """
    for layer in decoder_layers(model):
        layer.compile(dynamic=False)
