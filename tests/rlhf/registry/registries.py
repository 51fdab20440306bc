"""What the tests of the registry do again and again: register, look whether all is whole, fork, wait."""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

from rlhf.registry import Artifact, Registry
from rlhf.registry import database as _database  # noqa: F401  (loaded here, so that no child has to)
from rlhf.registry import workspace as _workspace  # noqa: F401
from sft.core import durable
from sft.core.durable import broken_files, write_json

Open = Callable[[], Registry]
FORK = multiprocessing.get_context("fork")


def start(target: Callable[..., None], *args: object) -> BaseProcess:
    process = FORK.Process(target=target, args=args)
    process.start()
    return process


def wait_for(path: Path) -> None:
    wait_until(path.exists)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)


def add(
    registry: Registry,
    name: str,
    fingerprint: str,
    *,
    kind: str = "sft",
    metadata: dict[str, object] | None = None,
    parents: Sequence[tuple[str, Artifact]] = (),
    stage: dict[str, object] | None = None,
) -> Artifact:
    """Register a version with two files, or return the one that is there."""
    with registry.workspace(fingerprint) as folder:
        found = registry.find(fingerprint)
        if found is not None:
            return found
        (folder / "weights").mkdir()
        (folder / "weights" / "model.safetensors").write_text(fingerprint)
        if stage is not None:
            write_json(folder / "stage.json", stage)
        given = {"name": name, "kind": kind, "fingerprint": fingerprint, "metadata": metadata or {}}
        return registry.register(folder, **given, parents=parents)


def assert_whole(registry: Registry) -> None:
    """Every listed version has an intact folder of its own content, versions have no gap, aliases point at some."""
    artifacts = registry.artifacts()
    assert [problem for artifact in artifacts for problem in broken_files(artifact.path)] == []
    for name in {artifact.name for artifact in artifacts}:
        versions = [artifact.version for artifact in registry.artifacts(name, removed=True)]
        assert versions == list(range(1, len(versions) + 1))
    for artifact in artifacts:
        assert (artifact.path / "weights" / "model.safetensors").read_text() == artifact.fingerprint
        assert artifact.sha256 == durable.file_digest(artifact.path / durable.MANIFEST)
        for alias in artifact.aliases:
            assert registry.get(f"{artifact.name}@{alias}") == artifact


def leftovers(registry: Registry) -> list[str]:
    return sorted(path.name for path in (registry.root / ".work").iterdir())
