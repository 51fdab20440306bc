from pathlib import Path

import pytest
from published import Published, publish


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory, sft_folder: Path, reward_folder: Path) -> Published:
    """Return a registry that tests read; those that change one make their own."""
    return publish(tmp_path_factory.mktemp("published"), sft_folder, reward_folder)
