"""How long commands take that only look: wall time and CPU time, each in new interpreters.

    OMP_NUM_THREADS=1 python experiments/startup/measure.py

Makes a registry of `--versions` versions and `--runs` runs' folders first, in a folder of its own that is removed.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rlhf import schema
from rlhf.config import ExperimentConfig
from rlhf.registry import Registry
from rlhf.runs import Asked
from rlhf.runs.journal import journal
from sft.core.durable import write_json

ROOT = Path(__file__).parents[2]


class Took(NamedTuple):
    """One command."""

    wall_s: float
    cpu_s: float
    """User and system, of the command and its children."""


def once(words: Sequence[str], folder: Path) -> Took:
    """Run a command in a new interpreter."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        (sys.executable, "-m", "rlhf", *words), cwd=folder, env=environment, capture_output=True, text=True
    )
    wall_s, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    return Took(wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def shown(took: Sequence[Took]) -> dict[str, object]:
    """Return medians with the least and the most."""
    found: dict[str, object] = {"n": len(took)}
    for name in Took._fields:
        values = sorted(one._asdict()[name] for one in took)
        found[name] = {"median": statistics.median(values), "least": values[0], "most": values[-1]}
    return found


def fill_registry(root: Path, versions: int) -> None:
    """Register versions of three models, each with metrics and a parent."""
    registry = Registry(root)
    last = None
    for number in range(versions):
        fingerprint = f"{number:064x}"
        with registry.workspace(fingerprint) as folder:
            write_json(folder / "stage.json", {"metrics": {}})
            last = registry.register(
                folder,
                name=("sft", "reward", "policy")[number % 3],
                kind=("sft", "reward", "policy")[number % 3],
                fingerprint=fingerprint,
                metadata={"metrics": {"eval_loss": 1 / (1 + number), "n": 100}, "seed": number},
                parents=[] if last is None else [("parent", last)],
            )


def fill_runs(root: Path, runs: int) -> None:
    """Write the folders of finished runs, without ledgers."""
    for number in range(runs):
        config = schema.to_tree(ExperimentConfig(seed=number))
        asked = Asked((f"seed={number}",), {"model": "tiny"})
        about = {"experiment": "quickstart", "run_id": f"quickstart-{number:04d}", "registry": "registry"}
        with journal(root / f"run-{number}", config=config, seed=number, asked=asked, **about):
            numbers = {"win_rate": {"value": 0.5, "ci": [0.4, 0.6], "n": 100}}
            results = {"run_id": about["run_id"], "evaluation": numbers, "bias": {"passed": True, "checks": []}}
            write_json(root / f"run-{number}" / "results.json", results)


def main() -> None:
    """Measure in turn, so that what else the machine does falls on all alike."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repeats", type=int, default=11)
    options.add_argument("--versions", type=int, default=1000)
    options.add_argument("--runs", type=int, default=200)
    options.add_argument("--output", type=Path, default=Path(__file__).with_name("results.json"))
    given = options.parse_args()
    commands = {
        "rlhf --help": ["--help"],
        f"rlhf models list, {given.versions} versions": ["models", "list"],
        f"rlhf runs list, {given.runs} runs": ["runs", "list"],
        "rlhf run --cfg job experiment=quickstart": ["run", "--cfg", "job", "experiment=quickstart"],
    }
    with tempfile.TemporaryDirectory(prefix="startup-") as name:
        folder = Path(name)
        fill_registry(folder / "registry", given.versions)
        fill_runs(folder / "outputs", given.runs)
        took: dict[str, list[Took]] = {command: [] for command in commands}
        for _ in range(given.repeats + 1):  # the first one warms the disk's cache
            for command, words in commands.items():
                took[command].append(once(words, folder))
    results = {command: shown(found[1:]) for command, found in took.items()}
    write_json(given.output, results)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
