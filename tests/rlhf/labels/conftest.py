"""Databases that the tests of the labels share: a fresh one a test, on SQLite and on a real PostgreSQL server."""

from pathlib import Path

import pytest


@pytest.fixture(params=["sqlite", "postgresql"])
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty database, on SQLite and then on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'labels.sqlite'}"
    return request.getfixturevalue("postgresql_url")
