from pathlib import Path

from rlhf.launch import launch
from rlhf.runs.launched import asked_of_hydra
from rlhf.runs.naming import about, group, label, revision_tags
from rlhf.runs.record import Asked
from rlhf.runs.revision import Revision


def test_a_name_is_the_overrides_that_say_what_the_run_does():
    words = ("experiment=quickstart", "ppo.kl_coef=0.2", "+hub.token=abc", "wandb=offline", "registry.root=x", "seed=3")
    assert label(Asked(words), "quickstart") == "ppo.kl_coef=0.2,+hub.token=[redacted],seed=3"
    assert label(Asked(("experiment=quickstart", "~wandb", "hydra.run.dir=x")), "quickstart") == "quickstart"
    assert label(Asked(), "default") == "default"
    long = label(Asked(tuple(f"part{number}.value=1" for number in range(50))), "x")
    assert (len(long), long[-1]) == (100, "…")


def test_points_of_a_sweep_are_named_by_what_they_do_not_share(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen: list[Asked] = []

    def task(config: object, name: str, folder: Path, overrides: list[str]) -> dict[str, object]:
        seen.append(asked_of_hydra(overrides))
        return {}

    sweep = f"hydra.sweep.dir={tmp_path}/multirun/day/time"
    launch(["-m", "experiment=quickstart", "sft.num_train_epochs=2", "seed=0,1", "ppo.kl_coef=0.1,0.2", sweep], task)
    names = [label(asked, "quickstart") for asked in seen]
    assert names == [f"seed={seed},ppo.kl_coef={coef}" for seed in (0, 1) for coef in (0.1, 0.2)]
    assert {group(asked, "quickstart") for asked in seen} == {"quickstart/day/time"}
    assert group(Asked(), "quickstart") is None


def test_a_sweep_whose_own_words_are_lost_is_named_by_all_words(tmp_path: Path):
    asked = Asked(("experiment=x", "seed=1", "ppo.kl_coef=0.1"), {}, str(tmp_path))
    assert label(asked, "x") == "seed=1,ppo.kl_coef=0.1"
    (tmp_path / "multirun.yaml").write_text("{broken: [")
    assert label(asked, "x") == "seed=1,ppo.kl_coef=0.1"


def test_tags_and_configuration():
    assert revision_tags(Revision("a" * 40, True)) == ["git:aaaaaaaaaaaa", "git:dirty"]
    assert revision_tags(Revision("a" * 40, False)) == ["git:aaaaaaaaaaaa"]
    assert revision_tags(Revision(None, None)) == []
    assert about(Asked(("seed=1",), {"model": "tiny"}, "many"), "r") == {
        "run_id": "r",
        "hydra": {"overrides": ["seed=1"], "choices": {"model": "tiny"}, "sweep": "many"},
    }
