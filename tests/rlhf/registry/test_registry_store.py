import os
import sqlite3
from pathlib import Path

import pytest

from rlhf.registry import Artifact, Parent, Registry
from sft.core.durable import MANIFEST, broken_files, file_digest
from sft.core.errors import DataError, StorageError, UsageError


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def add(registry: Registry, name: str, fingerprint: str, *, kind="sft", metadata=None, parents=()) -> Artifact:
    with registry.workspace(fingerprint) as folder:
        (folder / "weights").mkdir()
        (folder / "weights" / "model.safetensors").write_text(fingerprint)
        return registry.register(
            folder, name=name, kind=kind, fingerprint=fingerprint, metadata=metadata or {}, parents=parents
        )


def files_of(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_versions_are_dense_per_name(registry):
    made = [add(registry, name, f"f{i}") for i, name in enumerate(["sft", "sft", "policy", "sft"])]
    assert [artifact.ref for artifact in made] == ["sft:1", "sft:2", "policy:1", "sft:3"]
    assert [artifact.ref for artifact in registry.artifacts()] == ["policy:1", "sft:1", "sft:2", "sft:3"]
    assert [artifact.ref for artifact in registry.artifacts("sft")] == ["sft:1", "sft:2", "sft:3"]


def test_an_artifact_comes_back_as_it_was_registered(registry):
    parents = [("init", add(registry, "base", "b", kind="base")), ("data", add(registry, "labels", "l"))]
    metadata = {"metrics": {"loss": 0.1}, "shape": (1, 2), "über": None}
    made = add(registry, "sft", "f", metadata=metadata, parents=parents)
    assert registry.find("f") == registry.get("sft:1") == made
    assert made.parents == (Parent("init", "base:1"), Parent("data", "labels:1"))
    assert made.metadata == {"metrics": {"loss": 0.1}, "shape": [1, 2], "über": None}
    assert made.path == registry.root / "sft" / "1"
    assert made.sha256 == file_digest(made.path / MANIFEST)
    assert made.created_at.endswith("+00:00")
    assert broken_files(made.path) == []


def test_parents_and_aliases_stay_with_their_artifact_in_a_list(registry):
    base, other = add(registry, "base", "b"), add(registry, "base", "c")
    add(registry, "sft", "s", parents=[("init", base)])
    add(registry, "sft", "t", parents=[("init", other), ("data", base)])
    registry.set_alias(base, "old")
    listed = registry.artifacts()
    assert [artifact.aliases for artifact in listed] == [("old",), (), (), ()]
    assert [[parent.ref for parent in artifact.parents] for artifact in listed] == [
        [],
        [],
        ["base:1"],
        ["base:2", "base:1"],
    ]
    assert [registry.get(artifact.ref) for artifact in listed] == listed


def test_only_database_artifacts_and_an_empty_work_folder_remain(registry):
    add(registry, "sft", "f")
    registry.set_alias(registry.get("sft"), "candidate")
    assert files_of(registry.root) == {"registry.db", "sft/1/MANIFEST.json", "sft/1/weights/model.safetensors"}
    assert list((registry.root / ".work").iterdir()) == []


def test_the_same_fingerprint_gives_the_same_artifact(registry, tmp_path):
    first = add(registry, "sft", "f")
    folder = tmp_path / "again"
    folder.mkdir()
    (folder / "other.txt").write_text("different bytes, same fingerprint")
    again = registry.register(folder, name="sft", kind="sft", fingerprint="f", metadata={}, parents=[])
    assert again == first
    assert not folder.exists()
    assert len(registry.artifacts()) == 1
    assert broken_files(first.path) == []


def test_find_of_an_unknown_fingerprint_is_none(registry):
    assert registry.find("nothing") is None


def test_find_refuses_an_artifact_whose_folder_was_deleted(registry):
    made = add(registry, "sft", "f")
    (made.path / MANIFEST).unlink()
    with pytest.raises(StorageError, match=r"sft:1 is registered, but .*sft/1 is gone"):
        registry.find("f")


def test_references(registry):
    one, two = add(registry, "policy", "a"), add(registry, "policy", "b")
    one = registry.set_alias(one, "champion")
    assert registry.get("policy") == registry.get("policy@latest") == registry.get("policy:2") == two
    assert registry.get("policy@champion") == registry.get("policy:1") == one


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("polcy", "nothing is registered as 'polcy'; did you mean policy? the registry holds policy, sft"),
        ("xyz:1", "nothing is registered as 'xyz'; the registry holds policy, sft"),
        ("policy:3", "policy has no version 3; it has 1 to 2"),
        ("policy@best", "policy has no alias 'best'; it has: champion (version 1), latest (version 2)"),
        ("policy@", "'policy@' is not a reference"),
    ],
)
def test_an_unknown_reference_is_answered_with_what_exists(registry, ref, message):
    one = add(registry, "policy", "a")
    add(registry, "policy", "b")
    add(registry, "sft", "c")
    registry.set_alias(one, "champion")
    for ask in (registry.get, registry.lineage):
        with pytest.raises(UsageError) as caught:
            ask(ref)
        assert message in str(caught.value)


def test_an_unknown_name_in_an_empty_registry(registry):
    with pytest.raises(UsageError, match="the registry is empty"):
        registry.artifacts("policy")
    assert registry.artifacts() == []


def test_an_alias_moves_and_is_dropped_only_where_it_points(registry):
    one, two = add(registry, "policy", "a"), add(registry, "policy", "b")
    other = registry.set_alias(add(registry, "sft", "c"), "champion")
    assert registry.set_alias(one, "champion").aliases == ("champion",)
    assert registry.set_alias(one, "best").aliases == ("best", "champion")
    assert registry.set_alias(two, "champion").aliases == ("champion",)
    assert registry.get("policy:1").aliases == ("best",)
    assert registry.drop_alias(one, "champion").aliases == ("best",)
    assert registry.get("policy@champion").version == 2
    assert registry.drop_alias(two, "champion").aliases == ()
    assert registry.get("sft@champion") == other
    with pytest.raises(UsageError, match="no alias 'champion'"):
        registry.get("policy@champion")


@pytest.mark.parametrize(
    ("alias", "message"), [("latest", "always means"), ("A b", "not allowed"), ("", "not allowed")]
)
def test_reserved_and_odd_aliases_are_refused(registry, alias, message):
    made = add(registry, "sft", "a")
    for change in (registry.set_alias, registry.drop_alias):
        with pytest.raises(UsageError, match=message):
            change(made, alias)


def test_an_alias_of_an_artifact_of_another_registry_is_refused(registry, tmp_path):
    stranger = add(Registry(tmp_path / "other"), "sft", "a")
    with pytest.raises(UsageError, match="sft:1 is not in the registry"):
        registry.set_alias(stranger, "champion")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "../../evil"}, "name '../../evil' is not allowed"),
        ({"name": "registry.db"}, "name 'registry.db' is not allowed"),
        ({"kind": "A kind"}, "kind 'A kind' is not allowed"),
        ({"fingerprint": "../x"}, "fingerprint '../x' is not allowed"),
    ],
)
def test_traversal_and_odd_names_are_refused_before_anything_is_written(registry, tmp_path, change, message):
    folder = tmp_path / "made"
    folder.mkdir()
    given = {"name": "sft", "kind": "sft", "fingerprint": "f", "metadata": {}, "parents": []}
    with pytest.raises(UsageError) as caught:
        registry.register(folder, **{**given, **change})
    assert message in str(caught.value)
    assert list(folder.iterdir()) == []
    assert files_of(tmp_path) == {"registry/registry.db"}


def test_a_fingerprint_cannot_lead_a_workspace_out_of_the_registry(registry, tmp_path):
    with pytest.raises(UsageError, match="not allowed"), registry.workspace("../../evil"):
        pass
    assert not (tmp_path / "evil").exists()


def test_a_missing_folder_and_one_that_is_registered_already_are_refused(registry):
    made = add(registry, "sft", "f")
    given = {"name": "sft", "kind": "sft", "fingerprint": "f", "metadata": {}, "parents": []}
    with pytest.raises(UsageError, match="is not a folder"):
        registry.register(registry.root / ".work" / "nothing", **given)
    for folder in (made.path, made.path.parent, registry.root, registry.root / ".work"):
        with pytest.raises(UsageError, match="lies in the registry already"):
            registry.register(folder, **given)
    assert broken_files(made.path) == []


@pytest.mark.parametrize("metadata", [{"loss": float("nan")}, {"x": object()}])
def test_metadata_that_is_not_json_is_refused(registry, metadata):
    with pytest.raises(DataError, match="metadata of sft cannot be stored"):
        add(registry, "sft", "f", metadata=metadata)
    assert registry.artifacts() == []


def test_a_parent_of_another_registry_is_refused_and_nothing_is_listed(registry, tmp_path):
    stranger = add(Registry(tmp_path / "other"), "base", "b")
    add(registry, "base", "same-name-other-content")
    with pytest.raises(UsageError, match="base:1 is not in the registry"):
        add(registry, "sft", "f", parents=[("init", stranger)])
    assert [artifact.ref for artifact in registry.artifacts()] == ["base:1"]
    assert not (registry.root / "sft").exists()


def test_an_error_between_rename_and_commit_lists_nothing_and_is_repaired_by_the_next(registry, monkeypatch):
    add(registry, "sft", "a")

    def publish_then_fail(root: Path, folder: Path, target: Path) -> None:
        os.rename(folder, target)
        raise StorageError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("rlhf.registry.workspace.place", publish_then_fail)
        with pytest.raises(StorageError, match="the disk is full"):
            add(registry, "sft", "b")
    assert (registry.root / "sft" / "2").is_dir()
    assert [artifact.ref for artifact in registry.artifacts()] == ["sft:1"]
    assert registry.find("b") is None

    made = add(registry, "sft", "c")
    assert made.ref == "sft:2"
    assert (made.path / "weights" / "model.safetensors").read_text() == "c"
    assert broken_files(made.path) == []


def test_lineage_reaches_up_and_down(registry):
    base = add(registry, "base", "b", kind="base")
    sft = add(registry, "sft", "s", parents=[("init", base)])
    reward = add(registry, "reward", "r", kind="reward", parents=[("init", sft)])
    policy = add(registry, "policy", "p", kind="policy", parents=[("init", sft), ("reward", reward)])
    registry.set_alias(policy, "champion")
    assert set(registry.lineage("policy@champion").ancestors) == {
        ("policy:1", "init", "sft:1"),
        ("policy:1", "reward", "reward:1"),
        ("reward:1", "init", "sft:1"),
        ("sft:1", "init", "base:1"),
    }
    assert registry.lineage("base").descendants == (
        ("sft:1", "init", "base:1"),
        ("reward:1", "init", "sft:1"),
        ("policy:1", "init", "sft:1"),
        ("policy:1", "reward", "reward:1"),
    )
    assert registry.lineage("sft").kinds == {
        "base:1": "base",
        "sft:1": "sft",
        "reward:1": "reward",
        "policy:1": "policy",
    }


def test_a_missing_registry_is_made_or_explained(tmp_path):
    with pytest.raises(UsageError, match=r"no registry in .*nothing.* a run makes one .*--registry DIR"):
        Registry(tmp_path / "nothing", create=False)
    assert not (tmp_path / "nothing").exists()
    Registry(tmp_path / "deep" / "registry")
    assert Registry(tmp_path / "deep" / "registry", create=False).artifacts() == []


def test_a_relative_root_survives_a_change_of_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    registry = Registry(Path("registry"))
    monkeypatch.chdir("/")
    assert add(registry, "sft", "f").path == tmp_path / "registry" / "sft" / "1"


def test_a_draft_left_by_a_killed_creation_does_no_harm(tmp_path):
    work = tmp_path / "registry" / ".work"
    work.mkdir(parents=True)
    for leftover in ("registry.db.draft", "registry.db.draft-journal"):
        (work / leftover).write_text("half")
    add(Registry(tmp_path / "registry"), "sft", "f")
    assert list(work.iterdir()) == []


def test_reading_writes_nothing(registry):
    add(registry, "sft", "f")
    before = {path: path.stat().st_mtime_ns for path in registry.root.rglob("*")}
    reader = Registry(registry.root, create=False)
    reader.artifacts(), reader.get("sft"), reader.lineage("sft"), reader.find("f")
    with reader._database.read() as catalogue, pytest.raises(Exception, match="readonly"):
        catalogue.set_alias(reader.get("sft"), "champion")
    assert {path: path.stat().st_mtime_ns for path in registry.root.rglob("*")} == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_registry_without_write_permission_can_be_read_but_not_written(registry):
    add(registry, "sft", "f")
    (registry.root / "registry.db").chmod(0o444)
    registry.root.chmod(0o555)
    try:
        reader = Registry(registry.root, create=False)
        assert reader.get("sft").version == 1
        with pytest.raises(StorageError, match="make the registry writable"):
            reader.set_alias(reader.get("sft"), "champion")
    finally:
        registry.root.chmod(0o755)


def test_settings_that_keep_commits_through_a_power_loss(registry):
    with registry._database.write() as catalogue:
        connection = catalogue._connection
        settings = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in
                    ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")}  # fmt: skip
    assert settings == {"journal_mode": "delete", "synchronous": 3, "foreign_keys": 1, "busy_timeout": 60_000}


@pytest.mark.parametrize(
    ("damage", "found"),
    [(b"this is no database, but long enough to be read as the first page" * 9, "not a database"), (b"", "no such")],
)
def test_a_damaged_database_is_a_storage_error_with_a_remedy(registry, damage, found):
    add(registry, "sft", "f")
    (registry.root / "registry.db").write_bytes(damage)
    with pytest.raises(StorageError, match=rf"registry\.db: .*{found}.*restore it from a backup"):
        Registry(registry.root)


def test_a_locked_database_is_a_storage_error_with_a_remedy(registry, monkeypatch):
    monkeypatch.setattr("sft.core.database.BUSY_TIMEOUT_S", 0.05)
    made = add(registry, "sft", "f")
    other = sqlite3.connect(registry.root / "registry.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(StorageError, match="locked; another process"):
            registry.set_alias(made, "champion")
        assert registry.get("sft").aliases == ()  # readers are not held up
    finally:
        other.close()


def test_a_registry_of_a_newer_program_is_left_alone(registry):
    with sqlite3.connect(registry.root / "registry.db") as connection:
        connection.execute("UPDATE schema SET version = 3")
    connection.close()
    with pytest.raises(StorageError, match="schema version 3, this program knows 2"):
        Registry(registry.root)


def test_a_root_that_is_a_file_is_a_storage_error(tmp_path):
    (tmp_path / "registry").write_text("")
    with pytest.raises(StorageError, match="cannot use"):
        Registry(tmp_path / "registry")


def test_a_workspace_is_empty_and_goes_away_also_after_an_error(registry):
    leftover = registry.root / ".work" / "f"
    leftover.mkdir()
    (leftover / "half").write_text("of a killed run")

    def fail() -> None:
        with registry.workspace("f") as folder:
            assert folder == leftover
            assert list(folder.iterdir()) == []
            (folder / "new").write_text("")
            raise KeyError("training failed")

    with pytest.raises(KeyError):
        fail()
    assert list((registry.root / ".work").iterdir()) == []
