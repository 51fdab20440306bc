import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from published import SECRET, Published
from typer.testing import CliRunner, Result

from rlhf.cli import models_app
from sft.core.errors import DataError, UsageError


def invoke(published: Published, *words: str) -> Result:
    result = CliRunner().invoke(models_app, [*words, "--registry", str(published.place.registry.root)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_export_and_import(published: Published, tmp_path: Path):
    out = tmp_path / "out"
    said = invoke(published, "export", "policy", str(out), "--license", "mit").stdout
    assert said.startswith(f"policy:1 -> {out}: 6 files of the model, content ")
    assert '\nlicense: "mit"\n' in (out / "README.md").read_text()
    words = ["import", str(out), "--name", "theirs", "--registry", str(tmp_path / "r")]
    first, again = (CliRunner().invoke(models_app, words).stdout for _ in range(2))
    assert first.splitlines() == [
        f"{out} -> theirs:1, kind policy, content {said.split()[-1]}",
        "not taken over: MANIFEST.json, README.md",
    ]
    assert "theirs:1 (it was there)" in again
    document = json.loads(CliRunner().invoke(models_app, [*words, "--json"]).stdout)
    assert (document["ref"], document["new"], document["content"]) == ("theirs:1", False, said.split()[-1])


def test_problems_of_a_folder_as_json(tmp_path: Path, sft_folder: Path):
    folder = shutil.copytree(sft_folder, tmp_path / "theirs")
    (folder / "model.pt").touch()
    (folder / "x\u202e.py").touch()
    words = ["import", str(folder), "--name", "theirs", "--kind", "sft", "--registry", str(tmp_path / "r")]
    refused = CliRunner().invoke(models_app, [*words, "--json"])
    assert refused.exit_code == 1
    document = json.loads(refused.stdout)
    assert [problem["file"] for problem in document["problems"]] == ["model.pt", "x⟨U+202E⟩.py"]
    assert document["problems"][0]["rule"].startswith("may hold code or pickled objects")
    assert document["problems"][0]["remedy"] == "convert it (save_pretrained) or remove it"
    assert document["exit_code"] == 1
    assert refused.stderr == f"error: {document['error']}\n"
    assert isinstance(CliRunner().invoke(models_app, words).exception, DataError)


def test_export_as_json(published: Published, tmp_path: Path):
    document = json.loads(invoke(published, "export", "reward", str(tmp_path / "out"), "--json").stdout)
    assert (document["ref"], document["kind"], document["adapter_of"]) == ("reward:1", "reward", None)
    assert "calibration.json" in document["files"]


def test_lineage_says_who_labelled(published: Published):
    lines = invoke(published, "lineage", "policy").stdout.splitlines()
    said = [line for line in lines if line.startswith("labelled by: ")]
    assert said[0].startswith("labelled by: labels-p:1: 6 label events of 3 people: annotator-")
    assert "licences: unknown (5), cc-by-4.0 (1); guidelines: none (6)" in said[0]
    assert said[1] == (
        "labelled by: labels:1: 4 label events of 2 people: person 1 (2), person 2 (1); 1 of unknown people"
    )
    assert SECRET not in "".join(lines)
    assert "\x1b" not in "".join(lines)
    assert "\u202e" not in "".join(lines)


def test_lineage_as_json(published: Published):
    document = json.loads(invoke(published, "lineage", "policy", "--json").stdout)
    assert [source["ref"] for source in document["labels"]] == ["labels-p:1", "labels:1"]
    assert "events" not in document["labels"][0]
    with_events = json.loads(invoke(published, "lineage", "policy", "--json", "--events").stdout)
    assert with_events["labels"][0]["events"] == [[1, 6]]
    assert len(with_events["labels"][1]["events"]) == 4


def test_lineage_as_a_page(published: Published, tmp_path: Path):
    result = invoke(published, "lineage", "policy", "--html", str(tmp_path / "lineage.html"), "--json")
    json.loads(result.stdout)
    assert (tmp_path / "lineage.html").read_text().startswith("<!doctype html>")


def test_a_page_makes_no_folder_that_was_mistyped(published: Published, tmp_path: Path):
    with pytest.raises(UsageError, match="deep is no folder; make it first"):
        invoke(published, "lineage", "policy", "--html", str(tmp_path / "deep" / "lineage.html"))
    assert not (tmp_path / "deep").exists()


def test_events_go_with_json(published: Published):
    with pytest.raises(UsageError, match="--events needs --json"):
        invoke(published, "lineage", "policy", "--events")


def test_used_by(published: Published):
    lines = invoke(published, "used-by", SECRET).stdout.splitlines()
    assert lines == [
        "labels-p:1: 1 label events of this person",
        "datasets: labels-p:1, comparisons:1",
        "reward models: reward:1",
        "policies: policy:1",
        "others: reward-report:1, evaluation:1, bias:1",
    ]
    document = json.loads(invoke(published, "used-by", "Ottokar", "--json").stdout)
    assert document["labels"] == [{"ref": "labels:1", "labels": 2}]
    assert document["policies"] == ["policy:1"]
    with pytest.raises(UsageError, match="there is no project 'r'"):
        invoke(published, "used-by", SECRET, "--project", "r")


def test_help_loads_nothing_heavy():
    script = (
        "import sys; from rlhf.publishing import commands; "
        "print([n for n in ('torch', 'transformers', 'sqlalchemy', 'safetensors', 'jinja2') if n in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "[]\n"
