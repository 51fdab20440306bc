import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from rlhf.labels.commands import app
from rlhf.labels.database import SCHEMA_VERSION
from sft.core.errors import StorageError, UsageError

DUMP = (Path(__file__).parent / "version_1.sql").read_text()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "labels.csv"
    rows = [f"p{n // 2},x,y,{'ab'[n % 3 == 0]},ann{n % 2},m,n" for n in range(40)]
    header = "question,response_a,response_b,label,annotator,model_a,model_b"
    path.write_text("\n".join([header, *rows, rows[0], "p,x,y,what,z,m,n"]) + "\n")
    return path


def invoke(folder: Path, *args: str) -> Result:
    return CliRunner().invoke(app, [*args, "--database", f"sqlite:///{folder / 'l.sqlite'}"])


def document(folder: Path, *args: str) -> dict[str, object]:
    result = invoke(folder, *args, "--json")
    assert result.exit_code == 0, result.exception
    return json.loads(result.stdout)


def import_it(file: Path) -> dict[str, object]:
    given = ("--mapping", "prompt=question", "--licence", "MIT", "--source", "us")
    return document(file.parent, "import", str(file), *given)


def test_import(file):
    found = import_it(file)
    wanted = ("format", "rows_in", "comparisons", "ties", "quarantined", "duplicates", "reasons")
    assert [found[name] for name in wanted] == ["pairwise", 42, 40, 0, 1, 1, {"unknown label": 1}]
    again = import_it(file)
    assert [again[name] for name in wanted] == ["pairwise", 42, 0, 0, 1, 41, {"unknown label": 1}]


def test_import_as_text(file):
    result = invoke(file.parent, "import", str(file), "--mapping", "prompt=question")
    assert result.exit_code == 0
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines() if line.strip())
    assert (lines["rows_in"].strip(), lines["lines.unknown"].split()) == ("42", ["label", "43"])
    assert lines["tie_rate"].strip().endswith(", 0.08762] n=40")
    assert "\x1b" not in result.stdout


def test_report(file):
    import_it(file)
    found = document(file.parent, "report", "--resamples", "100")
    assert {"raw", "fleiss_kappa", "krippendorff_nominal", "krippendorff_ordinal"} <= set(found["agreement"])
    assert found["agreement"]["raw"].keys() == {"value", "ci", "n"}
    assert [annotator["name"] for annotator in found["annotators"]] == ["ann0", "ann1"]
    assert {model["model"] for model in found["ranking"]} == {"m", "n"}
    assert found == document(file.parent, "report", "--resamples", "100")
    text = invoke(file.parent, "report", "--resamples", "100")
    assert text.exit_code == 0
    assert "two labels of a pair are the same" in text.stdout
    assert "\x1b" not in text.stdout


def test_upgrade(tmp_path):
    """A database of version 1 stops all but what makes one; afterwards it is used as before."""
    connection = sqlite3.connect(tmp_path / "l.sqlite")
    connection.executescript(DUMP)
    connection.close()
    refused = invoke(tmp_path, "report", "--project", "rice")
    assert isinstance(refused.exception, StorageError)
    assert "`rlhf labels upgrade`" in str(refused.exception)
    upgraded = {"database": str(tmp_path / "l.sqlite"), "version_before": 1, "version": SCHEMA_VERSION}
    assert document(tmp_path, "upgrade") == upgraded
    assert document(tmp_path, "upgrade") == {**upgraded, "version_before": SCHEMA_VERSION}
    assert len(document(tmp_path, "report", "--project", "rice", "--resamples", "100")["annotators"]) == 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("import", "f", "--format", "xml"), "--format xml is not known; use one of auto, hh"),
        (("import", "f", "--mapping", "prompt"), "--mapping prompt is not WANTED=FOUND"),
        (("import", "f", "--mapping", "a=b", "--mapping", "a=c"), "a wanted column twice"),
        (("report",), "there are no labels in"),
        (("status",), "make tasks for people (rlhf labels create NAME --from FILE)"),
        (("upgrade",), "there are no labels in"),
    ],
)
def test_wrong_words(tmp_path, args, message):
    result = invoke(tmp_path, *args)
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)


@pytest.mark.parametrize("command", ["report", "status"])
def test_a_project_that_is_not_there_says_how_to_make_it(file, command):
    import_it(file)
    said = str(invoke(file.parent, command, "--project", "rice").exception)
    assert "there is no project 'rice'" in said
    assert "there are: default; name one with --project, or make it: rlhf labels create rice --from FILE" in said
    assert "rlhf labels import FILE --project rice" in said


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://me:secret@127.0.0.1:1/labels", "postgresql://me:***@127.0.0.1:1/labels: connection failed"),
        (
            "postgresql://me:secret@127.0.0.1:1/labels",
            "check user, host, port and database name of the URL, the password",
        ),
        ("mysql://me@host/labels", "write sqlite:///FILE or postgresql://USER@HOST/NAME"),
    ],
)
def test_a_wrong_server_says_what_to_check(url, message):
    if url.startswith("postgresql"):
        pytest.importorskip("psycopg")
    said = str(CliRunner().invoke(app, ["status", "--database", url]).exception)
    assert message in said
    assert "secret" not in said


def test_the_default_database_is_beside_the_registry(file, tmp_path):
    args = ["import", str(file), "--mapping", "prompt=question", "--registry", str(tmp_path / "place/registry")]
    assert CliRunner().invoke(app, args).exit_code == 0
    assert (tmp_path / "place/labels.sqlite").is_file()


def test_help_loads_no_database():
    code = (
        "import sys, rlhf.labels.commands; sys.exit(any(m in sys.modules for m in ('sqlalchemy', 'torch', 'datasets')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
