import subprocess
from pathlib import Path

import pytest

from rlhf.runs.revision import Revision, revision


def git(folder: Path, *words: str) -> str:
    name = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *name, *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_text("1")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-q", "-m", "one")
    return tmp_path


def test_commit_and_changes(checkout: Path):
    commit = git(checkout, "rev-parse", "HEAD")
    assert revision(checkout / "code.py") == Revision(commit, dirty=False)
    (checkout / "notes.txt").write_text("a file that git does not track changes no code")
    assert revision(checkout / "code.py") == Revision(commit, dirty=False)
    (checkout / "code.py").write_text("2")
    assert revision(checkout / "code.py") == Revision(commit, dirty=True)


def test_a_repository_that_does_not_track_the_code_says_nothing_of_it(checkout: Path):
    (checkout / "installed.py").write_text("1")
    assert revision(checkout / "installed.py") == Revision(None, None)


def test_without_git_or_repository_nothing_is_known(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert revision(checkout / "code.py") == Revision(None, None)


def test_a_hooks_variables_do_not_mislead(checkout: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GIT_DIR", str(checkout / "nowhere"))
    assert revision(checkout / "code.py").dirty is False
