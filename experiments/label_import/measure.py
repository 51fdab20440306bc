"""How fast a large file of preferences is imported, and in how much memory: rows per second and peak, as JSON.

Usage: python experiments/label_import/measure.py FOLDER [--megabytes 300]
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

WORDS = ("the", "of", "model", "answer", "question", "people", "time", "world", "good", "help", "because", "there")


def generate(path: Path, megabytes: int, seed: int = 0) -> int:
    """Write a JSON-lines file of simple comparisons of about 450 bytes each; return the number of rows."""
    chance = random.Random(seed)
    rows = 0
    with path.open("w") as file:
        while file.tell() < megabytes * 1e6:
            prompt, a, b = (" ".join(chance.choices(WORDS, k=words)) for words in (12, 25, 25))
            row = {"prompt": f"{rows} {prompt}", "response_a": a, "response_b": b}
            label = {"label": chance.choice(["a", "b", "tie"]), "annotator": f"worker {rows % 50}"}
            file.write(json.dumps({**row, **label}) + "\n")
            rows += 1
    return rows


def measure(path: Path, database: Path) -> dict[str, object]:
    """Import a file in this process, which does nothing else."""
    from rlhf.labels.importing.imports import import_file
    from rlhf.labels.store import LabelStore

    store = LabelStore(f"sqlite:///{database}", create=True)
    wall, cpu = time.perf_counter(), time.process_time()
    report = import_file(store, "default", path)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "rows": report.rows_in,
        "comparisons": report.comparisons,
        "duplicates": report.duplicates,
        "wall_s": round(wall, 1),
        "cpu_s": round(cpu, 1),
        "rows_per_wall_s": round(report.rows_in / wall),
        "rows_per_cpu_s": round(report.rows_in / cpu),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "load_average": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    """Generate the file, import it twice in processes of their own, print and write `import.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--megabytes", type=int, default=300)
    parser.add_argument("--once", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    database = given.folder / "labels.sqlite"
    if given.once:
        print(json.dumps(measure(given.once, database)))
        return
    given.folder.mkdir(parents=True, exist_ok=True)
    path = given.folder / "labels.jsonl"
    database.unlink(missing_ok=True)
    rows = generate(path, given.megabytes)
    command = [sys.executable, __file__, str(given.folder), "--once", str(path)]
    runs = [json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout) for _ in range(2)]
    found = {
        "file_bytes": path.stat().st_size,
        "rows": rows,
        "database_bytes": database.stat().st_size,
        "first": runs[0],
        "again": runs[1],
    }
    text = json.dumps(found, indent=2)
    (given.folder / "import.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
