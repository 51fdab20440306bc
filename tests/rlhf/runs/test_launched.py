from pathlib import Path

import pytest

from rlhf.launch import launch
from rlhf.runs.launched import asked_of_hydra
from rlhf.runs.record import Asked


def asked(words: list[str]) -> list[Asked]:
    seen: list[Asked] = []

    def task(config: object, name: str, folder: Path, overrides: list[str]) -> dict[str, object]:
        seen.append(asked_of_hydra(overrides))
        return {}

    launch(words, task)
    return seen


def test_words_choices_and_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (one,) = asked(["experiment=quickstart", "seed=3"])
    assert (one.overrides, one.sweep) == (("experiment=quickstart", "seed=3"), None)
    assert (one.choices["experiment"], one.choices["model"]) == ("quickstart", "tiny")
    assert None not in one.choices.values()
    first, second = asked(["-m", "seed=0,1", "hydra.sweep.dir=many"])
    assert (first.sweep, second.sweep) == ("many", "many")
    assert (first.overrides, second.overrides) == (("seed=0",), ("seed=1",))
