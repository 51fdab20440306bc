"""A run in progress: it finds each stage's product in the registry by fingerprint, or has it built and registers it.

A fingerprint is the digest of a stage's kind, settings, inputs and seed; what is found is not computed again.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rlhf.config import ExperimentConfig
from rlhf.inputs import names_folder
from rlhf.labels.trust.quality import Preference
from rlhf.registry import STAGE_FILE, VALIDATION, Artifact, Registry
from rlhf.report import StageResult
from rlhf.search.pruning import listener
from rlhf.sources import Sources
from sft.core.durable import folder_digest, json_digest, write_json
from sft.core.errors import DataError
from sft.core.interruption import raise_if_stopped
from sft.core.out_of_memory import memory_errors
from sft.core.statistics import Estimate
from sft.core.text import TokenLimits, as_dicts
from sft.core.tracking import RunTracker, Tracker
from sft.core.wandb_run import Product
from sft.data import Example

if TYPE_CHECKING:
    from sft.core.distributed import Peers

STAGE_VERSION = 4
"""Raised when a change of code changes what the same configuration gives; old artifacts are then not reused."""

MORE_MEMORY = "give this process more memory: the same command then carries on where it stopped"
LESS_MEMORY = {
    "ppo": f"lower ppo.micro_batch_tokens and ppo.generation_batch_size, with which PPO begins anew, or {MORE_MEMORY}"
}
"""Stage -> what to do where memory runs out; stages that know better say so themselves."""


class Built(NamedTuple):
    """What a stage made: a folder to register, what the report shows of it, and its optimiser steps."""

    folder: Path
    stage: dict[str, object]
    steps: int
    device: str | None = None
    """Where tensors lived; None for a product that no model made."""


class Done(NamedTuple):
    """A stage that is in the registry now."""

    artifact: Artifact
    stage: dict[str, object]
    cached: bool
    steps: int
    seconds: float

    @property
    def path(self) -> Path:
        """Return the folder of the product."""
        return self.artifact.path


class Told(NamedTuple):
    """What W&B is told of a stage beside the configuration."""

    tags: list[str]
    about: dict[str, object]


Build = Callable[[Path, Tracker], Built]
Parents = Sequence[tuple[str, Artifact]]


@dataclass
class Run:
    """One run in progress: its configuration, registry and tracker, and what it has finished."""

    config: ExperimentConfig
    registry: Registry
    tracker: RunTracker
    sources: Sources
    peers: "Peers | None" = None
    """The other processes that torchrun started; None for a run of one."""
    stages: dict[str, StageResult] = field(default_factory=dict)
    reports: dict[str, dict[str, object]] = field(default_factory=dict)
    settings: dict[str, object] = field(default_factory=dict)
    """The settings behind each fingerprint that was asked for; they are registered with the product."""
    inputs: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """The digests of data and models behind each fingerprint that was asked for."""
    checked: set[str] = field(default_factory=set)
    """References of what was taken from the registry and found intact."""
    suffix: str = ""
    """Put behind the names of stages that are repeated: "-1" in the first of several rounds, "" in the last."""
    on_finish: Callable[[StageResult, dict[str, object]], None] | None = None
    """Called after each stage with its result and its report."""

    @property
    def limits(self) -> TokenLimits:
        """Return the longest prompt and answer in tokens."""
        return TokenLimits(self.config.data.max_prompt_tokens, self.config.data.max_answer_tokens)

    @property
    def sampling_limits(self) -> TokenLimits:
        """Return the longest prompt and sampled answer in tokens."""
        return TokenLimits(self.config.data.max_prompt_tokens, self.config.ppo.response_length)

    def report_kind(self, kind: str) -> str:
        """Return the kind of a report on held-out data; one on validation data must not let a policy be promoted."""
        return f"{VALIDATION}{kind}" if self.config.search.is_trial else kind

    def sampling_settings(self) -> dict[str, object]:
        """Return what decides sampled answers, for the fingerprints of stages that look at them."""
        return {"temperature": self.config.ppo.temperature, "response_length": self.config.ppo.response_length}

    def device(self) -> str:
        """Return where this run's tensors live; only stages that load torch anyway ask."""
        from sft.model import torch_device

        return str(torch_device(self.config.runtime))

    def fingerprint(self, kind: str, settings: object, inputs: Mapping[str, str]) -> str:
        """Return the digest of everything that decides a stage's product."""
        fingerprint = json_digest(
            {
                "kind": kind,
                "stage_version": STAGE_VERSION,
                "settings": settings,
                "inputs": dict(inputs),
                "limits": list(self.limits),
                "seed": self.config.seed,
                "dtype": self.config.runtime.dtype,
                "prefix": self.config.registry.prefix,
            }
        )
        self.settings[fingerprint] = settings
        self.inputs[fingerprint] = inputs
        return fingerprint

    def _told(self, fingerprint: str, parents: Parents) -> "Told":
        """Return what W&B is told of a stage that starts: registered parents, and the digest of its data."""
        made = {artifact.fingerprint for _, artifact in parents}
        inputs = self.inputs.get(fingerprint, {})
        data = {name: digest for name, digest in inputs.items() if digest not in made}
        refs = {role: artifact.ref for role, artifact in parents}
        stage = {"fingerprint": fingerprint, "inputs": dict(inputs), "parents": refs}
        return Told([f"data:{json_digest(data)[:12]}", *refs.values()], {"stage": stage})

    def produce(self, stage: str, kind: str, fingerprint: str, parents: Parents, build: Build) -> Done:
        """Return the product of a fingerprint: from the registry, or built, registered, and then returned.

        Raises:
            StorageError: what the registry holds is damaged.
        """
        raise_if_stopped()
        started = time.perf_counter()
        found = self.registry.find(fingerprint)
        if found is None:
            with self.registry.workspace(fingerprint, stage=f"{stage}{self.suffix}") as folder:
                found = self.registry.find(fingerprint)  # another process may have made it while this one waited
                if found is None:
                    told = self._told(fingerprint, parents)
                    with self.tracker.stage(
                        f"{stage}{self.suffix}",
                        kind,
                        tags=told.tags,
                        about=told.about,
                        listener=listener(self.config.search, kind),
                    ) as tracker:
                        with memory_errors(LESS_MEMORY.get(stage, MORE_MEMORY)):
                            built = build(folder, tracker)
                        artifact = self.register(kind, fingerprint, parents, built)
                    return Done(artifact, built.stage, False, built.steps, time.perf_counter() - started)
        self.check(found)
        self.tracker.cached(f"{kind}{self.suffix}" if kind == stage else f"{stage}{self.suffix} ({kind})")
        return Done(found, read_stage(found.path), True, 0, time.perf_counter() - started)

    def check(self, artifact: Artifact) -> None:
        """Compare every file of what the registry gave with what was registered, once in a run; StorageError."""
        if artifact.ref not in self.checked:
            self.registry.check(artifact)
            self.checked.add(artifact.ref)

    def register(self, kind: str, fingerprint: str, parents: Parents, built: Built) -> Artifact:
        """Write stage.json into a finished folder and move it into the registry."""
        write_json(built.folder / STAGE_FILE, built.stage)
        artifact = self.registry.register(
            built.folder,
            name=f"{self.config.registry.prefix}{kind}",
            kind=kind,
            fingerprint=fingerprint,
            metadata={
                "metrics": built.stage["metrics"],
                "settings": self.settings.get(fingerprint, {}),
                "seed": self.config.seed,
                "environment": self._environment(built.device),
            },
            parents=parents,
        )
        refs = {role: parent.ref for role, parent in parents}
        self.tracker.registered(Product(artifact.ref, kind, artifact.path, artifact.sha256, fingerprint, refs))
        return artifact

    def _environment(self, device: str | None) -> dict[str, object]:
        libraries = ("torch", "transformers", "trl", "numpy")
        return {
            "python": sys.version.split()[0],
            **{name: version(name) for name in libraries},
            "device": device,
            "dtype": self.config.runtime.dtype,
            "threads": self.config.runtime.threads,
        }

    def finish(self, name: str, done: Done, *, artifact: Artifact | None = None, extra: Sequence[Done] = ()) -> None:
        """Record a stage for results.json and the report; `extra` are by-products whose cost belongs to it."""
        every = [done, *extra]
        name = f"{name}{self.suffix}"
        self.reports[name] = done.stage
        metrics = done.stage["metrics"]
        assert isinstance(metrics, dict)
        self.stages[name] = StageResult(
            name=name,
            artifact=(artifact or done.artifact).ref,
            fingerprint=done.artifact.fingerprint,
            cached=all(part.cached for part in every),
            seconds=sum(part.seconds for part in every),
            train_steps=sum(part.steps for part in every),
            metrics=metrics,
        )
        if self.on_finish is not None:
            self.on_finish(self.stages[name], done.stage)

    def adopt(self, kind: str, source: str) -> Done:
        """Return the model that `sft.from` or `reward.from` names; a folder is copied into the registry.

        Raises:
            StorageError: what the registry holds is damaged.
        """
        started = time.perf_counter()
        if not names_folder(source):
            artifact = self.registry.get(source)
            self.check(artifact)
            return Done(artifact, read_stage(artifact.path), True, 0, time.perf_counter() - started)
        folder = Path(source).expanduser()
        fingerprint = json_digest(
            {"kind": kind, "adopted": folder_digest(folder), "prefix": self.config.registry.prefix}
        )
        found = self.registry.find(fingerprint)
        if found is None:
            with self.registry.workspace(fingerprint, stage=kind) as workspace:
                copy_model(folder, workspace)
                built = Built(workspace, {"metrics": {}, "adopted_from": source}, 0)
                found = self.register(kind, fingerprint, [], built)
        self.check(found)
        return Done(found, read_stage(found.path), True, 0, time.perf_counter() - started)


def read_stage(folder: Path) -> dict[str, object]:
    """Return a registered product's stage.json; a model from elsewhere has none, and so no metrics."""
    path = folder / STAGE_FILE
    if not path.is_file():
        return {"metrics": {}}
    stage = json.loads(path.read_text())
    assert isinstance(stage, dict)
    return stage


def model_files(folder: Path) -> list[Path]:
    """Return the safe files of a Hugging Face folder: safetensors, JSON, text, templates. Never pickles or code."""
    safe = {".safetensors", ".json", ".txt", ".model", ".jinja"}
    return [path for path in sorted(folder.iterdir()) if path.is_file() and path.suffix in safe]


def copy_model(source: Path, target: Path) -> None:
    """Copy the safe files of a Hugging Face folder. Raises DataError where there are no weights among them."""
    files = model_files(source)
    if not any(path.suffix == ".safetensors" for path in files):
        raise DataError(
            f"{source} holds no .safetensors file; save the model with save_pretrained and give that folder"
        )
    for path in files:
        shutil.copyfile(path, target / path.name)


def digest_of(rows: Sequence[object]) -> str:
    """Return one digest of examples, preferences or prompts, in order."""
    return json_digest([_plain(row) for row in rows])


def _plain(row: object) -> object:
    if isinstance(row, Example):
        return [as_dicts(row.prompt), row.answer]
    if isinstance(row, Preference):
        return [as_dicts(row.prompt), row.chosen, row.rejected]
    return row


def shown(estimates: Mapping[str, Estimate]) -> dict[str, object]:
    """Return estimates in the shape of results.json."""
    return {name: estimate.as_dict() for name, estimate in estimates.items()}
