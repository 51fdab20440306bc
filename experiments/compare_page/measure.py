"""How long the page that compares 200 runs takes: of copies of a finished run, each with a configuration of its own.

    OMP_NUM_THREADS=1 python experiments/compare_page/measure.py outputs/DATE/TIME

The copies differ in learning rate, KL coefficient and seed, share the registry of the run, and are removed at the end.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sft.core.durable import json_digest, write_json

ROOT = Path(__file__).parents[2]
KEPT = ("metrics.jsonl", "results.json")
SHAPES = {"200 configurations": 1, "25 configurations, 8 seeds each": 8}


def copy_runs(run: Path, folder: Path, *, runs: int, seeds: int) -> None:
    """Write copies of a run, `seeds` of each configuration."""
    record = json.loads((run / "run.json").read_text())
    for number in range(runs):
        place = folder / f"run-{number:03d}"
        place.mkdir(parents=True)
        shutil.copytree(run / "stages", place / "stages")
        for name in KEPT:
            shutil.copy(run / name, place / name)
        config = json.loads(json.dumps(record["config"]))
        config["seed"] = number % seeds
        config["ppo"]["learning_rate"] = 1e-5 * (1 + number // seeds % 20)
        config["ppo"]["kl_coef"] = 0.01 * (1 + number // seeds // 20)
        changed = {"seed": config["seed"], "config": config, "config_sha256": json_digest(config)}
        run_id = f"copy-{number:03d}"
        write_json(place / "run.json", record | changed | {"run_id": run_id})
        results = json.loads((place / "results.json").read_text())
        write_json(place / "results.json", results | {"run_id": run_id, "seed": config["seed"]})


def compare(folder: Path, page: Path) -> tuple[float, float]:
    """Return seconds by the clock and of the processors of one comparison in a new interpreter."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    words = (sys.executable, "-m", "rlhf", "runs", "compare", str(folder), "--output", str(page))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    wall_s, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure both shapes in turn and write results.json."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("run", type=Path, help="a finished run's folder")
    options.add_argument("--runs", type=int, default=200)
    options.add_argument("--repeats", type=int, default=7)
    options.add_argument("--output", type=Path, default=Path(__file__).with_name("results.json"))
    given = options.parse_args()
    results: dict[str, object] = {"runs": given.runs, "n": given.repeats}
    with tempfile.TemporaryDirectory(prefix="compare-") as name:
        folder = Path(name)
        took: dict[str, list[tuple[float, float]]] = {shape: [] for shape in SHAPES}
        for seeds in SHAPES.values():
            copy_runs(given.run, folder / str(seeds), runs=given.runs, seeds=seeds)
        for _ in range(given.repeats + 1):  # the first one warms the disk's cache
            for shape, seeds in SHAPES.items():
                took[shape].append(compare(folder / str(seeds), folder / f"{seeds}.html"))
        for shape, seeds in SHAPES.items():
            wall, cpu = (sorted(times) for times in zip(*took[shape][1:], strict=True))
            results[shape] = {
                "wall_s": {"median": statistics.median(wall), "least": wall[0], "most": wall[-1]},
                "cpu_s": {"median": statistics.median(cpu), "least": cpu[0], "most": cpu[-1]},
                "page_bytes": (folder / f"{seeds}.html").stat().st_size,
            }
    write_json(given.output, results)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
