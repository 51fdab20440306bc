"""`rlhf models discard`: a damaged version is given up, and can be made again; nothing else ever goes."""

import json
import shutil
from pathlib import Path

import pytest
from registries import Open, add, assert_whole, leftovers
from typer.testing import CliRunner, Result

from rlhf.registry import Artifact, Registry, Tag
from rlhf.registry.commands import app
from sft.core.errors import StorageError, UsageError


@pytest.fixture
def registry(memory_path: Path) -> Registry:
    return Registry(memory_path / "registry")


def invoke(registry: Registry, *args: str) -> Result:
    return CliRunner().invoke(app, [*args, "--registry", str(registry.root)])


def flip(artifact: Artifact) -> Path:
    path = artifact.path / "weights" / "model.safetensors"
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]))
    return path


def test_what_is_damaged_goes_and_is_made_again_as_the_next_version(open_registry: Open) -> None:
    registry = open_registry()
    sft = registry.set_alias(add(registry, "sft", "f"), "good")
    add(registry, "policy", "p", parents=[("sft", sft)])
    path = flip(sft)
    found = registry.discard("sft@good", remove=True)
    assert found.as_dict() == {
        "ref": "sft:1",
        "problems": [f"{path}: changed since it was registered"],
        "aliases": ["good"],
        "removed": True,
    }
    assert (registry.find("f"), (registry.root / "sft").exists(), leftovers(registry)) == (None, False, [])
    with pytest.raises(UsageError, match="sft has no alias 'good'"):
        registry.get("sft@good")
    assert registry.lineage("policy").removed == ("sft:1",)
    assert add(registry, "sft", "f").ref == "sft:2"
    assert_whole(registry)
    with pytest.raises(UsageError, match=r"sft:1 was removed at 20"):
        registry.discard("sft:1", remove=True)


def test_what_is_intact_is_refused(registry):
    made = registry.tag(add(registry, "sft", "f"), [Tag("paper")])
    with pytest.raises(UsageError, match=r"sft:1 is intact: nothing was removed; `rlhf models gc`"):
        registry.discard("sft", remove=True)
    assert registry.get("sft") == made


@pytest.mark.parametrize("break_it", [flip, lambda made: shutil.rmtree(made.path)], ids=["a bit", "the whole folder"])
def test_the_error_of_a_damaged_version_names_the_command_that_frees_it(registry, break_it):
    made = add(registry, "sft", "f")
    registry.check(made)
    break_it(made)
    with pytest.raises(
        StorageError, match=r"sft:1 is damaged: .*`rlhf models discard sft:1 --registry .*/registry --yes`"
    ):
        registry.check(made)
    listed = invoke(registry, "discard", "sft")
    assert listed.exit_code == 0
    assert "nothing was removed; with --yes: sft:1" in listed.stdout
    assert registry.get("sft:1") == made
    document = json.loads(invoke(registry, "discard", "sft", "--yes", "--json").stdout)
    assert (document["ref"], document["removed"], len(document["problems"])) == ("sft:1", True, 1)
    assert registry.find("f") is None


def test_a_folder_that_is_gone_is_told_with_the_same_way_on(registry):
    shutil.rmtree(add(registry, "sft", "f").path)
    with pytest.raises(
        StorageError, match=r"sft:1 is registered, but .* is gone .*models discard sft:1 .*makes it again"
    ):
        registry.find("f")


def test_while_a_run_is_at_work_nothing_goes(registry):
    made = add(registry, "sft", "f")
    flip(made)
    with (
        registry.in_use(),
        pytest.raises(UsageError, match="is at work and may use sft:1; try again when it has ended"),
    ):
        registry.discard("sft", remove=True)
    assert made.path.is_dir()
    assert registry.get("sft") == made


def test_an_error_before_the_commit_is_ended_by_the_same_command(registry, monkeypatch):
    made = registry.set_alias(add(registry, "sft", "f"), "good")
    flip(made)

    def move_then_fail(root: Path, path: Path) -> Path:
        shutil.rmtree(path)
        raise StorageError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("rlhf.registry.discard.move_to_trash", move_then_fail)
        with pytest.raises(StorageError, match="full"):
            registry.discard("sft", remove=True)
    assert registry.get("sft@good").removed_at is None
    assert registry.discard("sft", remove=True).problems == [f"{made.path / 'MANIFEST.json'}: missing"]
    assert_whole(registry)
