"""Print the table of this study's README from the results.json files of a sweep.

python experiments/quickstart/summarise.py multirun/DATE/TIME/*/results.json
"""

import argparse
import json
from pathlib import Path

COLUMNS = (
    "seed",
    "reward model accuracy",
    "ceiling",
    "ratio",
    "longer wins",
    "win rate by gold",
    "KL, nats",
    "first ratio off by",
    "held-out perplexity, SFT -> policy",
    "bias gate",
    "alias",
    "seconds of all stages",
)


def interval(estimate: dict, digits: int) -> str:
    """Return `value [low, high] (n ...)`."""
    low, high = estimate["ci"]
    return f"{estimate['value']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}] (n {estimate['n']})"


def row(results: dict) -> list[str]:
    """Return one seed's cells."""
    evaluation = results["evaluation"]
    accuracy = evaluation["reward_model_accuracy"]
    longer = {"value": accuracy["longer_wins"], "ci": accuracy["longer_wins_ci"], "n": accuracy["n"]}
    stages = {stage["name"]: stage for stage in results["stages"]}
    perplexities = [evaluation[f"{name}_perplexity"]["value"] for name in ("sft", "policy")]
    return [
        str(results["seed"]),
        interval(accuracy, 3),
        f"{accuracy['ceiling']:.3f}",
        f"{accuracy['value'] / accuracy['ceiling']:.3f}",
        interval(longer, 3),
        interval(evaluation["win_rate"], 3),
        interval(evaluation["kl"], 2),
        f"{stages['ppo']['metrics']['first_ratio_deviation']:.1e}",
        " -> ".join(f"{value:.2f}" for value in perplexities),
        "passed" if results["bias"]["passed"] else "failed",
        str(results["alias"]),
        f"{sum(stage['seconds'] for stage in stages.values()):.0f}",
    ]


def main() -> None:
    """Read the files and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+")
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + "---|" * len(COLUMNS))
    for file in parser.parse_args().files:
        print("| " + " | ".join(row(json.loads(file.read_text()))) + " |")


if __name__ == "__main__":
    main()
