from dataclasses import replace
from pathlib import Path

import pytest
from labels_and_registry import Place
from published import ATTACK, FILE_PEOPLE, Published, publish, register

from rlhf.publishing.facts import reports_about
from rlhf.publishing.label_sources import LabelSource, by_person, label_rows, label_sources, told
from rlhf.publishing.used_by import used_by
from rlhf.registry import Artifact, Registry
from sft.core.durable import MANIFEST, seal
from sft.core.errors import DataError, StorageError


def sources(registry: Registry, ref: str) -> dict[str, LabelSource]:
    return {source.ref: source for source in label_sources(registry, registry.lineage(ref))}


def test_labels_of_a_database(published: Published):
    found = sources(published.place.registry, "policy")["labels-p:1"]
    assert found.people is not None
    assert sorted(found.people) == published.dataset.metadata["annotators"]
    assert sorted(found.people.values()) == [1, 2, 3], "Wilhelmina, Cy and Bo"
    assert next(iter(found.people.values())) == 3, "most first"
    assert (found.labels, found.unknown) == (6, 0)
    assert found.licences == {"unknown": 5, "cc-by-4.0": 1}
    assert found.sources == {"unknown": 5, ATTACK: 1}
    assert found.guidelines == {"none": 6}
    assert found.events == [(1, 6)]


def test_labels_of_a_file_name_nobody(published: Published):
    found = sources(published.place.registry, "policy")["labels:1"]
    assert found == LabelSource(
        "labels:1", "labels", 4, {"person 1": 2, "person 2": 1}, 1, None, None, None, [f"{n}" * 64 for n in range(4)]
    )
    assert by_person([name for name in FILE_PEOPLE if name]) == {"Ottokar": "person 1", "Leopoldine": "person 2"}
    assert by_person(["b", "a"]) == {"a": "person 1", "b": "person 2"}, "of equal counts by name"


def test_the_version_itself_is_among_them_and_what_it_led_to_is_not(published: Published):
    assert list(sources(published.place.registry, "labels-p")) == ["labels-p:1"]
    assert sources(published.place.registry, "sft") == {}


def test_events_are_told_if_asked_for(published: Published):
    found = sources(published.place.registry, "policy")["labels-p:1"]
    assert "events" not in found.as_dict(events=False)
    assert found.as_dict(events=True)["events"] == [(1, 6)]


def older(place: Place, dataset: Artifact) -> Artifact:
    """Register an export again as a program did that recorded no origins."""
    metadata = {name: value for name, value in dataset.metadata.items() if name != "origins"}
    with place.registry.workspace("older") as folder:
        for path in dataset.path.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        return place.registry.register(
            folder, name="older", kind="dataset", fingerprint="older", metadata=metadata, parents=[]
        )


def test_what_was_not_recorded(tmp_path: Path, sft_folder: Path, reward_folder: Path):
    own = publish(tmp_path, sft_folder, reward_folder)
    found = sources(own.place.registry, older(own.place, own.dataset).ref)["older:1"]
    assert found.people == dict.fromkeys(own.dataset.metadata["annotators"])
    assert (found.labels, found.unknown, found.licences) == (6, None, None)
    register(own.place, "labels", {}, metrics={"judgements": 9}, parents=[])
    assert sources(own.place.registry, "labels:2")["labels:2"][2:4] == (9, None), "a version without rows"


@pytest.mark.parametrize("resealed", [False, True])
def test_damaged_labels_name_nobody(tmp_path: Path, sft_folder: Path, reward_folder: Path, resealed: bool):
    own = publish(tmp_path, sft_folder, reward_folder)
    rows = own.labels.path / "labels.jsonl"
    rows.write_bytes(rows.read_bytes().replace(b"Ottokar", b"Ottokas"))
    file = rows
    if resealed:
        seal(own.labels.path)
        file = own.labels.path / MANIFEST
    for asked in (lambda: sources(own.place.registry, "policy"), lambda: used_by(own.place.registry, None, "Ottokas")):
        with pytest.raises(StorageError, match=rf"{file}: .*; `rlhf models verify` names every damaged file") as caught:
            asked()
        assert caught.value.exit_code == 74


def test_a_damaged_export_names_nobody(tmp_path: Path, sft_folder: Path, reward_folder: Path):
    own = publish(tmp_path, sft_folder, reward_folder)
    facts = own.dataset.path / "export.json"
    facts.write_text(facts.read_text().replace('"labels": 6', '"labels": 7'))
    with pytest.raises(StorageError, match=f"{facts}: changed since it was registered"):
        sources(own.place.registry, "policy")


def test_a_damaged_report_tells_no_number(tmp_path: Path, sft_folder: Path, reward_folder: Path):
    own = publish(tmp_path, sft_folder, reward_folder)
    stage = own.evaluation.path / "stage.json"
    stage.write_text(stage.read_text().replace("0.7539", "0.9539"))
    for damage in (lambda: None, stage.unlink):
        damage()
        with pytest.raises(StorageError, match=f"{stage}: not the one that was registered"):
            reports_about(own.place.registry, own.policy)
    (own.evaluation.path / MANIFEST).unlink()
    with pytest.raises(StorageError, match=r"MANIFEST.json: not the one that was registered"):
        reports_about(own.place.registry, own.policy)


def test_registered_rows_that_are_no_labels(published: Published, tmp_path: Path):
    (tmp_path / "labels.jsonl").write_text("{")
    with pytest.raises(DataError, match=r"labels.jsonl cannot be read .*see `rlhf models verify labels:1`"):
        list(label_rows(replace(published.labels, path=tmp_path)))


def test_removed_versions_keep_their_counts(tmp_path: Path, sft_folder: Path, reward_folder: Path):
    own = publish(tmp_path, sft_folder, reward_folder)
    register(own.place, "labels", {}, metrics={"judgements": 9}, parents=[])
    register(own.place, "labels", {"x.json": 1}, metrics={"judgements": 8}, parents=[])
    assert "labels:2" in {useless.what for useless in own.place.registry.sweep(remove=True).found}
    assert sources(own.place.registry, "labels:2")["labels:2"][2:4] == (9, None)


def test_told():
    assert told(None) == "not recorded"
    assert told({}) == "none"
    assert told({"a": 2, "b\u202e": None}) == "a (2), b⟨U+202E⟩"
    assert told({"a": 2}, str.upper) == "A (2)"
