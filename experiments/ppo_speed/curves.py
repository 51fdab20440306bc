"""Does bfloat16 learn what float32 learns: scores over iterations of our PPO, several seeds of each.

    python experiments/ppo_speed/curves.py --workload DIR --seeds 3 --updates 30 --output DIR

`DIR` of the workload is one that `measure.py` wrote. Times mean nothing here: `--parallel` processes run at once.
"""

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from contract import Measurement
from measure import call

FORMATS = ("fp32", "bf16")


@dataclass(frozen=True)
class Comparison:
    """Mean score per answer, each of the last `last` iterations' mean; the spread is over seeds."""

    last: int
    seeds: int
    start: float
    """Of all runs, first iteration."""
    fp32: list[float]
    """One number per seed."""
    bf16: list[float]
    difference: float
    """bf16 - fp32, mean of the differences of equal seeds."""
    interval: tuple[float, float]
    """95 %, Student's t over seeds."""
    seed_spread: float
    """Largest minus smallest of fp32."""
    largest_distance: float
    """Largest distance of the two mean curves in any iteration, each smoothed over `last` iterations."""


def curves(given: argparse.Namespace, number_format: str) -> npt.NDArray[np.float64]:
    """Return the mean score of every iteration, shape (seeds, updates)."""

    def one(seed: int) -> list[float]:
        options = ["--workload", given.workload, "--updates", given.updates, "--threads", 1, "--seed", seed]
        line = call(sys.executable, "our_side.py", *options, "--variant", number_format, threads=1)
        return [update.score for update in Measurement.parse(line).updates]

    with ThreadPoolExecutor(given.parallel) as pool:
        return np.array(list(pool.map(one, range(given.seeds))))


def compare(fp32: npt.NDArray[np.float64], bf16: npt.NDArray[np.float64], last: int) -> Comparison:
    """Compare curves of shape (seeds, updates)."""
    from scipy.stats import t

    ends = [scores[:, -last:].mean(axis=1) for scores in (fp32, bf16)]
    differences = ends[1] - ends[0]
    half = t.ppf(0.975, len(differences) - 1) * differences.std(ddof=1) / len(differences) ** 0.5
    smooth = [np.convolve(scores.mean(axis=0), np.full(last, 1 / last), mode="valid") for scores in (fp32, bf16)]
    return Comparison(
        last=last,
        seeds=len(fp32),
        start=float(np.concatenate([fp32, bf16])[:, 0].mean()),
        fp32=ends[0].tolist(),
        bf16=ends[1].tolist(),
        difference=float(differences.mean()),
        interval=(float(differences.mean() - half), float(differences.mean() + half)),
        seed_spread=float(np.ptp(ends[0])),
        largest_distance=float(np.abs(smooth[1] - smooth[0]).max()),
    )


def plot(found: dict[str, npt.NDArray[np.float64]], path: Path) -> None:
    """Draw every run thinly and the means thickly."""
    import matplotlib.pyplot as plt

    figure, panel = plt.subplots(figsize=(7, 4))
    for (name, scores), colour in zip(found.items(), ("tab:blue", "tab:orange"), strict=True):
        iterations = np.arange(1, scores.shape[1] + 1)
        for run in scores:
            panel.plot(iterations, run, color=colour, alpha=0.25, linewidth=1)
        panel.plot(iterations, scores.mean(axis=0), color=colour, linewidth=2, label=f"{name}, mean of {len(scores)}")
    panel.set_xlabel("iteration")
    panel.set_ylabel("mean score of 64 answers")
    panel.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main() -> None:
    """Run everything, and write curves.json and curves.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=30)
    parser.add_argument("--last", type=int, default=5, help="iterations that count as the end")
    parser.add_argument("--parallel", type=int, default=2, help="processes at once, one thread each")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    found = {name: curves(given, name) for name in FORMATS}
    comparison = compare(found["fp32"], found["bf16"], given.last)
    given.output.mkdir(parents=True, exist_ok=True)
    document = vars(comparison) | {"curves": {name: scores.tolist() for name, scores in found.items()}}
    (given.output / "curves.json").write_text(json.dumps(document, indent=2) + "\n")
    plot(found, given.output / "curves.png")
    print(json.dumps(vars(comparison), indent=2))


if __name__ == "__main__":
    main()
