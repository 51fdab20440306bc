"""A study on a real SQLite file, and on PostgreSQL."""

from collections.abc import Sequence
from pathlib import Path

import optuna
import pytest

from rlhf.search.config import Pruner, Sampler, SearchConfig
from rlhf.search.front import front
from rlhf.search.space import Axis, Scale
from rlhf.search.study import Study, Suggestion, Tried, tell_on_the_way
from sft.core.errors import StorageError, UsageError

AXES = [Axis("a", Scale.REAL, 0.001, 1.0, None, True), Axis("b", Scale.CHOICE, choices=("x", "y"))]
ABOUT = {"experiment": "e", "axes": ["a", "b"], "settings": "1"}


def opened(url: str, *, about: dict[str, object] = ABOUT, axes: Sequence[Axis] = AXES, **config: object) -> Study:
    return Study.open("s", url, SearchConfig(**config), axes, searched=about, seed=3)


def value(suggestion: Suggestion) -> float:
    a = float(suggestion.words[0].removeprefix("a="))
    return -abs(a - 0.1) - (suggestion.words[1] == "b=x")


def go_on(study: Study, count: int) -> None:
    for _ in range(count):
        (suggestion,) = study.ask(1)
        study.tell(suggestion, [value(suggestion)], {"objectives": {"win_rate": {"value": value(suggestion)}}})


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'study.sqlite'}"


def test_a_study_has_as_many_trials_as_asked(url: str):
    study = opened(url, trials=4)
    go_on(study, 3)
    assert [s.number for s in study.ask(5)] == [3]
    assert study.ask(5) == []
    assert [tried.state for tried in study.tried()] == ["complete"] * 3 + ["running"]


def test_what_was_given_back_is_tried_again_at_its_place_first(url: str):
    study = opened(url, trials=4)
    go_on(study, 1)
    (lost,) = study.ask(1)
    study.give_back([lost])
    (again,) = study.ask(1)
    assert again.number == 2
    assert (again.place, again.words) == (lost.place, lost.words)
    study.tell(again, [1.0], {})
    assert [(tried.place, tried.state) for tried in study.tried()] == [(0, "complete"), (1, "complete")]
    (fresh,) = study.ask(1)
    assert fresh.place == 3


def test_interruptions_change_no_suggestion(tmp_path: Path):
    calm = opened(f"sqlite:///{tmp_path / 'calm'}", trials=14, startup_trials=4)
    go_on(calm, 14)
    broken_url = f"sqlite:///{tmp_path / 'broken'}"
    for _ in range(14):
        study = opened(broken_url, trials=14, startup_trials=4)
        study.give_back(study.ask(1))
        go_on(study, 1)
    broken = opened(broken_url, trials=14, startup_trials=4)
    assert broken.ask(1) == []
    assert [tried.settings for tried in broken.tried()] == [tried.settings for tried in calm.tried()]


def test_a_trial_of_a_process_that_is_gone_is_taken_back(url: str, monkeypatch: pytest.MonkeyPatch):
    study = opened(url, trials=2)
    (lost,) = study.ask(1)
    assert opened(url, trials=2).ask(2)[0].words != lost.words, "its process lives"
    monkeypatch.setattr("rlhf.search.study._is_gone", lambda process: True)
    after = opened(url, trials=2)
    assert after.ask(1)[0].words == lost.words


def test_settings_that_fail_are_not_tried_again(url: str):
    study = opened(url, trials=2)
    (bad,) = study.ask(1)
    study.fail(bad, "no number")
    go_on(study, 1)
    assert study.ask(1) == []
    assert [(tried.state, tried.error) for tried in study.tried()] == [("failed", "no number"), ("complete", None)]


def test_enqueued_settings_come_first_and_once(url: str):
    for _ in range(2):
        opened(url, trials=3).enqueue({"a": 0.5, "b": "y"})
    study = opened(url, trials=3)
    (first,) = study.ask(1)
    assert first.words == ("a=0.5", "b=y")
    study.tell(first, [1.0], {})
    opened(url, trials=3).enqueue({"a": 0.5, "b": "y"})
    assert opened(url, trials=3).ask(1)[0].words != first.words


def test_a_study_about_something_else_is_refused(url: str):
    opened(url)
    with pytest.raises(UsageError, match=r"searches something else \(settings differ\)"):
        opened(url, about=ABOUT | {"settings": "2"})


def test_a_file_that_is_no_database_is_named(tmp_path: Path):
    (tmp_path / "study.sqlite").write_text("no database at all, and long enough to be told apart from an empty one")
    with pytest.raises(StorageError, match=r"study\.sqlite.*search\.storage"):
        opened(f"sqlite:///{tmp_path / 'study.sqlite'}")


def test_two_processes_share_a_study_on_postgresql(postgresql_url: str):
    one, other = opened(postgresql_url, trials=4), opened(postgresql_url, trials=4)
    (a,), (b,) = one.ask(1), other.ask(1)
    assert a.number != b.number
    one.tell(a, [value(a)], {})
    other.tell(b, [value(b)], {})
    go_on(one, 1)
    go_on(other, 1)
    assert one.ask(1) == other.ask(1) == []
    assert one.tried() == other.tried()


def test_the_median_prunes_what_does_worse_than_others(url: str):
    config = {"trials": 6, "startup_trials": 3, "pruner": Pruner.MEDIAN}
    study = opened(url, **config)

    def on_the_way(suggestion: Suggestion, *looks: float) -> list[str | None]:
        of_trial = SearchConfig(**config, study="s", storage=url, trial=suggestion.number)
        return [tell_on_the_way(of_trial, look, step) for step, look in enumerate(looks)]

    for final in (0.5, 0.6, 0.7):
        (good,) = study.ask(1)
        assert on_the_way(good, 0.1, final) == [None, None]
        study.tell(good, [final], {})
    (bad,) = study.ask(1)
    first, second = on_the_way(bad, 0.2, 0.3)
    assert first is None
    assert second is not None
    assert "worse than the median" in second
    study.tell(bad, None, {"pruned": second})
    assert study.tried()[-1].state == "pruned"


def test_a_trial_that_is_tried_again_keeps_its_looks(url: str):
    study = opened(url, trials=2)
    (lost,) = study.ask(1)
    tell_on_the_way(SearchConfig(study="s", storage=url, trial=lost.number), 0.4, 1)
    study.give_back([lost])
    (again,) = study.ask(1)
    tell_on_the_way(SearchConfig(study="s", storage=url, trial=again.number), 0.9, 1)
    trials = optuna.load_study(study_name="s", storage=url).trials
    assert trials[again.number].intermediate_values == {1: 0.4}


@pytest.mark.parametrize("sampler", list(Sampler))
def test_every_sampler_suggests_within_the_axes(url: str, sampler: Sampler):
    axes = [
        *AXES,
        Axis("c", Scale.STEPS, 2, 8, 2),
        Axis("d", Scale.STEPS, 0.5, 2.0, 0.5),
        Axis("e", Scale.STEPS, 1, 9, 1, True),
    ]
    study = opened(url, axes=axes, trials=8, startup_trials=3, sampler=sampler, objectives=["win_rate", "kl"])
    for _ in range(8):
        (suggestion,) = study.ask(1)
        settings = dict(word.split("=") for word in suggestion.words)
        assert 0.001 <= float(settings["a"]) <= 1
        assert settings["b"] in "xy"
        assert settings["c"] in ("2", "4", "6", "8")
        assert settings["d"] in ("0.5", "1.0", "1.5", "2.0")
        assert settings["e"] in tuple("123456789")
        study.tell(suggestion, [float(settings["a"]), float(settings["c"])], {})


def test_the_front_holds_what_nothing_beats():
    def tried(place: int, *values: float) -> Tried:
        return Tried(place, {}, "complete" if values else "pruned", values, {}, None)

    points = [(0.5, 3.0), (0.6, 3.0), (0.5, 1.0), (0.4, 2.0), (), (0.6, 3.0)]
    trials = [tried(place, *values) for place, values in enumerate(points)]
    assert [t.place for t in front(trials, ["win_rate", "kl"])] == [1, 2, 5]
    single = [tried(0, 2.0), tried(1, 1.0), tried(2, 1.0)]
    assert [t.place for t in front(single, ["sft_loss"])] == [1, 2]
    assert front([], ["kl"]) == []
