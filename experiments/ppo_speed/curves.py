"""Does bfloat16 learn what float32 learns: the true gain over PPO's iterations, several seeds of each.

    rlhf run -m experiment=quickstart seed=0,1,2 runtime.threads=1                          # -> RUN folders, float32
    rlhf run -m experiment=quickstart seed=0,1,2 runtime.threads=1 runtime.dtype=bfloat16   # -> RUN folders, bfloat16
    python experiments/ppo_speed/curves.py --fp32 RUN RUN RUN --bf16 RUN RUN RUN --output DIR

The simulated world knows the gold utility of every answer, which nothing is trained on, so runs whose reward models
differ can be compared. The speed workloads have a random reward model: their curves stay flat and would tell nothing.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

METRIC = "objective/gold"


@dataclass(frozen=True)
class Comparison:
    """Mean gold utility of an iteration's answers; an end is the mean of the last `last` iterations."""

    iterations: int
    last: int
    seeds: int
    fp32: list[float]
    """Ends, one number per seed."""
    bf16: list[float]
    difference: float
    """bf16 - fp32, mean of the differences of equal seeds."""
    interval: tuple[float, float]
    """95 %, Student's t over seeds."""
    seed_spread: float
    """Largest minus smallest end of fp32."""
    largest_distance: float
    """Largest distance of the two mean curves in any iteration, each smoothed over `last` iterations."""
    largest_seed_distance: float
    """The same between the lowest and the highest of fp32's own curves."""


def curve(run: Path) -> list[float]:
    """Return the metric of every PPO iteration, read from a run's ledger."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    found = [row["metrics"][METRIC] for row in rows if row["stage"] == "ppo" and METRIC in row["metrics"]]
    if not found:
        raise SystemExit(f"{run}/metrics.jsonl has no {METRIC}; give folders of runs in which PPO was trained")
    return found


def smoothed(scores: npt.NDArray[np.float64], window: int) -> npt.NDArray[np.float64]:
    """Return running means of each row."""
    return np.stack([np.convolve(row, np.full(window, 1 / window), mode="valid") for row in scores])


def compare(fp32: npt.NDArray[np.float64], bf16: npt.NDArray[np.float64], last: int) -> Comparison:
    """Compare curves of shape (seeds, iterations)."""
    from scipy.stats import t

    ends = [scores[:, -last:].mean(axis=1) for scores in (fp32, bf16)]
    differences = ends[1] - ends[0]
    half = t.ppf(0.975, len(differences) - 1) * differences.std(ddof=1) / len(differences) ** 0.5
    smooth_fp32, smooth_bf16 = smoothed(fp32, last), smoothed(bf16, last)
    return Comparison(
        iterations=fp32.shape[1],
        last=last,
        seeds=len(fp32),
        fp32=ends[0].tolist(),
        bf16=ends[1].tolist(),
        difference=float(differences.mean()),
        interval=(float(differences.mean() - half), float(differences.mean() + half)),
        seed_spread=float(np.ptp(ends[0])),
        largest_distance=float(np.abs(smooth_bf16.mean(axis=0) - smooth_fp32.mean(axis=0)).max()),
        largest_seed_distance=float(np.ptp(smooth_fp32, axis=0).max()),
    )


def plot(found: dict[str, npt.NDArray[np.float64]], path: Path) -> None:
    """Draw every run thinly and the means thickly."""
    import matplotlib.pyplot as plt

    figure, panel = plt.subplots(figsize=(7, 4))
    for (name, scores), colour in zip(found.items(), ("tab:blue", "tab:orange"), strict=True):
        iterations = np.arange(1, scores.shape[1] + 1)
        for run in scores:
            panel.plot(iterations, run, color=colour, alpha=0.3, linewidth=1)
        panel.plot(iterations, scores.mean(axis=0), color=colour, linewidth=2, label=f"{name}, mean of {len(scores)}")
    panel.set_xlabel("iteration of PPO")
    panel.set_ylabel("mean gold utility of the answers")
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main() -> None:
    """Write curves.json and curves.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fp32", type=Path, nargs="+", required=True, metavar="RUN", help="seeds in order")
    parser.add_argument("--bf16", type=Path, nargs="+", required=True, metavar="RUN", help="the same seeds in order")
    parser.add_argument("--last", type=int, default=5, help="iterations that count as the end")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    found = {"float32": np.array([curve(run) for run in given.fp32])}
    found["bfloat16"] = np.array([curve(run) for run in given.bf16])
    if found["float32"].shape != found["bfloat16"].shape or len(given.fp32) < 2:
        parser.error("give the same two or more seeds of both, with equally many iterations")
    comparison = compare(found["float32"], found["bfloat16"], given.last)
    given.output.mkdir(parents=True, exist_ok=True)
    document = vars(comparison) | {"curves": {name: scores.tolist() for name, scores in found.items()}}
    (given.output / "curves.json").write_text(json.dumps(document, indent=2) + "\n")
    plot(found, given.output / "curves.png")
    print(json.dumps(vars(comparison), indent=2))


if __name__ == "__main__":
    main()
