"""A search of 12 trials on the simulated world, killed on the way and carried on, beside one that is left alone.

OMP_NUM_THREADS=1 python experiments/search/study.py --root runs/search --kills 3 --output experiments/search

Says whether both tried the same settings with the same numbers. What is there already is found again.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

SMALL = [
    "experiment=quickstart",
    "model.hidden_size=64",
    "model.intermediate_size=192",
    "model.num_hidden_layers=3",
    "simulation.prompts=500",
    "simulation.demonstrations=2000",
    "simulation.pairs=3000",
    "sft.num_train_epochs=3",
    "reward.judge_fraction=0.4",
    "ppo.total_episodes=2560",
    "runtime.device=cpu",
    "runtime.threads=1",
    "wandb=disabled",
]
"""The quickstart's world and model, made smaller."""
SEARCH = [
    "hydra/sweeper=optuna",
    "search.study=study",
    "search.trials=12",
    "search.startup_trials=4",
    "search.pruner=median",
    "ppo.eval_steps=4",
    "ppo.kl_coef=tag(log,interval(0.01,1.0))",
    "ppo.learning_rate=tag(log,interval(2e-5,1e-3))",
    "ppo.num_ppo_epochs=1,2,4",
]


def command(root: Path, folder: Path) -> list[str]:
    """Return the search's command line; its registry is its own, so that both searches train everything."""
    places = [f"registry.root={root / folder.name}-registry", f"hydra.sweep.dir={folder}"]
    return [sys.executable, "-m", "rlhf", "run", "-m", *SMALL, *SEARCH, *places]


def run(words: list[str], log: Path, kills: int, seed: int) -> tuple[float, int]:
    """Run a search to its end; return seconds and the number of kills it got at random times."""
    chance, began, done = random.Random(seed), time.monotonic(), 0
    with log.open("a") as output:
        while True:
            process = subprocess.Popen(words, stdout=output, stderr=output)
            try:
                process.wait(timeout=chance.uniform(40, 130) if done < kills else None)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                done += 1
                continue
            if process.returncode:
                sys.exit(f"the search ended with {process.returncode}; see {log}")
            return time.monotonic() - began, done


def trials(folder: Path) -> list[dict[str, object]]:
    """Return the settings and numbers of every trial."""
    found = json.loads((folder / "study.json").read_text())["trials"]
    return [{key: trial[key] for key in ("settings", "state", "values")} for trial in found]


def main() -> None:
    """Run both searches and say what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the times of the kills")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    given.root.mkdir(parents=True, exist_ok=True)
    calm, killed = given.root / "calm", given.root / "killed"
    killed_s, kills = run(command(given.root, killed), given.root / "killed.log", given.kills, given.seed)
    calm_s, _ = run(command(given.root, calm), given.root / "calm.log", 0, given.seed)
    one, other = trials(calm), trials(killed)
    found = {
        "trials": len(other),
        "states": {state: sum(t["state"] == state for t in other) for state in ("complete", "pruned", "failed")},
        "kills": kills,
        "same_settings": [t["settings"] for t in one] == [t["settings"] for t in other],
        "same_states_and_numbers": one == other,
        "seconds_calm": round(calm_s),
        "seconds_killed": round(killed_s),
    }
    (given.output / "study.json").write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
