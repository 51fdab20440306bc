import csv
import json
from pathlib import Path

import pytest

from rlhf.labels.export import ExportedDataset, ExportFormat, export_labels, safe_cell
from rlhf.labels.imports import import_file
from rlhf.labels.store import LabelStore
from sft.core.durable import broken_files, file_digest, folder_digest, read_about
from sft.core.errors import DataError, UsageError

ROWS = [
    {"prompt": "p1", "label": "a", "annotator": "Ada", "strength": 2, "model_a": "m"},
    {"prompt": "p1", "label": "b", "annotator": "Bo", "strength": 1, "model_a": "m"},
    {"prompt": "p1", "label": "a", "annotator": "Cy", "strength": 3, "model_a": "m"},
    {"prompt": "p2", "label": "b", "annotator": "Ada"},
    {"prompt": "p3", "label": "both_bad", "annotator": "Ada"},
    {"prompt": "p4", "label": "a", "annotator": "Ada"},
    {"prompt": "p4", "label": "b", "annotator": "Bo"},
    {"prompt": "=1+1", "label": "tie", "annotator": "Bo", "response_a": "@x"},
]


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps({"response_a": "x", "response_b": "y", **row}) + "\n" for row in ROWS))
    made = LabelStore(f"sqlite:///{tmp_path / 'labels.sqlite'}", create=True)
    import_file(made, "p", path, source="here|there", licence="MIT")
    return made


def export(store: LabelStore, folder: Path, format: ExportFormat, **given: object) -> ExportedDataset:
    return export_labels(store, "p", folder, format=format, **given)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def turn(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def test_trl(store, tmp_path):
    made = export(store, tmp_path / "out", ExportFormat.TRL)
    first, second = lines(made.folder / "train.jsonl")
    assert (first["prompt"], first["chosen"], first["rejected"]) == (
        turn("user", "p1"),
        turn("assistant", "x"),
        turn("assistant", "y"),
    )
    assert first["margin"] == (2 - 1 + 3) / 3
    assert (first["votes"], first["agreement"], first["ties"]) == (3, 2 / 3, 0)
    assert (first["chosen_model"], first["rejected_model"]) == ("m", None)
    assert (second["chosen"], second["rejected"]) == (turn("assistant", "y"), turn("assistant", "x"))
    assert "margin" not in second
    assert made.counts == {"rows": 2, "labels": 8, "tasks": 5, "undecided": 3}
    assert made.event_ids == [(1, 8)]


def test_no_margin_where_a_vote_has_no_strength(store, tmp_path):
    path = tmp_path / "more.jsonl"
    path.write_text(json.dumps({"response_a": "x", "response_b": "y", **ROWS[3], "annotator": "Cy", "strength": 1}))
    import_file(store, "p", path)
    second = lines(export(store, tmp_path / "out", ExportFormat.TRL).folder / "train.jsonl")[1]
    assert (second["votes"], "margin" in second) == (2, False)


def test_trl_reads_back_as_the_same_preferences(store, tmp_path):
    made = export(store, tmp_path / "out", ExportFormat.TRL)
    report = import_file(store, "again", made.folder / "train.jsonl")
    assert (report.format.value, report.comparisons, report.quarantined) == ("trl", 2, 0)
    with store.reading("again") as labels:
        found = [(j.prompt[0].content, j.response_a, j.response_b, j.strength) for j in labels.judgements()]
    assert found == [("p1", "x", "y", 4 / 3), ("p2", "y", "x", None)]


def test_kto(store, tmp_path):
    made = export(store, tmp_path / "out", ExportFormat.KTO)
    rows = lines(made.folder / "train.jsonl")
    found = [(r["prompt"][0]["content"], r["completion"][0]["content"], r["label"]) for r in rows]
    assert found == [
        *(("p1", "x", True), ("p1", "y", False)),
        *(("p2", "x", False), ("p2", "y", True)),
        *(("p3", "x", False), ("p3", "y", False)),
    ]
    assert made.counts["undecided"] == 2


def test_events_hold_the_history(store, tmp_path):
    again = tmp_path / "again.jsonl"
    again.write_text(json.dumps({"response_a": "y", "response_b": "x", **ROWS[3]}) + "\n")
    import_file(store, "p", again)
    rows = lines(export(store, tmp_path / "out", ExportFormat.EVENTS).folder / "events.jsonl")
    assert [row["event_id"] for row in rows] == list(range(1, 10))
    assert [(row["response_a"], row["label"]) for row in rows if row["prompt"] == turn("user", "p2")] == [
        ("x", "b"),
        ("y", "b"),
    ]
    assert rows[0]["licence"] == "MIT"


def test_csv_is_safe_and_reads_back(store, tmp_path):
    made = export(store, tmp_path / "out", ExportFormat.CSV)
    path = made.folder / "labels.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["a", "b", "a", "b", "both_bad", "a", "b", "tie"]
    assert (rows[-1]["prompt"], rows[-1]["response_a"]) == ("'=1+1", "'@x")
    report = import_file(store, "again", path)
    assert (report.comparisons, report.quarantined, report.ties) == (8, 0, 2)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n=", " =", "＝"])
def test_no_cell_begins_as_a_formula(start):
    assert safe_cell(f"{start}HYPERLINK(1)") == f"'{start}HYPERLINK(1)"


@pytest.mark.parametrize(("value", "cell"), [(None, ""), ("a=b", "a=b"), (-1.5, "-1.5"), ("", ""), (3, "3")])
def test_other_cells_stay(value, cell):
    assert safe_cell(value) == cell


def test_dataset(store, tmp_path):
    from datasets import load_from_disk

    made = export(store, tmp_path / "out", ExportFormat.DATASET)
    rows = list(load_from_disk(str(made.folder / "dataset")))
    assert [row["chosen"] for row in rows] == [turn("assistant", "x"), turn("assistant", "y")]
    assert [row["margin"] for row in rows] == [4 / 3, None]


@pytest.mark.parametrize("format", list(ExportFormat))
def test_sealed_without_names_and_the_same_bytes_again(store, tmp_path, format):
    made = export(store, tmp_path / "out", format)
    other = export(store, tmp_path / "other/place", format)
    assert broken_files(made.folder) == []
    assert made.digest == other.digest == file_digest(made.folder / "MANIFEST.json")
    assert folder_digest(made.folder) == folder_digest(other.folder)
    about = read_about(made.folder)
    assert (about["format"], about["event_ids"]) == (format.value, [[1, 8]])
    for path in (path for path in made.folder.rglob("*") if path.is_file()):
        assert not any(name.encode() in path.read_bytes() for name in ("Ada", 'Bo"', "Cy", str(tmp_path)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.jsonl", "labels.sqlite", "other", "out"]


def test_an_edit_makes_a_new_version_and_the_old_one_can_be_rebuilt(store, tmp_path):
    old = export(store, tmp_path / "old", ExportFormat.TRL)
    edit = tmp_path / "edit.jsonl"
    edit.write_text(json.dumps({"response_a": "x", "response_b": "y", **ROWS[3], "label": "a"}) + "\n")
    import_file(store, "p", edit)
    new = export(store, tmp_path / "new", ExportFormat.TRL)
    assert new.event_ids == [(1, 3), (5, 9)]
    assert lines(new.folder / "train.jsonl")[1]["chosen"] == turn("assistant", "x")
    rebuilt = export(store, tmp_path / "rebuilt", ExportFormat.CSV, rebuild=old.digest[:12])
    assert rebuilt.digest == old.digest != new.digest
    assert folder_digest(rebuilt.folder) == folder_digest(old.folder)


def test_erased_labels_cannot_be_rebuilt(store, tmp_path):
    old = export(store, tmp_path / "old", ExportFormat.TRL)
    assert store.erase("p", "Cy").exports == [old.digest]
    with pytest.raises(DataError, match="1 of 8 labels of this export have been erased; export again without"):
        export(store, tmp_path / "new", ExportFormat.TRL, rebuild=old.digest)
    assert not (tmp_path / "new").exists()


def test_the_datasheet_counts_and_takes_no_markup_from_others(store, tmp_path):
    text = (export(store, tmp_path / "out", ExportFormat.TRL).folder / "README.md").read_text()
    assert "rows: 2; label events used: 8; pairs: 5" in text
    assert "judgements: decided (6), tie (2)" in text
    assert "annotators known by pseudonym: 3" in text
    assert "sources: here\\|there (8)" in text
    assert "licences: MIT (8)" in text


def test_a_folder_with_something_in_it_is_left_alone(store, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "mine").touch()
    with pytest.raises(UsageError, match="is not empty; give --output a folder that does not exist yet"):
        export(store, folder, ExportFormat.TRL)
    (folder / "mine").unlink()
    export(store, folder, ExportFormat.TRL)


def test_an_attribute_is_asked_for(store, tmp_path):
    with pytest.raises(UsageError, match="project 'p' has no labels for 'kind'"):
        export(store, tmp_path / "out", ExportFormat.TRL, attribute="kind")
    assert not (tmp_path / "out").exists()
