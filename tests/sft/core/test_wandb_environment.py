import os
from pathlib import Path

import pytest

from sft.core.errors import UsageError
from sft.core.wandb_environment import resolve_mode


def test_mode_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_mode("auto", {}) == "offline"
    assert resolve_mode("auto", {"WANDB_API_KEY": "k"}) == "online"
    assert resolve_mode("auto", {"WANDB_API_KEY": "k", "WANDB_MODE": "offline"}) == "offline"
    assert resolve_mode("auto", {"WANDB_API_KEY": "k", "WANDB_MODE": "DryRun"}) == "offline"  # its older name
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


def test_a_mode_that_wandb_does_not_have_is_not_taken_for_online():
    with pytest.raises(UsageError, match="WANDB_MODE=ofline is not known; use online, offline or disabled"):
        resolve_mode("auto", {"WANDB_API_KEY": "k", "WANDB_MODE": "ofline"})
    assert resolve_mode("offline", {"WANDB_MODE": "ofline"}) == "offline"
    assert resolve_mode("auto", {"WANDB_API_KEY": "k", "WANDB_MODE": "run"}) == "online"


def test_a_netrc_that_is_no_text_holds_no_key(tmp_path: Path):
    login = tmp_path / "login"
    login.write_bytes(b"machine api.wandb.ai login user password \xff\n")
    login.chmod(0o600)
    assert resolve_mode("auto", {"NETRC": str(login)}) == "offline"


def test_a_netrc_in_the_home_folder_is_found_by_its_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own").write_text("machine api.wandb.ai login user password abc\n")
    (tmp_path / "own").chmod(0o600)
    assert resolve_mode("auto", {"NETRC": "~/own"}) == "online"  # as wandb reads it


def test_a_user_without_a_home_has_no_key(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # so it is where neither HOME nor a user is known
    assert resolve_mode("auto", {}) == "offline"
