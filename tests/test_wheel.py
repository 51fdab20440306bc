"""A wheel built from the project runs the quickstart in another folder; its configuration comes with it."""

import json
import os
import subprocess
import sys
from pathlib import Path

from micro import MICRO

ROOT = Path(__file__).parents[1]


def test_a_wheel_runs_the_quickstart_elsewhere(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True, timeout=120)
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    where = [sys.executable, "-c", "import rlhf; print(rlhf.__file__)"]
    found = subprocess.run(where, cwd=elsewhere, env=environment, check=True, capture_output=True, text=True).stdout
    assert found.startswith(str(site))
    run = [sys.executable, "-m", "rlhf", "run", *MICRO, "--json"]
    done = subprocess.run(run, cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["experiment"] == "quickstart"
    assert (elsewhere / "registry" / "policy" / "1" / "model.safetensors").is_file()
