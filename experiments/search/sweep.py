"""A sweep of six PPO settings, on one worker and on two: what is trained how often, and how long it takes.

OMP_NUM_THREADS=1 python experiments/search/sweep.py --root runs/sweep --output experiments/search

Each way starts from an empty registry.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from study import SMALL

POINTS = ["ppo.kl_coef=0.02,0.1,0.3", "ppo.learning_rate=1e-4,3e-4"]
WAYS = {"one worker": [], "two workers": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]}


def measure(root: Path, name: str, extra: list[str]) -> dict[str, object]:
    """Run the sweep and count what each of its runs trained."""
    folder = root / name.replace(" ", "-")
    places = [f"registry.root={folder / 'registry'}", f"hydra.sweep.dir={folder / 'sweep'}"]
    words = [sys.executable, "-m", "rlhf", "run", "-m", *SMALL, *POINTS, *places, *extra]
    began = time.monotonic()
    folder.mkdir(parents=True)
    with (folder / "log").open("w") as log:
        subprocess.run(words, check=True, stdout=log, stderr=log)
    seconds = time.monotonic() - began
    runs = [json.loads(path.read_text()) for path in sorted((folder / "sweep").glob("*/results.json"))]
    stages = [stage for run in runs for stage in run["stages"]]
    trained = {
        name: sum(stage["train_steps"] > 0 for stage in stages if stage["name"] == name)
        for name in ("sft", "reward", "ppo")
    }
    listed = subprocess.run(
        [sys.executable, "-m", "rlhf", "models", "list", "--json", "--registry", str(folder / "registry")],
        check=True,
        capture_output=True,
        text=True,
    )
    versions: dict[str, int] = {}
    for artifact in json.loads(listed.stdout):
        versions[artifact["name"]] = versions.get(artifact["name"], 0) + 1
    at_work = {
        name: round(sum(stage["seconds"] for stage in stages if stage["name"] == name), 1)
        for name in dict.fromkeys(stage["name"] for stage in stages)
    }
    return {
        "runs": len(runs),
        "seconds": round(seconds, 1),
        "runs_that_trained": trained,
        "versions": versions,
        "seconds_by_stage_over_all_runs": at_work,
        "win_rates": [round(run["evaluation"]["win_rate"]["value"], 4) for run in runs],
    }


def main() -> None:
    """Run both ways and write what they gave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    found = {name: measure(given.root, name, extra) for name, extra in WAYS.items()}
    one, two = found["one worker"], found["two workers"]
    found["same_results"] = one["win_rates"] == two["win_rates"]
    (given.output / "sweep.json").write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
