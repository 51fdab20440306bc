from pathlib import Path

from made_runs import group, make_run

from rlhf.runs.samples import questions


def sampled(folder: Path, answers: dict[str, str], seed: int = 0) -> Path:
    rows = [
        {"prompt": prompt, "sft": f"sft {seed}", "policy": answer, "sft_reward": 0.5, "policy_reward": 1.5}
        for prompt, answer in answers.items()
    ]
    return make_run(folder, seed=seed, reports={"evaluation": {"samples": rows}})


def test_prompts_that_most_groups_answered_come_first(tmp_path: Path):
    a = group([make_run(tmp_path / "no", seed=0), sampled(tmp_path / "a", {"p": "a p", "q": "a q"}, 1)], "A")
    b = group([sampled(tmp_path / "b", {"q": "b q", "r": "b r"})], "B")
    c = group([make_run(tmp_path / "c")], "C")
    found = questions([a, b, c], prompts=2, models=5)
    assert [question.prompt for question in found] == ["q", "p"]
    assert [(x.letter, x.seed, x.text, x.reward, x.gold) for x in found[0].answers] == [
        ("", 1, "sft 1", 0.5, None),
        ("A", 1, "a q", 1.5, None),
        ("B", 0, "b q", 1.5, None),
    ]
    assert [x.letter for x in found[1].answers] == ["", "A"]
    assert [x.letter for x in questions([a, b, c], prompts=1, models=1)[0].answers] == ["", "A"]
    assert questions([c], prompts=2, models=2) == []
