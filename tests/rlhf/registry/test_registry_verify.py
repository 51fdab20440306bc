"""`rlhf models verify`: one flipped bit in any file is found, and the file is named."""

import errno
import json
import random
import shutil
import sqlite3
from pathlib import Path

import pytest
from registries import add
from typer.testing import CliRunner, Result

from rlhf.registry import Registry
from rlhf.registry.commands import app
from sft.core.errors import StorageError

FLIPS = 40


@pytest.fixture
def registry(memory_path: Path) -> Registry:
    registry = Registry(memory_path / "registry")
    base = add(registry, "base", "b")
    add(registry, "sft", "s", parents=[("init", base)], stage={"metrics": {"loss": 1.5}, "passed": True})
    return registry


def invoke(registry: Registry, *args: str) -> Result:
    return CliRunner().invoke(app, [*args, "--registry", str(registry.root)])


def files(registry: Registry) -> list[Path]:
    return sorted(path for name in ("base", "sft") for path in (registry.root / name).rglob("*") if path.is_file())


def test_an_intact_registry(registry):
    found = invoke(registry, "verify")
    assert (found.exit_code, found.stdout) == (0, "")
    assert "2 versions verified, 0 problems" in found.stderr
    assert json.loads(invoke(registry, "verify", "sft", "--json").stdout) == {
        "ok": True,
        "verified": ["sft:1"],
        "problems": [],
    }


def test_one_flipped_bit_in_any_file_is_found_and_the_file_is_named(registry):
    """Also in a manifest, whose digest is in the database."""
    chance = random.Random(0)
    artifacts = registry.artifacts()
    assert [path.name for path in files(registry)].count("MANIFEST.json") == 2
    for path in files(registry):
        content = path.read_bytes()
        for _ in range(FLIPS):
            bit = chance.randrange(8 * len(content))
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            problems = registry.verify(artifacts)
            assert problems, f"bit {bit} of {path}"
            assert [problem.partition(": ")[0] for problem in problems] == [str(path)]
        path.write_bytes(content)
    assert registry.verify(artifacts) == []


def test_each_missing_and_each_new_file_is_named(registry):
    for path in files(registry):
        kept = path.read_bytes()
        path.unlink()
        assert any(line == f"{path}: missing" for line in registry.verify(registry.artifacts()))
        path.write_bytes(kept)
    new = registry.root / "sft" / "1" / "weights" / "evil.bin"
    new.touch()
    assert registry.verify(registry.artifacts()) == [f"{new}: not in the manifest"]


def test_a_missing_folder_is_named(registry):
    shutil.rmtree(registry.root / "sft" / "1")
    found = invoke(registry, "verify")
    assert found.exit_code == 1
    assert found.stdout == f"{registry.root / 'sft' / '1' / 'MANIFEST.json'}: missing\n"
    assert "2 versions verified, 1 problem\nrestore what is named from a copy, or" in found.stderr


def test_a_manifest_made_anew_for_changed_files_is_found(registry):
    from sft.core.durable import seal

    path = registry.root / "base" / "1"
    (path / "weights" / "model.safetensors").write_text("other weights")
    seal(path)
    found = invoke(registry, "verify", "--json")
    assert found.exit_code == 1
    document = json.loads(found.stdout)
    assert document["problems"] == [f"{path / 'MANIFEST.json'}: not the one that was registered"]
    assert invoke(registry, "verify", "sft").exit_code == 0


def test_a_digest_changed_in_a_manifest_accuses_no_file(registry):
    """Any flip of a bit, also one that leaves readable JSON or none, names the manifest alone, and once."""
    manifest = registry.root / "sft" / "1" / "MANIFEST.json"
    content = manifest.read_text()
    digest = json.loads(content)["files"]["stage.json"]["sha256"]
    for changed in (content.replace(digest, "0" * 64), content.replace("{", "(", 1), content.replace("stage", "other")):
        assert changed != content
        manifest.write_text(changed)
        assert registry.verify(registry.artifacts()) == [f"{manifest}: not the one that was registered"]


def test_a_file_that_cannot_be_read_is_named(registry, monkeypatch):
    def refuse(path: Path) -> str:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("rlhf.registry.damage.file_digest", refuse)
    with pytest.raises(StorageError, match=rf"cannot read {registry.root}/sft/1: Input/output error"):
        registry.verify([registry.get("sft")])


def test_one_is_not_many(registry):
    assert "1 version verified, 0 problems" in invoke(registry, "verify", "sft").stderr


def test_a_database_whose_pages_are_broken_is_named(registry):
    connection = sqlite3.connect(registry.root / "registry.db")
    connection.execute("PRAGMA writable_schema=ON")
    connection.execute("UPDATE sqlite_master SET rootpage = 2 WHERE name = 'ix_parents_parent_id'")
    connection.commit()
    connection.close()
    problems = registry.verify([])
    assert problems
    assert all(problem.startswith(f"{registry.root / 'registry.db'}: ") for problem in problems)
