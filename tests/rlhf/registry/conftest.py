"""Registries that the tests share: in memory where only kills matter, on SQLite and on a real PostgreSQL server."""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from registries import Open

from rlhf.registry import Registry

_MEMORY = Path("/dev/shm")


@pytest.fixture
def memory_path(tmp_path: Path) -> Iterator[Path]:
    """Return a folder in memory, where syncing costs nothing: a kill loses nothing of it, only a power cut would."""
    if not _MEMORY.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=_MEMORY, prefix="rlhf-") as folder:
        yield Path(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def open_registry(request: pytest.FixtureRequest, memory_path: Path) -> Open:
    """Return what opens one and the same registry, on SQLite and then on PostgreSQL."""
    url = None if request.param == "sqlite" else request.getfixturevalue("postgresql_url")
    return partial(Registry, memory_path / "registry", url=url)
