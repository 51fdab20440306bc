"""What an installation without the extras `labels` and `postgresql` can do."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys
from typer.testing import CliRunner

EXTRAS = {"fastapi", "starlette", "uvicorn", "multipart", "python_multipart", "argon2", "markdown_it", "nh3", "psycopg"}

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refusing())
file, folder = sys.argv[1:]
from rlhf.cli import app

place = ["--database", f"sqlite:///{folder}/l.sqlite", "--registry", f"{folder}/registry"]
for words in (
    ["import", file],
    ["report", "--resamples", "100"],
    ["export", "--output", f"{folder}/trl"],
    ["export", "--output", f"{folder}/csv", "--format", "csv"],
    ["upgrade"],
    ["erase", "ann1"],
):
    result = CliRunner().invoke(app, ["labels", *words, *place])
    assert result.exit_code == 0, (words, result.exception)
result = CliRunner().invoke(app, ["labels", "report", "--database", "postgresql://me@nowhere/x"])
assert "pip install 'psycopg[binary]'" in str(result.exception), result.exception
assert not EXTRAS & {name.split(".")[0] for name in sys.modules}
print("done")
"""


def test_files_are_imported_reported_exported_without_the_page(tmp_path):
    file = tmp_path / "labels.csv"
    rows = [f"p{n // 2},x,y,{'ab'[n % 3 == 0]},ann{n % 2}\n" for n in range(40)]
    file.write_text("prompt,response_a,response_b,label,annotator\n" + "".join(rows))
    run = [sys.executable, "-c", PROGRAM, str(file), str(tmp_path)]
    done = subprocess.run(run, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
