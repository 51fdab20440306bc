from pathlib import Path

from made_runs import make_run, read

from rlhf.runs.groups import flatten, group_runs
from rlhf.runs.record import State


def test_runs_that_differ_in_the_seed_alone_are_one_group(tmp_path: Path):
    plan = [(0.1, 1), (0.2, 0), (0.1, 0), (0.2, 1)]
    runs = []
    for place, (kl_coef, seed) in enumerate(plan):
        config = {
            "ppo": {"kl_coef": kl_coef, "lam": 0.95},
            "registry": {"root": f"r{place}"},
            "wandb": {"mode": place},
            "resume": {"allow": [place]},
            "bias": {"groups": {}},
        }
        runs.append(read(make_run(tmp_path / str(place), seed=seed, config=config)))
    found = group_runs(runs)
    assert found.fields == ("ppo.kl_coef",)
    assert [(g.letter, g.label, [run.record.seed for run in g.runs]) for g in found.groups] == [
        ("A", "ppo.kl_coef=0.1", [0, 1]),
        ("B", "ppo.kl_coef=0.2", [0, 1]),
    ]
    assert found.repeats == ()


def test_a_repeated_run_counts_once_and_a_finished_one_stands_for_it(tmp_path: Path):
    finished = make_run(tmp_path / "1", started="2026-11-21T10:00")
    make_run(tmp_path / "2", started="2026-11-21T11:00", state=State.FAILED)
    newer = make_run(tmp_path / "3", started="2026-11-21T12:00")
    runs = [read(tmp_path / name) for name in ("1", "2")]
    first = group_runs(runs)
    assert [run.path for run in first.groups[0].runs] == [finished]
    assert [run.path.name for run in first.repeats] == ["2"]
    for order in ([*runs, read(newer)], [read(newer), *runs]):
        again = group_runs(order)
        assert [run.path for run in again.groups[0].runs] == [newer]
        assert len(again.repeats) == 2


def test_a_trial_never_stands_for_a_run_of_the_same_settings(tmp_path: Path):
    """It saw validation data alone, and is finished like any other."""
    trial = make_run(tmp_path / "0", config={"p": 1, "search": {"trial": 3, "study": "s"}})
    later = make_run(tmp_path / "1", config={"p": 1, "search": {"trial": None, "study": None}})
    found = group_runs([read(trial), read(later)])
    assert found.repeats == ()
    assert [group.label for group in found.groups] == ["measured on=validation data", "measured on=test data"]


def test_fields_that_one_side_lacks_differ(tmp_path: Path):
    runs = [
        read(make_run(tmp_path / "a", config={"bias": {"groups": {"men": ["he"]}}, "p": None})),
        read(make_run(tmp_path / "b", config={"bias": {"groups": {"women": ["she"]}}, "p": "x" * 99})),
    ]
    a, b = group_runs(runs).groups
    assert a.settings == {"bias.groups.men": '["he"]', "p": "null", "bias.groups.women": "null"}
    assert b.settings["p"] == "x" * 59 + "…"


def test_letters_go_on_behind_z(tmp_path: Path):
    made = read(make_run(tmp_path / "a"))
    runs = []
    for place in range(29):
        record = type(made.record)(**{**vars(made.record), "config": {"x": place}})
        runs.append(type(made)(tmp_path / str(place), record))
    letters = [group.letter for group in group_runs(runs).groups]
    assert letters[:2] + letters[25:] == ["A", "B", "Z", "AA", "AB", "AC"]


def test_flatten():
    assert flatten({"a": {"b": {"c": 1}, "d": {}}, "e": [1]}) == {"a.b.c": 1, "a.d": {}, "e": [1]}
