import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from labels_and_registry import NAME, ROWS, Place, place_in
from typer.testing import CliRunner, Result

from rlhf.cli import app
from rlhf.labelling.commands import EXPORT_FORMATS
from rlhf.labels.exporting.export_rows import ExportFormat
from sft.core.durable import broken_files
from sft.core.errors import UsageError


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return place_in(tmp_path)


def invoke(folder: Path, *args: str) -> Result:
    """Run in `folder`: its label database is the one beside its registry."""
    return CliRunner().invoke(app, ["labels", *args, "--project", "p", "--registry", str(folder / "registry")])


def document(folder: Path, *args: str) -> dict[str, object]:
    result = invoke(folder, *args, "--json")
    assert result.exit_code == 0, result.exception
    return json.loads(result.stdout)


def test_export(place, tmp_path):
    made = document(tmp_path, "export", "--format", "csv", "--output", str(tmp_path / "out"))
    wanted = {"dataset": "labels-p:1", "new": True, "format": "csv", "labels": 5, "rows": 5, "event_ids": [[1, 5]]}
    assert {name: made[name] for name in wanted} == wanted
    assert (made["path"], made["copy"]) == (str(tmp_path / "registry/labels-p/1"), str(tmp_path / "out"))
    assert broken_files(tmp_path / "out") == []
    again = document(tmp_path, "export", "--format", "csv", "--name", "other")
    assert (again["dataset"], again["new"], again["copy"]) == ("labels-p:1", False, None)
    rebuilt = document(tmp_path, "export", "--rebuild", str(made["digest"])[:9])
    assert rebuilt["dataset"] == "labels-p:1"
    assert document(tmp_path, "export", "--name", "other")["dataset"] == "other:1"


def test_erase(place, tmp_path):
    made = document(tmp_path, "export")
    reward = place.make("reward", comparisons=place.make("comparisons", labels=place.registry.get("labels-p")))
    policy = place.make("policy", reward=reward)
    place.add(ROWS[0], project="q")
    found = document(tmp_path, "erase", NAME)
    assert found["datasets"] == ["labels-p:1", "comparisons:1"]
    assert (found["reward_models"], found["policies"], found["others"]) == ([reward.ref], [policy.ref], [])
    assert (found["labels"], found["exports"], found["also_in"]) == (1, [made["digest"]], ["q"])
    assert len(found["next"]) == 4
    text = invoke(tmp_path, "erase", NAME)
    assert text.exit_code == 0
    lines = {line.split()[0]: line.split(maxsplit=1)[1].strip() for line in text.stdout.splitlines()}
    assert (lines["datasets"], lines["policies"]) == ("labels-p:1, comparisons:1", "policy:1")
    sentences = [line.removeprefix("- ") for line in text.stdout.splitlines() if line.startswith("- ")]
    assert sentences == found["next"]
    assert "rlhf labels export --project p" in sentences[0]
    assert "rlhf run data=files data.labels=NAME" in sentences[1]


def test_an_erasure_makes_no_registry(place, tmp_path):
    for path in sorted((tmp_path / "registry").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (tmp_path / "registry").rmdir()
    assert document(tmp_path, "erase", NAME)["datasets"] == []
    assert not (tmp_path / "registry").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("export", "--format", "xml"), "--format xml is not known; use one of trl, kto, events"),
        (("export",), "there are no labels in"),
        (("export", "--name", "A"), "there are no labels in"),
        (("erase", "someone"), "there are no labels in"),
    ],
)
def test_wrong_words(tmp_path, args, message):
    result = invoke(tmp_path, *args)
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_the_formats_of_the_command_are_those_of_the_export():
    assert tuple(format.value for format in ExportFormat) == EXPORT_FORMATS


def test_help_loads_no_database():
    code = "import sys, rlhf.cli; sys.exit(any(m in sys.modules for m in ('sqlalchemy', 'torch', 'datasets')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("typed", "words", "is_erased"), [(b"n\n", (), False), (b"y\n", (), True), (b"", ("--yes",), True)]
)
def test_at_a_terminal_an_erasure_is_asked_about(
    place, tmp_path, typed: bytes, words: tuple[str, ...], is_erased: bool
):
    ours, theirs = pty.openpty()
    os.write(ours, typed)
    command = [sys.executable, "-m", "rlhf", "labels", "erase", NAME, "--project", "p", *words]
    done = subprocess.run([*command, "--registry", str(tmp_path / "registry")], stdin=theirs, capture_output=True)
    os.close(ours)
    os.close(theirs)
    assert (done.returncode == 0) == is_erased, done.stderr
    assert (b"for good?" in done.stderr) == (not words)
    assert (NAME.encode() in (tmp_path / "labels.sqlite").read_bytes()) == (not is_erased)
