"""Processes that train together, forked from the test: libraries are imported once."""

import multiprocessing
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

from sft.core.distributed import Peers, World


def start(size: int, folder: Path, work: Callable[[Peers], None], *, timeout_s: float = 60) -> list[BaseProcess]:
    """Start `size` processes that meet in a new file below `folder` and do `work`; rank r writes rank-r.txt there."""
    import torch
    from torch.distributed import FileStore

    store = folder / f"store-{len(list(folder.glob('store-*')))}"

    def run(rank: int) -> None:
        torch.set_num_threads(1)  # threads of the test's process do not live on in a fork: work for them would hang
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        sys.stdout = sys.stderr = (folder / f"rank-{rank}.txt").open("w", buffering=1)
        work(Peers(World(rank, size, rank), FileStore(str(store), size), timeout=timedelta(seconds=timeout_s)))

    context = multiprocessing.get_context("fork")
    processes: list[BaseProcess] = [context.Process(target=run, args=(rank,)) for rank in range(size)]
    for process in processes:
        process.start()
    return processes


def wait(processes: list[BaseProcess], *, seconds: float = 60) -> list[int | None]:
    """Return the exit codes; what still runs after the time is killed and has None."""
    codes = []
    for process in processes:
        process.join(seconds)
        codes.append(process.exitcode)
        if process.exitcode is None:
            process.kill()
            process.join()
    return codes


def told(folder: Path) -> str:
    """Return what the last processes printed."""
    return "\n".join(path.read_text() for path in sorted(folder.glob("rank-*.txt")))


def run_ranks(size: int, folder: Path, work: Callable[[Peers], None]) -> None:
    """Run `work` in `size` processes and insist that all succeed."""
    codes = wait(start(size, folder, work))
    assert codes == [0] * size, f"exit codes {codes}\n{told(folder)}"
