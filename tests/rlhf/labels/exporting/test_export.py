import json
from pathlib import Path

import pytest
from label_removal import erase

from rlhf.labels.exporting.csv_file import read_csv
from rlhf.labels.exporting.export import ExportedDataset, ExportRequest, keeping, read_facts, remember, write_export
from rlhf.labels.exporting.export_rows import ExportFormat
from rlhf.labels.importing.imports import import_file
from rlhf.labels.store import LabelStore
from sft.core.durable import broken_files, file_digest, folder_digest
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


def export(store: LabelStore, folder: Path, format: ExportFormat, **given: str) -> ExportedDataset:
    made = write_export(store, ExportRequest("p", format, **given), folder)
    remember(store, made)
    return made


def exported(store: LabelStore, tmp_path: Path, format: ExportFormat) -> Path:
    export(store, tmp_path / "out", format)
    return tmp_path / "out"


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def turn(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def test_trl(store, tmp_path):
    made = export(store, tmp_path / "out", ExportFormat.TRL)
    first, second = lines(tmp_path / "out" / "train.jsonl")
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
    assert made.counts == {"rows": 2, "labels": 8, "tasks": 5, "undecided": 3, "annotators": 3}
    assert made.event_ids == [(1, 8)]


def test_no_margin_where_a_vote_has_no_strength(store, tmp_path):
    path = tmp_path / "more.jsonl"
    path.write_text(json.dumps({"response_a": "x", "response_b": "y", **ROWS[3], "annotator": "Cy", "strength": 1}))
    import_file(store, "p", path)
    second = lines(exported(store, tmp_path, ExportFormat.TRL) / "train.jsonl")[1]
    assert (second["votes"], "margin" in second) == (2, False)


def test_trl_reads_back_as_the_same_preferences(store, tmp_path):
    export(store, tmp_path / "out", ExportFormat.TRL)
    report = import_file(store, "again", tmp_path / "out" / "train.jsonl")
    assert (report.format.value, report.comparisons, report.quarantined) == ("trl", 2, 0)
    with store.reading("again") as labels:
        found = [(j.prompt[0].content, j.response_a, j.response_b, j.strength) for j in labels.judgements()]
    assert found == [("p1", "x", "y", 4 / 3), ("p2", "y", "x", None)]


def test_kto(store, tmp_path):
    made = export(store, tmp_path / "out", ExportFormat.KTO)
    rows = lines(tmp_path / "out" / "train.jsonl")
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
    rows = lines(exported(store, tmp_path, ExportFormat.EVENTS) / "events.jsonl")
    assert [row["event_id"] for row in rows] == list(range(1, 10))
    assert [(row["response_a"], row["label"]) for row in rows if row["prompt"] == turn("user", "p2")] == [
        ("x", "b"),
        ("y", "b"),
    ]
    assert rows[0]["licence"] == "MIT"


def test_csv_holds_the_labels_that_hold_and_is_imported_again(store, tmp_path):
    path = exported(store, tmp_path, ExportFormat.CSV) / "labels.csv"
    assert [judgement.line for judgement in read_csv(path)] == list(range(2, 10))
    report = import_file(store, "again", path)
    assert (report.comparisons, report.quarantined, report.ties) == (8, 0, 2)


def test_dataset(store, tmp_path):
    from datasets import load_from_disk

    export(store, tmp_path / "out", ExportFormat.DATASET)
    rows = list(load_from_disk(str(tmp_path / "out" / "dataset")))
    assert [row["chosen"] for row in rows] == [turn("assistant", "x"), turn("assistant", "y")]
    assert [row["margin"] for row in rows] == [4 / 3, None]


@pytest.mark.parametrize("format", list(ExportFormat))
def test_sealed_without_names_and_the_same_bytes_again(store, tmp_path, format):
    made = export(store, tmp_path / "out", format)
    assert export(store, tmp_path / "other/place", format) == made
    assert broken_files(tmp_path / "out") == []
    assert made.digest == file_digest(tmp_path / "out/MANIFEST.json")
    assert folder_digest(tmp_path / "out") == folder_digest(tmp_path / "other/place")
    assert (made.format, made.event_ids, made.counts["labels"], made.counts["tasks"]) == (format, [(1, 8)], 8, 5)
    assert (len(made.annotators), made.counts["annotators"]) == (3, 3)
    assert read_facts(tmp_path / "out") == made._replace(annotators=(), origins={})
    assert {"README.md", "export.json", "MANIFEST.json"} < {path.name for path in (tmp_path / "out").iterdir()}
    for path in (path for path in (tmp_path / "out").rglob("*") if path.is_file()):
        assert not any(name.encode() in path.read_bytes() for name in ("Ada", 'Bo"', "Cy", str(tmp_path)))


def test_an_edit_makes_another_export_and_the_old_one_can_be_rebuilt(store, tmp_path):
    old = export(store, tmp_path / "old", ExportFormat.TRL)
    edit(store, tmp_path)
    new = export(store, tmp_path / "new", ExportFormat.TRL)
    assert new.event_ids == [(1, 3), (5, 9)]
    assert lines(tmp_path / "new/train.jsonl")[1]["chosen"] == turn("assistant", "x")
    rebuilt = export(store, tmp_path / "rebuilt", ExportFormat.CSV, rebuild=old.digest[:12])
    assert rebuilt == old != new
    assert folder_digest(tmp_path / "rebuilt") == folder_digest(tmp_path / "old")


def edit(store: LabelStore, tmp_path: Path) -> None:
    path = tmp_path / "edit.jsonl"
    path.write_text(json.dumps({"response_a": "x", "response_b": "y", **ROWS[3], "label": "a"}) + "\n")
    import_file(store, "p", path)


def test_nobody_is_forgotten_between_the_steps_of_an_export(store, tmp_path):
    made = write_export(store, ExportRequest("p", ExportFormat.TRL), tmp_path / "out")
    assert erase(store, "p", "Cy").exports == []
    for step in (lambda: remember(store, made), lambda: keeping(store, made).__enter__()):
        with pytest.raises(DataError, match="1 of 8 labels of this export have been erased; run the same command"):
            step()


def test_erased_labels_cannot_be_rebuilt(store, tmp_path):
    old = export(store, tmp_path / "old", ExportFormat.TRL)
    assert erase(store, "p", "Cy").exports == [old.digest]
    with pytest.raises(DataError, match="1 of 8 labels of this export have been erased; export again without"):
        export(store, tmp_path / "new", ExportFormat.TRL, rebuild=old.digest)


def test_the_datasheet_counts_and_takes_no_markup_from_others(store, tmp_path):
    text = (exported(store, tmp_path, ExportFormat.TRL) / "README.md").read_text()
    assert "rows: 2; label events used: 8; pairs: 5" in text
    assert "judgements: decided (6), tie (2)" in text
    assert "annotators known by pseudonym: 3" in text
    assert "sources: here\\|there (8)" in text
    assert "licences: MIT (8)" in text


def test_an_attribute_is_asked_for(store, tmp_path):
    with pytest.raises(UsageError, match="project 'p' has no labels for 'kind'"):
        export(store, tmp_path / "out", ExportFormat.TRL, attribute="kind")
    with pytest.raises(UsageError, match="an export of events holds every attribute; leave --attribute out"):
        export(store, tmp_path / "events", ExportFormat.EVENTS, attribute="kind")


def test_what_is_no_export_says_so(tmp_path):
    (tmp_path / "export.json").write_text('{"project": "p"}')
    with pytest.raises(DataError, match="is no export of labels; make one with `rlhf labels export`"):
        read_facts(tmp_path)
