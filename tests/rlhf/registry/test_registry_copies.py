from collections.abc import Mapping
from pathlib import Path

import pytest

from rlhf.registry import Artifact, Registry
from rlhf.registry.copies import came_in, copies
from sft.core.durable import MANIFEST
from sft.core.errors import StorageError

MODEL = {"model.safetensors": "weights", "config.json": "{}"}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def add(registry: Registry, name: str, kind: str, files: Mapping[str, str], *parents: Artifact) -> Artifact:
    with registry.workspace(name) as folder:
        for file, content in files.items():
            (folder / file).write_text(content)
        used = [("sft", parent) for parent in parents]
        return registry.register(folder, name=name, kind=kind, fingerprint=name, metadata={}, parents=used)


def test_a_copy_is_told_by_its_files(registry: Registry):
    base = add(registry, "base", "base", {"model.safetensors": "other"})
    add(registry, "policy", "policy", {**MODEL, "stage.json": "1", "calibration.json": "2"}, base)
    add(registry, "near", "policy", {**MODEL, "config.json": "[]"}, base)
    add(registry, "copy", "sft", {**MODEL, "stage.json": "3", "rlhf-lineage.json": "4"})
    assert copies(registry.artifacts()) == {"copy:1": ["policy:1"]}
    add(registry, "again", "policy", MODEL)
    assert copies(registry.artifacts()) == {"again:1": ["copy:1", "policy:1"], "copy:1": ["again:1", "policy:1"]}


def test_what_has_no_weights_is_no_copy(registry: Registry):
    base = add(registry, "base", "base", MODEL)
    add(registry, "policy", "policy", MODEL, base)
    add(registry, "empty", "sft", {"stage.json": "1"})
    add(registry, "tokenizer", "sft", {"config.json": "{}"})
    assert copies(registry.artifacts()) == {"empty:1": [], "tokenizer:1": []}


def test_what_came_in(registry: Registry):
    base = add(registry, "base", "base", MODEL)
    made = add(registry, "made", "policy", MODEL, base)
    adopted = add(registry, "adopted", "reward", MODEL)
    labels = add(registry, "labels", "labels", {})
    assert [came_in(artifact) for artifact in (base, made, adopted, labels)] == [False, False, True, False]


def test_a_damaged_manifest_is_not_believed_and_not_read_without_need(registry: Registry):
    base = add(registry, "base", "base", MODEL)
    made = add(registry, "policy", "policy", MODEL, base)
    (made.path / MANIFEST).write_text('{"files": {}}')
    assert copies(registry.artifacts()) == {}
    add(registry, "copy", "policy", MODEL)
    with pytest.raises(StorageError, match=r"MANIFEST.json: not the one that was registered; see `rlhf models verify"):
        copies(registry.artifacts())
