import json
import shutil
from pathlib import Path

import pytest
from labels_and_registry import NAME, ROWS, Place, place_in

from rlhf.labelling.datasets import DATASET, RegisteredExport, register_export, training_dataset
from rlhf.labels.exporting.csv_file import read_csv
from rlhf.labels.exporting.export import ExportRequest
from rlhf.labels.exporting.export_rows import ExportFormat
from sft.core.durable import broken_files, file_digest, folder_digest
from sft.core.errors import DataError, StorageError, UsageError


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return place_in(tmp_path)


def export(place: Place, format: ExportFormat = ExportFormat.CSV, **given: object) -> RegisteredExport:
    """Export; what ExportRequest does not know goes to `register_export`."""
    options = {name: given.pop(name) for name in ("name", "output") if name in given}
    return register_export(place.store, place.registry, ExportRequest("p", format, **given), **options)


@pytest.mark.parametrize("format", list(ExportFormat))
def test_an_export_is_a_dataset_version(place, format):
    made = export(place, format)
    dataset = place.registry.get("labels-p")
    assert (made.dataset, made.is_new, dataset.ref, dataset.kind) == (dataset, True, "labels-p:1", DATASET)
    assert broken_files(dataset.path) == []
    assert dataset.fingerprint == dataset.sha256 == made.exported.digest == file_digest(dataset.path / "MANIFEST.json")
    assert dataset.metadata["event_ids"] == [[1, 5]]
    assert dataset.metadata["metrics"] == made.exported.counts
    assert made.exported.counts["labels"] == 5
    assert (dataset.metadata["project"], dataset.metadata["format"]) == ("p", format.value)
    facts = json.loads((dataset.path / "export.json").read_text())
    assert (facts["event_ids"], facts["counts"]) == ([[1, 5]], made.exported.counts)
    assert "label event" in (dataset.path / str(dataset.metadata["datasheet"])).read_text()
    with place.store.reading("p") as labels:
        assert labels.export(made.exported.digest).event_ids == [(1, 5)]
    assert not any((place.registry.root / ".work").iterdir())
    assert NAME not in json.dumps(dataset.as_dict())


def test_the_same_labels_are_the_same_version(place):
    first, again = export(place), export(place)
    assert (again.dataset.ref, again.is_new) == ("labels-p:1", False)
    assert export(place, name="other").dataset == first.dataset
    assert export(place, ExportFormat.TRL, name="other").dataset.ref == "other:1"
    assert export(place, ExportFormat.KTO).dataset.ref == "labels-p:2"


def test_an_edit_makes_a_new_version_and_the_old_one_stays_and_is_rebuilt(place):
    old = export(place)
    before = {path.name: path.read_bytes() for path in old.dataset.path.iterdir()}
    place.add({**ROWS[3], "label": "a"})
    new = export(place)
    assert (new.dataset.ref, new.is_new, new.exported.event_ids) == ("labels-p:2", True, [(1, 3), (5, 6)])
    assert [j.choice for j in read_csv(new.dataset.path / "labels.csv")] != [
        j.choice for j in read_csv(old.dataset.path / "labels.csv")
    ]
    assert broken_files(old.dataset.path) == []
    assert {path.name: path.read_bytes() for path in old.dataset.path.iterdir()} == before
    rebuilt = export(place, rebuild=old.exported.digest[:12], output=place.folder / "copy")
    assert (rebuilt.dataset.ref, rebuilt.is_new) == ("labels-p:1", False)
    assert {path.name: path.read_bytes() for path in (place.folder / "copy").iterdir()} == before


def test_a_copy_is_the_version_byte_by_byte(place, tmp_path):
    made = export(place, output=tmp_path / "far/out")
    assert folder_digest(tmp_path / "far/out") == folder_digest(made.dataset.path)
    assert file_digest(tmp_path / "far/out/MANIFEST.json") == made.dataset.sha256
    assert export(place, output=tmp_path / "far/out").copy == tmp_path / "far/out"  # it is there: nothing to do
    assert [path.name for path in (tmp_path / "far").iterdir()] == ["out"]
    (tmp_path / "empty").mkdir()
    export(place, output=tmp_path / "empty")
    assert broken_files(tmp_path / "empty") == []


def test_a_folder_with_something_in_it_is_left_alone(place, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/mine").touch()
    with pytest.raises(UsageError, match="is not empty; give --output a folder that does not exist yet"):
        export(place, output=tmp_path / "mine")
    assert place.registry.artifacts() == []
    export(place, ExportFormat.KTO, output=tmp_path / "kto")
    with pytest.raises(UsageError, match=r"labels-p:2 is registered, but .*kto holds something else; give --output"):
        export(place, output=tmp_path / "kto")
    assert (tmp_path / "kto/train.jsonl").is_file()


def test_a_damaged_version_is_not_copied(place, tmp_path):
    (export(place).dataset.path / "labels.csv").write_text("prompt\n")
    with pytest.raises(DataError, match=r"labels-p:1 is damaged: .* is not what was registered; restore it"):
        export(place, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    shutil.rmtree(place.registry.get("labels-p").path)
    with pytest.raises(StorageError, match=r"labels-p:1 is registered, but .* is gone"):
        export(place)


def test_names_follow_the_rules_of_the_registry(place):
    long = "p" * 60
    place.add(ROWS[0], project=long)
    request = ExportRequest(long, ExportFormat.CSV)
    with pytest.raises(UsageError, match=r"is not allowed: use 1 to 64 of .*; name the dataset with --name"):
        register_export(place.store, place.registry, request)
    assert register_export(place.store, place.registry, request, name="short").dataset.ref == "short:1"


def test_nothing_to_export_registers_nothing(place):
    place.add({**ROWS[4], "annotator": "Di"}, project="q")
    with pytest.raises(DataError, match="project 'q' has nothing to export as trl; label or import first"):
        register_export(place.store, place.registry, ExportRequest("q", ExportFormat.TRL))
    assert place.registry.artifacts() == []
    assert not any((place.registry.root / ".work").iterdir())


def test_labels_that_can_be_trained_on(place):
    made = export(place)
    assert training_dataset(place.registry, "labels-p") == made.dataset
    trl = export(place, ExportFormat.TRL).dataset
    place.registry.set_alias(trl, "mine")
    for ref in ("labels-p:2", "labels-p@mine"):
        with pytest.raises(UsageError, match="labels-p:2 was exported as trl"):
            training_dataset(place.registry, ref)
    with pytest.raises(UsageError) as caught:
        training_dataset(place.registry, "labels-p:2")
    assert str(caught.value).startswith(f"{trl.ref} was exported as trl, whose rows are not single labels")
    assert "there is labels-p:1; or make a version" in str(caught.value)
    assert "rlhf labels export --project p --format csv" in str(caught.value)
    with pytest.raises(UsageError, match="sft:1 is no export of labels but of kind 'sft'; see `rlhf models list`"):
        training_dataset(place.registry, place.make("sft").ref)
    with pytest.raises(UsageError, match="labels-p has no version 9"):
        training_dataset(place.registry, "labels-p:9")


def test_a_name_is_its_newest_version_that_can_train(place):
    export(place, ExportFormat.TRL)
    said: list[str] = []
    with pytest.raises(UsageError, match=r"labels-p:1 was exported as trl, .* make a version of those"):
        training_dataset(place.registry, "labels-p", announce=said.append)
    export(place)
    assert training_dataset(place.registry, "labels-p", announce=said.append).ref == "labels-p:2"
    assert said == []
    place.add({**ROWS[3], "label": "a"})
    assert export(place).dataset.ref == "labels-p:3"
    shutil.rmtree(export(place, ExportFormat.KTO).dataset.path)
    export(place, ExportFormat.EVENTS)
    assert training_dataset(place.registry, "labels-p", announce=said.append).ref == "labels-p:3"
    newer = "labels-p:4 (kto), labels-p:5 (events)"
    assert said == [f"data.labels=labels-p: takes labels-p:3, the newest version of format csv; passed over: {newer}"]


@pytest.mark.parametrize("name", ["labels.csv", "MANIFEST.json", "export.json"])
def test_damaged_labels_are_not_trained_on(place, name):
    path = export(place).dataset.path / name
    path.write_bytes(path.read_bytes().replace(b"p1", b"p9", 1).replace(b"p ", b"q ", 1) + b" ")
    with pytest.raises(StorageError, match=rf"labels-p:1 is damaged: .*{name}.*Restore it from a copy, or give this"):
        training_dataset(place.registry, "labels-p:1")
