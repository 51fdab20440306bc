"""torch.compile for the layers of a decoder, where the machine can."""

import shutil
import sysconfig
from pathlib import Path

import torch
from transformers import PreTrainedModel

from sft.core.packing import decoder_layers

MOST_GRAPHS = 64
"""Lengths of lines times ways to pass (training, without gradients, frozen); beyond it, layers run uncompiled."""


def missing_for_compilation(device: torch.device) -> list[str]:
    """Return what torch.compile lacks on this machine; on a GPU it brings its own compiler."""
    if device.type != "cpu":
        return []
    header = Path(sysconfig.get_path("include")) / "Python.h"
    missing = [] if shutil.which("g++") else ["g++ (Debian package g++)"]
    return missing + ([] if header.is_file() else [f"{header} (Debian package python3-dev)"])


def compile_layers(model: PreTrainedModel) -> None:
    """Compile the decoder layers in place but the last, for fixed shapes; layers of one shape share compiled code.

    A kernel then depends on the shape alone, so the same batch gives the same bits in every run. The last layer works
    on the states that are needed, whose number adds shapes of its own.
    """
    torch._dynamo.config.recompile_limit = MOST_GRAPHS
    for layer in decoder_layers(model)[:-1]:
        layer.compile(dynamic=False)
