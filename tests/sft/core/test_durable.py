import json
import os
from pathlib import Path

import pytest

from sft.core import durable
from sft.core.errors import DataError, StorageError


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    (folder / "inner").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(bytes(range(256)))
    (folder / "inner" / "config.json").write_text("{}")
    durable.seal(folder)
    return folder


def test_whole_files(tmp_path: Path):
    path = tmp_path / "new" / "folder" / "file.json"
    durable.write_json(path, {"ü": [1, None]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"ü": [1, None]}
    durable.write_text(path, "second")
    assert path.read_bytes() == b"second"
    assert path.stat().st_mode & 0o777 == 0o644
    durable.write_jsonl(path, [{"a": 1}, {"a": "two\nlines"}])
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"a": 1}, {"a": "two\nlines"}]
    assert os.listdir(path.parent) == ["file.json"]


def test_a_kill_between_write_and_rename_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "file"
    durable.write_text(path, "old")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        durable.write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_content_is_synced_before_the_rename_and_the_folder_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("sync"), fsync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("rename"), replace(a, b))[1])
    durable.write_text(tmp_path / "file", "x")
    assert calls == ["sync", "rename", "sync"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_json_lacks_is_refused_and_the_old_file_stays(tmp_path: Path, value: object):
    path = tmp_path / "file"
    durable.write_json(path, 1)
    with pytest.raises((ValueError, TypeError)):
        durable.write_json(path, {"x": value})
    assert path.read_text() == "1\n"


def test_a_disk_that_refuses_is_a_storage_error_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageError, match=r"cannot write .*file/inner: .*; free space or fix permissions"):
        durable.write_text(tmp_path / "file" / "inner", "x")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device") as error:
        durable.write_text(tmp_path / "other", "x")
    assert error.value.exit_code == 74
    assert os.listdir(tmp_path) == ["file"]


def test_append_line(tmp_path: Path):
    path = tmp_path / "ledger"
    durable.append_line(path, "one")
    durable.append_line(path, "zwei ü")
    assert path.read_text(encoding="utf-8") == "one\nzwei ü\n"


def test_a_short_write_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, content: write(fd, content[:-2]))
    with pytest.raises(StorageError, match="took 3 of 5 bytes"):
        durable.append_line(tmp_path / "ledger", "four")


def test_digests(tmp_path: Path):
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    (tmp_path / "file").write_bytes(b"")
    assert durable.file_digest(tmp_path / "file") == durable.text_digest("") == empty
    assert durable.json_digest({"a": 1, "b": 2}) == durable.json_digest({"b": 2, "a": 1})
    assert durable.json_digest({"a": 1}) != durable.json_digest({"a": "1"})


def test_folder_digest_sees_names_and_contents_but_not_the_manifest(sealed: Path):
    digest = durable.folder_digest(sealed)
    (sealed / durable.MANIFEST).unlink()
    assert durable.folder_digest(sealed) == digest
    (sealed / "weights.bin").rename(sealed / "moved.bin")
    assert durable.folder_digest(sealed) != digest


def test_an_intact_folder_has_no_broken_files(sealed: Path):
    assert durable.broken_files(sealed) == []
    manifest = json.loads((sealed / durable.MANIFEST).read_text())
    assert {name: entry["size"] for name, entry in manifest["files"].items()} == {
        "inner/config.json": 2,
        "weights.bin": 256,
    }


@pytest.mark.parametrize("position", [0, 100, 255])
def test_one_flipped_bit_is_found(sealed: Path, position: int):
    content = bytearray((sealed / "weights.bin").read_bytes())
    content[position] ^= 1
    (sealed / "weights.bin").write_bytes(content)
    assert durable.broken_files(sealed) == [f"{sealed / 'weights.bin'}: changed since it was registered"]


def test_missing_and_extra_files_are_found(sealed: Path):
    (sealed / "inner" / "config.json").unlink()
    (sealed / "inner" / "extra").write_text("")
    assert durable.broken_files(sealed) == [
        f"{sealed / 'inner' / 'config.json'}: missing",
        f"{sealed / 'inner' / 'extra'}: not in the manifest",
    ]


@pytest.mark.parametrize(
    "content", [b"", b'{"files": {"weights.bin"', b"[]", b"{}", b'{"files": []}', b'{"files": {"a": 1}}', b"\xff\xfe"]
)
def test_a_damaged_manifest_is_found(sealed: Path, content: bytes):
    (sealed / durable.MANIFEST).write_bytes(content)
    assert durable.broken_files(sealed) == [f"{sealed / durable.MANIFEST}: damaged"]


def test_a_size_that_was_changed_in_the_manifest_is_found(sealed: Path):
    path = sealed / durable.MANIFEST
    path.write_text(path.read_text().replace('"size": 256', '"size": 257'))
    assert durable.broken_files(sealed) == [f"{sealed / 'weights.bin'}: changed since it was registered"]


def test_a_manifest_says_what_a_folder_is_about(sealed: Path):
    assert durable.read_about(sealed) == {}
    durable.seal(sealed, {"run": "ü", "step": 3})
    assert durable.read_about(sealed) == {"run": "ü", "step": 3}
    assert durable.broken_files(sealed) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"step": 3', '"step": 7'),
        ('"about":', '"abouu":'),
        ('"about_sha256"', '"about_sha257"'),
        ('"files"', '"fileS"'),
    ],
)
def test_a_changed_word_about_a_folder_is_found(sealed: Path, old: str, new: str):
    durable.seal(sealed, {"step": 3})
    path = sealed / durable.MANIFEST
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert durable.broken_files(sealed) == [f"{path}: damaged"]
    with pytest.raises(DataError, match=f"{path}: missing or damaged; remove {sealed} or restore it"):
        durable.read_about(sealed)


def test_nothing_is_known_about_a_folder_without_manifest(tmp_path: Path):
    with pytest.raises(DataError, match="missing or damaged"):
        durable.read_about(tmp_path)


def test_new_folders_are_synced_into_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    synced: list[Path] = []
    monkeypatch.setattr(durable, "sync_folder", synced.append)
    durable.make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    assert synced == [tmp_path, tmp_path / "a"]
    durable.make_folder(tmp_path / "a" / "b")
    assert len(synced) == 2
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        durable.make_folder(tmp_path / "file" / "inner")


def test_a_folder_without_manifest_is_not_complete(tmp_path: Path):
    assert durable.broken_files(tmp_path) == [f"{tmp_path / durable.MANIFEST}: missing"]


def test_the_manifest_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(durable, "write_json", lambda *_: pytest.fail("reached the manifest"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        durable.seal(tmp_path)
    assert not (tmp_path / durable.MANIFEST).exists()


def test_publish_moves_and_replaces_a_leftover(sealed: Path, tmp_path: Path):
    target = tmp_path / "registry" / "policy" / "1"
    target.mkdir(parents=True)
    (target / "leftover").write_text("x")
    durable.publish(sealed, target)
    assert not sealed.exists()
    assert durable.broken_files(target) == []
    assert not (target / "leftover").exists()
