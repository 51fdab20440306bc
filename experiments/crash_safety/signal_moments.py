"""Signals at random moments of a whole run, from the reading of the words to the report: exit codes, and what is left.

    OMP_NUM_THREADS=1 PYTHONPATH=tests python experiments/crash_safety/signal_moments.py --signals 200 --starts 60

A run is interrupted up to `--most` times, carried on with `rlhf resume`, and compared with one that nobody disturbed.
The starts are new interpreters, which are interrupted while they import.
"""

import argparse
import collections
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from signalled import FIRST, NUMBERS, Ended, different, interrupt, undisturbed

from sft.core.durable import write_json
from sft.core.statistics import proportion

ROOT = Path(__file__).parents[2]


def whole_runs(folder: Path, output: Path, *, signals: int, most: int, seed: int) -> None:
    """Interrupt runs until enough signals came before the end; keep the figures after each run.

    The first moment of a run is drawn over the length of an undisturbed one, the others over a third of it, since less
    is left to do.
    """
    chance = random.Random(seed)
    reference, again = folder / "undisturbed", folder / "again"
    reference.mkdir(parents=True)
    again.mkdir()
    length = min(undisturbed(reference), undisturbed(again))
    assert different(again, reference) == []
    ended: list[Ended] = []
    unequal: list[str] = []
    runs = same = 0
    while len(ended) < signals:
        place = folder / f"run-{runs}"
        place.mkdir()
        for attempt in range(most):
            after_s = chance.uniform(0, length if attempt == 0 else length / 3)
            found = interrupt(place, NUMBERS[len(ended) % len(NUMBERS)], after_s)
            if found is None:
                break
            ended.append(found)
            for problem in found.wrong:
                print(f"seed {seed}, run {runs}, {found.number.name} after {after_s:.2f} s: {problem}", flush=True)
        if not (place / "run" / "results.json").is_file():
            undisturbed(place, ("resume", "run") if (place / "run" / "run.json").is_file() else FIRST)
        others = different(place, reference)
        unequal += [f"run {runs}: {name}" for name in others]
        runs, same = runs + 1, same + (not others)
        shutil.rmtree(place)
        if ended:
            keep(output, "a whole run", shown(ended, runs, same) | {"seed": seed, "different": unequal})


def shown(ended: Sequence[Ended], runs: int, same: int) -> dict[str, object]:
    """Return the figures of interrupted runs."""
    took = sorted(found.took_s for found in ended)
    return {
        "signals": len(ended),
        "exit_codes": dict(collections.Counter(str(found.code) for found in ended)),
        "kept_every_promise": proportion([float(not found.wrong) for found in ended]).as_dict(),
        "runs_with_identical_artifacts_and_results": proportion([1.0] * same + [0.0] * (runs - same)).as_dict(),
        "from_signal_to_end_s": {
            "median": statistics.median(took),
            "p95": took[-(-95 * len(took) // 100) - 1],
            "most": took[-1],
        },
    }


def keep(output: Path, part: str, found: dict[str, object]) -> None:
    """Put figures into a file, beside what stands there."""
    results = json.loads(output.read_text()) if output.exists() else {}
    write_json(output, results | {part: found})


def starts(folder: Path, *, count: int, within_s: float, seed: int) -> dict[str, object]:
    """Interrupt new interpreters within their first moments."""
    chance = random.Random(seed)
    codes: collections.Counter[str] = collections.Counter()
    last_killed = 0.0
    tracebacks = 0
    for number in range(count):
        place = folder / f"start-{number}"
        place.mkdir(parents=True)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        started = time.monotonic()
        after_s = chance.uniform(0, within_s)
        process = subprocess.Popen(
            (sys.executable, "-m", "rlhf", *FIRST), cwd=place, env=environment, stderr=subprocess.PIPE, text=True
        )
        time.sleep(max(0.0, after_s - (time.monotonic() - started)))
        process.send_signal(NUMBERS[number % len(NUMBERS)])
        _, stderr = process.communicate(timeout=120)
        codes[str(process.returncode)] += 1
        tracebacks += process.returncode == 75 and "Traceback" in stderr
        if process.returncode != 75:
            last_killed = max(last_killed, after_s)
        shutil.rmtree(place)
    return {
        "seed": seed,
        "starts": count,
        "within_s": within_s,
        "exit_codes": dict(codes),
        "tracebacks_with_75": tracebacks,
        "last_moment_not_75_s": last_killed,
    }


def main() -> None:
    """Measure, and put the figures into signal_moments.json, beside what stands there."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--signals", type=int, default=200)
    options.add_argument("--most", type=int, default=8, help="signals to one run, at most")
    options.add_argument("--starts", type=int, default=60)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--output", type=Path, default=Path(__file__).with_name("signal_moments.json"))
    given = options.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background begins with it ignored
    with tempfile.TemporaryDirectory(prefix="signals-") as name:
        folder = Path(name)
        if given.starts:
            half = given.starts // 2
            early = starts(folder / "early", count=half, within_s=0.1, seed=given.seed)
            keep(given.output, "the first 0.1 s", early)
            keep(given.output, "the first 8 s", starts(folder / "late", count=half, within_s=8.0, seed=given.seed + 1))
        if given.signals:
            whole_runs(folder, given.output, signals=given.signals, most=given.most, seed=given.seed)
    print(given.output.read_text())


if __name__ == "__main__":
    main()
