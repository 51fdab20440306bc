from pathlib import Path

from made_runs import group, make_run, stage

from rlhf.runs.costs import cost, phases


def test_work_that_was_found_done_is_not_counted(tmp_path: Path):
    first = make_run(tmp_path / "a", stages=[stage("sft", seconds=3600.0), stage("ppo", seconds=1800.0)], processes=2)
    second = make_run(
        tmp_path / "b",
        seed=1,
        stages=[stage("sft", seconds=9.0, cached=True, train_steps=0), stage("ppo", seconds=5400.0, train_steps=50)],
    )
    found = cost(group([first, second], "B"))
    sft, ppo = found.stages
    assert (sft.computed, sft.reused, sft.seconds, sft.process_hours, sft.train_steps) == (1, 1, 3600.0, 2.0, 100)
    assert (ppo.computed, ppo.reused, ppo.seconds, ppo.process_hours, ppo.train_steps) == (2, 0, 3600.0, 2.5, 150)
    assert (found.letter, found.process_hours) == ("B", 4.5)


def test_a_stage_that_nobody_computed_has_no_time(tmp_path: Path):
    found = cost(group([make_run(tmp_path, stages=[stage("sft", cached=True)])]))
    assert (found.stages[0].seconds, found.process_hours) == (None, 0.0)


def test_phases_of_ppo_are_summed_from_the_ledger(tmp_path: Path):
    lines = [("ppo", step, {"time/generate_s": 2.0, "time/train_s": 5.0}) for step in (1, 2)]
    a = make_run(tmp_path / "a", ledger=[*lines, ("sft", 1, {"time/train_s": 99.0})])
    b = make_run(tmp_path / "b", seed=1, ledger=lines[:1])
    c = make_run(tmp_path / "c", seed=2)
    assert phases(group([a, b, c])) == [("sampling", 3.0, 2), ("training", 7.5, 2)]
