"""Power loss at every moment of a save: what was not synced is lost in many combinations, and a whole checkpoint stays.

See `power_loss` for the model of the disk.
"""

from pathlib import Path

import pytest
from power_loss import outcomes, record

from sft.core import durable


def test_every_prefix_of_a_save_leaves_a_whole_checkpoint_whatever_was_lost(tmp_path: Path):
    images = record(tmp_path / "store")
    found = outcomes(images, tmp_path / "disks")
    assert len(images) > 15
    assert len(found) > 200
    assert set(found) == {2, 3}
    last = outcomes(images[-1:], tmp_path / "last")
    assert set(last) == {3}, "after save has returned, the new one survives any loss"


@pytest.mark.parametrize("skipped", ["_sync_file", "sync_folder"])
def test_a_sync_that_is_left_out_is_seen(skipped: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """So that the test above would fail if files or folders were not synced."""
    monkeypatch.setattr(durable, skipped, lambda path: None)
    images = record(tmp_path / "store")
    assert set(outcomes(images[-1:], tmp_path / "last")) != {3}
