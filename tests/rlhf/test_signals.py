"""Signals at random moments of whole runs; 200 of them in experiments/crash_safety/signal_moments.py."""

import random
from pathlib import Path

import pytest
from signalled import AGAIN, FIRST, NUMBERS, Ended, different, interrupt, undisturbed

SEED = 3


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    undisturbed(folder)
    return folder


def test_a_run_that_is_interrupted_again_and_again_gives_what_one_that_was_not_gives(reference: Path, tmp_path: Path):
    chance = random.Random(SEED)
    ended: list[Ended] = []
    while len(ended) < 9:
        found = interrupt(tmp_path, NUMBERS[len(ended) % len(NUMBERS)], chance.uniform(0.0, 1.0))
        if found is None:
            break
        ended.append(found)
    told = [(found.number.name, found.after_s, found.code, found.wrong) for found in ended if found.wrong]
    assert told == [], f"seed {SEED}"
    assert len(ended) >= 5
    undisturbed(tmp_path, AGAIN if (tmp_path / "run" / "run.json").is_file() else FIRST)  # stopped before it began
    assert different(tmp_path, reference) == []
