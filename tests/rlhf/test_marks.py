"""What the lines of a sweep's point begin with."""

from collections.abc import Callable
from pathlib import Path

import pytest
from micro import MICRO

from rlhf import pipeline
from rlhf.marks import mark
from rlhf.preflight import check
from rlhf.registry import Registry
from rlhf.runs.record import Asked
from sft.core.errors import UsageError


@pytest.mark.parametrize(
    ("words", "folder", "expected"),
    [
        (["ppo.kl_coef=0.3", "seed=1"], "2", "#2 kl_coef=0.3,seed=1"),
        (["ppo.kl_coef=0.123456789", "search.trial=3"], "002", "#2 kl_coef=0.1235"),
        (["ppo.learning_rate=1.23456789e-05"], "0", "#0 learning_rate=1.235e-05"),
        (["sft.learning_rate=0.1", "ppo.learning_rate=0.2"], "0", "#0 sft.learning_rate=0.1,ppo.learning_rate=0.2"),
        (["experiment=quickstart"], "1", "#1 quickstart"),
        (["seed=1"], "seed=1", "seed=1"),
        (["+bias.groups.x=[a.b=1,c]", "ppo.lam=0.9"], "0", "#0 x=[a.b=1,c],lam=0.9"),
    ],
)
def test_a_point_is_marked_by_its_folder_and_what_it_alone_has(words: list[str], folder: str, expected: str):
    asked = Asked(overrides=tuple(words), sweep="nowhere")
    assert mark(asked, "quickstart", Path("multirun") / folder) == expected


def test_a_run_alone_has_no_mark():
    assert mark(Asked(overrides=("seed=1",)), "quickstart", Path("outputs/2")) == ""


def test_a_mark_is_short():
    asked = Asked(overrides=("model.path=" + "x" * 200,), sweep="nowhere")
    assert len(mark(asked, "quickstart", Path("3"))) == 60


def test_what_the_registry_says_of_waiting_is_marked_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def busy(root: Path, *, url: str | None, announce: Callable[[str], None]) -> Registry:
        announce("another process is making it")
        raise UsageError("enough")

    monkeypatch.setattr(pipeline, "Registry", busy)
    (point,) = check([*MICRO, f"registry.root={tmp_path / 'registry'}"])
    asked = Asked(overrides=("seed=1",), sweep="nowhere")
    with pytest.raises(UsageError, match="enough"):
        pipeline.run_experiment(point.config, experiment="quickstart", out_dir=tmp_path / "2", asked=asked)
    assert capsys.readouterr().err == "#2 seed=1 · another process is making it\n"
