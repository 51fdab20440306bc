"""What the documentation says works: the README's example runs, its commands exist, its links lead somewhere."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
STUDIES = sorted((ROOT / "experiments").glob("*/README.md"))


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    script = tmp_path / "example.py"
    script.write_text(example.replace("total_episodes=512", "total_episodes=128"))
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(script))
    assert (names["policy"].checkpoint / "model.safetensors").is_file()


def test_links_lead_to_files() -> None:
    links = [
        (page, target)
        for page in [*PAGES, *STUDIES]
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text())
        if not target.startswith("http")
    ]
    assert len(links) >= 10
    for page, target in links:
        assert (page.parent / target).exists(), f"{page.name} -> {target}"


def test_every_experiment_has_a_row_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    experiments = sorted((ROOT / "conf" / "experiment").glob("*.yaml"))
    assert len(experiments) >= 3
    for file in experiments:
        assert f"`{file.stem}`" in readme
