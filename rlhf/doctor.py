"""`rlhf doctor`: what this machine offers, and what would go wrong."""

import os
import platform
import sqlite3
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rlhf.registry import Registry
from rlhf.registry.artifact import DATABASE_FILE
from sft.core.errors import RLHFError
from sft.core.wandb_environment import resolve_mode

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "wandb", "hydra-core", "sqlalchemy")
SAFE_SQLITE = (3, 51, 3)
"""Older versions can corrupt a database in write-ahead mode when a reset meets a checkpoint; very rare."""


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, what was found, whether that is well, and what to do if not."""

    name: str
    value: str
    ok: bool
    remedy: str = ""


def examine(registry: Path) -> list[Finding]:
    """Look at versions, devices, the registry's folder, the W&B mode and SQLite. Changes nothing."""
    findings = [Finding("python", platform.python_version(), True), *map(_package, PACKAGES), *_devices()]
    findings += [_registry(registry), Finding("wandb mode", resolve_mode("auto", os.environ), True), _sqlite()]
    return findings


def _package(name: str) -> Finding:
    try:
        return Finding(name, version(name), True)
    except PackageNotFoundError:
        return Finding(name, "not installed", False, "run `make install`, or pip install -c constraints.txt rlhf")


def _devices() -> list[Finding]:
    import torch

    cores = os.cpu_count() or 1
    found = [Finding("cpu", f"{cores} cores, torch uses {torch.get_num_threads()} threads", True)]
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return [*found, Finding("cuda", ", ".join(names) or "none (models run on the CPU)", True)]


def _registry(root: Path) -> Finding:
    nearest = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        return Finding(
            "registry", f"{root}: {error.strerror}", False, "choose a writable folder with registry.root=DIR"
        )
    state = "exists and is writable" if nearest == root else "can be made"
    return _tables(root) or Finding("registry", f"{root} {state}", True)


def _tables(root: Path) -> Finding | None:
    """Return what is wrong with the registry's own database; None: nothing, or it is on a server."""
    if not (root / DATABASE_FILE).is_file():
        return None
    try:
        Registry(root, create=False)
    except RLHFError as error:
        found, _, remedy = str(error).partition("; ")
        return Finding("registry", found, False, remedy)
    return None


def _sqlite() -> Finding:
    found = sqlite3.sqlite_version_info
    return Finding("sqlite", sqlite3.sqlite_version, True, "" if found >= SAFE_SQLITE else "3.51.3 or later is safer")
