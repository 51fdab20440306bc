"""Databases that the tests of the labels share: a fresh one a test, on SQLite and on a real PostgreSQL server."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import postgres
import pytest

_NUMBERS = count(1)


@pytest.fixture
def postgresql_url(postgres_server: str) -> Iterator[str]:
    """Return the URL of an empty database."""
    with postgres.new_database(postgres_server, f"labels_{next(_NUMBERS)}") as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty database, on SQLite and then on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'labels.sqlite'}"
    return request.getfixturevalue("postgresql_url")
