"""What is left of a sweep in several processes whose first process is killed or interrupted: a census."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from joblib.externals.loky import get_reusable_executor

from rlhf.config import ExperimentConfig
from rlhf.launch import launch
from sft.core.interruption import stop_at_signals
from sft.core.process import stat

SWEEP = ["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "seed=0,1", "hydra.sweep.dir=sweep"]


def wait_for_the_end(config: ExperimentConfig, name: str, folder: Path, overrides: list[str]) -> dict[str, object]:
    """Compute for ten minutes, unless something ends that; then close what is open."""
    (folder / "begun").touch()
    try:
        time.sleep(600)
    finally:
        (folder / "closed").touch()
    return {}


def sweep(folder: Path) -> None:
    os.setsid()  # all that it starts is of one session
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # the workers find this module there
    os.dup2(os.open("output", os.O_WRONLY | os.O_CREAT), 2)
    stop_at_signals()
    launch(SWEEP, wait_for_the_end)


def census(session: int) -> list[int]:
    """Return the processes of a session that run."""
    numbers = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    found = []
    for number in numbers:
        known = stat(number)
        if known is not None and known.state not in "ZX" and _session(number) == session:
            found.append(number)
    return found


def _session(number: int) -> int | None:
    try:
        return os.getsid(number)
    except ProcessLookupError:
        return None


def until(done, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(done())


@pytest.mark.parametrize(
    "sent",
    [[signal.SIGKILL], [signal.SIGTERM], [signal.SIGINT, signal.SIGINT]],
    ids=["killed", "told to end", "Ctrl-C twice"],
)
def test_no_process_outlives_the_first_one_of_a_sweep(tmp_path: Path, sent: list[signal.Signals]):
    get_reusable_executor().shutdown()  # the child would take over what another test's joblib has left
    first = multiprocessing.get_context("fork").Process(target=sweep, args=(tmp_path,))
    first.start()
    assert first.pid is not None
    session = first.pid
    assert until(lambda: len(list(tmp_path.glob("sweep/*/begun"))) == 2, 60), (tmp_path / "output").read_text()
    assert len(census(session)) >= 3
    for number in sent:
        os.kill(session, number)
    try:
        assert until(lambda: not census(session), 30), f"left: {census(session)}"
        if sent == [signal.SIGKILL]:
            assert len(list(tmp_path.glob("sweep/*/closed"))) == 2
    finally:
        for number in census(session):
            os.kill(number, signal.SIGKILL)
        first.join()
    assert first.exitcode != 0
