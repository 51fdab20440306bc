from pathlib import Path

import pytest

from sft.core.wandb_environment import resolve_mode


def test_mode_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert resolve_mode("auto", {}) == "offline"
    assert resolve_mode("auto", {"WANDB_API_KEY": "k"}) == "online"
    assert resolve_mode("auto", {"WANDB_API_KEY": "k", "WANDB_MODE": "offline"}) == "offline"
    assert resolve_mode("auto", {"WANDB_MODE": "disabled"}) == "disabled"
    assert resolve_mode("disabled", {"WANDB_API_KEY": "k"}) == "disabled"
    assert resolve_mode("online", {"WANDB_API_KEY": "k", "WANDB_MODE": "offline"}) == "online"
    assert resolve_mode("online", {}) == "offline"  # wandb would ask for a key
    login = tmp_path / "login"
    login.write_text("machine wandb.example login user password abc\n")
    login.chmod(0o600)
    there = {"NETRC": str(login), "WANDB_BASE_URL": "https://wandb.example"}
    assert resolve_mode("auto", there) == "online"
    assert resolve_mode("auto", {"NETRC": str(login)}) == "offline"
    login.write_text("machine wandb.example log")
    assert resolve_mode("auto", there) == "offline"
