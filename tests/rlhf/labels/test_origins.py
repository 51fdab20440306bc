"""Source and licence of created tasks: stored with their batch, and on the datasheet of what was labelled."""

import json
from pathlib import Path

import pytest
from queued import PLAIN, PROJECT, desk, person
from sqlalchemy import func, select
from typer.testing import CliRunner

from rlhf.cli import app
from rlhf.labels.collection.study import set_study
from rlhf.labels.exporting.export import DATASHEET, ExportRequest, write_export
from rlhf.labels.exporting.export_rows import ExportFormat
from rlhf.labels.importing.imports import import_file
from rlhf.labels.origins import Origin, origins
from rlhf.labels.store import LabelStore
from rlhf.labels.tables import IMPORT, TASK


@pytest.fixture
def store(any_url: str) -> LabelStore:
    return LabelStore(any_url, create=True)


def create(url: str, file: Path, *words: str) -> dict:
    command = ["labels", "create", PROJECT, "--from", str(file), "--database", url, "--overlap", "1", "--json", *words]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.exception
    return json.loads(result.stdout)


def rows(path: Path, *prompts: str) -> Path:
    path.write_text("".join(json.dumps({"prompt": p, "answers": ["x", "y"]}) + "\n" for p in prompts))
    return path


def test_the_datasheet_says_where_the_texts_come_from(store: LabelStore, any_url: str, tmp_path: Path) -> None:
    found = create(any_url, rows(tmp_path / "a.jsonl", "q1", "q2"), "--source", "a forum", "--licence", "CC-BY-4.0")
    assert found["origin"] == {"source": "a forum", "licence": "CC-BY-4.0", "tasks": 2, "said_before": 0}
    assert "origin" not in create(any_url, rows(tmp_path / "b.jsonl", "q3"))
    with desk(store) as now_open:
        set_study(now_open.connection, now_open.project, PLAIN)
    ann = person(store, "ann")
    with desk(store) as now_open:
        for _ in range(3):
            now_open.label(ann)
    votes = tmp_path / "votes.jsonl"
    votes.write_text(json.dumps({"prompt": "q1", "response_a": "x", "response_b": "y", "label": "a"}) + "\n")
    import_file(store, PROJECT, votes)  # no source said: that of the tasks is not that of the votes
    write_export(store, ExportRequest(PROJECT, ExportFormat.CSV), tmp_path / "out")
    sheet = (tmp_path / "out" / DATASHEET).read_text()
    assert "sources: a forum (2), unknown (2)" in sheet
    assert "licences: CC-BY-4.0 (2), unknown (2)" in sheet


def test_what_was_said_first_stays(store: LabelStore, any_url: str, tmp_path: Path) -> None:
    file = rows(tmp_path / "a.jsonl", "q1", "q2")
    create(any_url, rows(tmp_path / "one.jsonl", "q1"), "--source", "first")
    assert create(any_url, file, "--source", "second")["origin"] == {
        **{"source": "second", "licence": None},
        **{"tasks": 1, "said_before": 1},
    }
    create(any_url, file, "--source", "other", "--licence", "MIT")
    again = create(any_url, file, "--source", "third", "--licence", "CC0")
    assert (again["origin"]["tasks"], again["origin"]["said_before"]) == (0, 2)
    with desk(store) as (connection, project, _):
        assert connection.scalar(select(func.count()).select_from(IMPORT)) == 3
        said = origins(connection, project.id)
        known = list(connection.scalars(select(TASK.c.id).order_by(TASK.c.prompt)))
        found = [Origin("first", "MIT"), Origin("second", "MIT"), Origin(None, None)]
        assert [said.of(number) for number in (*known, 99)] == found
