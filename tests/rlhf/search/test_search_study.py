"""A study on a real SQLite file, and on PostgreSQL."""

import gc
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import optuna
import pytest

from rlhf.search import study as study_module
from rlhf.search.config import Pruner, Sampler, SearchConfig
from rlhf.search.database import GRACE_S
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


def test_processes_that_open_a_new_study_at_once_all_have_it(url: str):
    together = threading.Barrier(6)

    def open_it(_: int) -> int:
        together.wait()
        return len(opened(url).tried())

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(open_it, range(6))) == [0] * 6


def test_processes_that_ask_at_once_try_different_settings(url: str, monkeypatch: pytest.MonkeyPatch):
    one, other = (opened(url, sampler=Sampler.RANDOM) for _ in range(2))
    asked: list[Suggestion] = []
    sampler = study_module._sampler

    def in_between(config: SearchConfig, seed: int) -> optuna.samplers.BaseSampler:
        monkeypatch.setattr(study_module, "_sampler", sampler)
        asked.extend(other.ask(1))
        return sampler(config, seed)

    monkeypatch.setattr(study_module, "_sampler", in_between)
    asked += one.ask(1)
    assert len({suggestion.words for suggestion in asked}) == 2


def test_two_processes_take_a_trial_back_once(url: str, monkeypatch: pytest.MonkeyPatch):
    (lost,) = opened(url).ask(1)

    def in_between(process: object) -> bool:
        monkeypatch.setattr(study_module, "_is_gone", lambda process: True)
        opened(url).ask(0)
        return True

    monkeypatch.setattr(study_module, "_is_gone", in_between)
    study = opened(url)
    words = [suggestion.words for suggestion in study.ask(2)]
    assert words[0] == lost.words != words[1]


def test_a_trial_that_was_taken_over_counts_as_the_other_process_found_it(url: str, caplog: pytest.LogCaptureFixture):
    slow, other = opened(url, trials=2), opened(url, trials=2)
    (lost,) = slow.ask(1)
    other.give_back([lost])
    (again,) = other.ask(1)
    assert tell_on_the_way(SearchConfig(study="s", storage=url, trial=lost.number), 0.4, 1) is None
    slow.tell(lost, [0.1], {})
    slow.fail(lost, "no number")
    assert caplog.text.count("another process tries its settings again") == 2
    other.tell(again, [0.7], {})
    assert [(tried.state, tried.values) for tried in slow.tried()] == [("complete", (0.7,))]


def test_a_worker_of_another_machine_that_dies_in_its_first_seconds_loses_its_trial(url: str):
    (lost,) = opened(url).ask(1)
    study = opened(url)
    study.storage.grace_period = -1
    assert study.ask(1)[0].words == lost.words


class OneMinuteLater(datetime):
    """A clock that goes ahead."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:
        return datetime.now(tz) + timedelta(seconds=GRACE_S + 1)


def test_settings_of_a_process_killed_while_it_took_them_are_tried_again(url: str, monkeypatch: pytest.MonkeyPatch):
    study = opened(url)
    study.enqueue({"a": 0.5, "b": "y"})
    study.study.ask()
    assert opened(url).ask(1)[0].words != ("a=0.5", "b=y"), "it may be about to say who it is"
    monkeypatch.setattr(study_module, "datetime", OneMinuteLater)
    assert opened(url).ask(1)[0].words == ("a=0.5", "b=y")


def test_processes_of_other_machines_are_not_taken_for_dead():
    process = study_module._this_process()
    assert not study_module._is_gone(process)
    gone = [*process[:2], process[2], 1]
    assert study_module._is_gone(gone)
    assert not study_module._is_gone(["elsewhere", *gone[1:]]), "a container shares its host's boot, not its processes"
    assert not study_module._is_gone(gone[1:]), "as studies of before have it"


def test_steps_are_the_numbers_that_people_write(url: str):
    study = opened(url, axes=[Axis("a", Scale.STEPS, 0.8, 0.95, 0.05)], sampler=Sampler.RANDOM)
    words = {suggestion.words for suggestion in study.ask(20)}
    assert words == {("a=0.8",), ("a=0.85",), ("a=0.9",), ("a=0.95",)}
    assert {tried.settings["a"] for tried in study.tried()} == {0.8, 0.85, 0.9, 0.95}


def test_looks_on_the_way_leave_no_connection_open(url: str, tmp_path: Path):
    (suggestion,) = opened(url).ask(1)
    config = SearchConfig(study="s", storage=url, trial=suggestion.number)

    def descriptors() -> int:
        links = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
        return links.count(str(tmp_path / "study.sqlite"))

    before = descriptors()
    gc.disable()
    try:
        for step in range(5):
            tell_on_the_way(config, 0.5, step)
        assert descriptors() == before
    finally:
        gc.enable()


def test_a_database_that_refuses_later_is_named_too(url: str, tmp_path: Path):
    study = opened(url)
    (suggestion,) = study.ask(1)
    (tmp_path / "study.sqlite").write_text("no database at all, and long enough to be told apart from an empty one")
    for refused in (
        lambda: study.tell(suggestion, [1.0], {}),
        lambda: study.fail(suggestion, "no number"),
        lambda: study.enqueue({"a": 0.5, "b": "y"}),
        study.tried,
    ):
        with pytest.raises(StorageError, match=r"search\.storage"):
            refused()
