import shutil
from pathlib import Path

import pytest
from made_runs import change, estimate, make_run, read

from rlhf.runs.folder import find_runs, resolve
from rlhf.runs.record import RUN_FILE
from sft.core.errors import DataError, UsageError


def ids(found) -> list[str]:
    return [run.record.run_id for run in found.runs]


def test_runs_are_found_at_any_depth_once_and_in_the_order_of_their_start(tmp_path: Path):
    make_run(tmp_path / "outputs" / "day" / "late", started="2026-11-21T12:00")
    make_run(tmp_path / "sweep" / "3", started="2026-11-21T11:00")
    make_run(tmp_path / "sweep" / ".hidden", started="2026-11-21T09:00")
    make_run(tmp_path / "sweep" / "3" / "wandb" / "inner", started="2026-11-21T08:00")
    around = tmp_path / "outputs" / ".." / "sweep"
    found = find_runs([tmp_path / "outputs", tmp_path / "sweep", around, tmp_path, tmp_path / "absent"])
    assert ids(found) == ["made-3", "made-late"]
    assert (found.unreadable, found.older) == ([], 0)


def test_what_cannot_be_read_is_counted_and_named(tmp_path: Path):
    make_run(tmp_path / "good")
    make_run(tmp_path / "torn")
    (tmp_path / "torn" / RUN_FILE).write_text('{"state": "fin')
    (tmp_path / "older").mkdir()
    (tmp_path / "older" / "results.json").write_text("{}")
    found = find_runs([tmp_path])
    assert (ids(found), found.older) == (["made-good"], 1)
    assert str(tmp_path / "torn" / RUN_FILE) in found.unreadable[0]


def test_results_and_reports_of_an_earlier_attempt_do_not_count(tmp_path: Path):
    make_run(tmp_path, numbers={"kl": estimate(1.0)}, reports={"ppo": {"iterations": [1]}})
    assert read(tmp_path).results["run_id"] == "made-" + tmp_path.name
    assert read(tmp_path).ppo == {"iterations": [1]}
    make_run(tmp_path, run_id="second")
    assert read(tmp_path).results == {}
    assert read(tmp_path).ppo == {}


def test_a_damaged_results_file_is_an_error_with_its_name(tmp_path: Path):
    make_run(tmp_path, numbers={})
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(DataError, match=r"results\.json cannot be read"):
        _ = read(tmp_path).results


def test_words_name_runs_by_folder_sweep_and_id(tmp_path: Path):
    for name in ("a", "b"):
        make_run(tmp_path / "sweep" / name)
    make_run(tmp_path / "outputs" / "one", run_id="quick-1")
    make_run(tmp_path / "outputs" / "two", run_id="quick-12")
    where = [tmp_path / "outputs"]
    assert ids(resolve([str(tmp_path / "sweep")], where)) == ["made-a", "made-b"]
    assert ids(resolve(["quick-12", str(tmp_path / "sweep" / "b"), "quick-12"], where)) == ["quick-12", "made-b"]
    assert ids(resolve(["quick-1"], where)) == ["quick-1"]  # a whole id wins over the beginning of another
    with pytest.raises(UsageError, match="beginning of 2 run ids: quick-1, quick-12"):
        resolve(["quick"], where)
    with pytest.raises(UsageError, match=r"no run in .* has an id that starts so"):
        resolve(["slow"], where)


def test_a_folder_without_runs_says_what_is_there(tmp_path: Path):
    with pytest.raises(UsageError, match="holds no run"):
        resolve([str(tmp_path)], [])
    make_run(tmp_path / "torn")
    change(tmp_path / "torn" / RUN_FILE, seed=None)
    with pytest.raises(UsageError, match=r"no run in .* can be read"):
        resolve([str(tmp_path)], [])
    shutil.rmtree(tmp_path / "torn")
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(UsageError, match="older program"):
        resolve([str(tmp_path)], [])
