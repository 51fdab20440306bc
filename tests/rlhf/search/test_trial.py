"""A trial in the real pipeline: validation data alone, no alias, ended early without a trace."""

import json
from pathlib import Path

import pytest
from micro import MICRO, run

from rlhf import preflight
from rlhf.registry import Registry
from rlhf.search import study
from rlhf.sources import Sources
from sft.core.durable import text_digest
from sft.core.errors import DataError
from sft.core.text import prompt_key

TRIAL = ["search.trial=0", "reward.judge_fraction=0.3"]
ALL = "search.objectives=[sft_loss,reward_accuracy,win_rate,held_out_reward,kl,worst_bias]"


def sources(folder: Path, *words: str) -> Sources:
    (point,) = preflight.check([*MICRO, f"registry.root={folder / 'registry'}", *words])
    return Sources(point.config, folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("trial")
    return folder, run(folder, *TRIAL, ALL, name="trial")


def test_every_objective_is_measured(finished: tuple[Path, dict]):
    folder, results = finished
    assert json.loads((folder / "trial" / "results.json").read_text()) == results
    assert results["state"] == "complete"
    assert list(results["objectives"]) == [
        "sft_loss",
        "reward_accuracy",
        "win_rate",
        "held_out_reward",
        "kl",
        "worst_bias",
    ]
    for name, found in results["objectives"].items():
        assert name == "sft_loss" or found["ci"][0] <= found["value"] <= found["ci"][1]
    assert results["gold"]["n"] == results["objectives"]["win_rate"]["n"]
    assert json.loads((folder / "trial" / "run.json").read_text())["state"] == "finished"


def test_the_judge_is_a_held_out_model_and_the_prompts_are_validation_prompts(finished: tuple[Path, dict]):
    folder, _ = finished
    report = json.loads((folder / "trial" / "stages" / "evaluation.json").read_text())
    assert report["scores"]["judge"] == "held-out reward model"
    prompts = sources(folder).prompts
    digests = {text_digest(prompt_key(prompt))[:16] for prompt in prompts.validation}
    assert set(report["scores"]["prompts"]) <= digests
    assert digests.isdisjoint(text_digest(prompt_key(prompt))[:16] for prompt in prompts.test)


def test_a_trial_that_asks_for_test_data_is_stopped(tmp_path: Path):
    of_trial = sources(tmp_path, *TRIAL)
    for splits in (of_trial.prompts, of_trial.demonstrations):
        with pytest.raises(DataError, match="sealed"):
            _ = splits.test
    assert {prompt_key(prompt) for prompt, _, _ in of_trial.probe_pairs} <= {
        prompt_key(prompt) for prompt in of_trial.prompts.validation
    }


def test_a_trial_promotes_nothing_and_a_run_of_its_settings_trains_nothing(finished: tuple[Path, dict]):
    folder, _ = finished
    registry = Registry(folder / "registry", create=False)
    policy = registry.get("policy")
    assert not policy.aliases
    kinds = {artifact.kind for artifact in registry.artifacts()}
    assert {"validation-evaluation", "validation-bias"} <= kinds
    assert kinds.isdisjoint({"evaluation", "bias"})
    results = run(folder, "reward.judge_fraction=0.3", name="after")
    assert {stage["name"]: stage["train_steps"] for stage in results["stages"]} == dict.fromkeys(
        ("sft", "labels", "reward", "ppo", "evaluation", "bias"), 0
    )
    assert registry.get("policy").aliases == {results["alias"]} or results["alias"] in registry.get("policy").aliases


def test_a_trial_goes_as_far_as_its_objectives(tmp_path: Path):
    first = run(tmp_path, *TRIAL, "search.objectives=[sft_loss]", name="first")
    assert [stage["name"] for stage in first["stages"]] == ["sft"]
    assert first["gold"] is None
    words = ["search.objectives=[reward_accuracy,sft_loss]", "search.trial=7"]
    second = run(tmp_path, *TRIAL, *words, name="002")
    assert [stage["name"] for stage in second["stages"]] == ["sft", "labels", "reward"]
    assert (first["trial"], second["trial"]) == (0, 2), "a trial that is tried again keeps the number of its folder"


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["search.objectives=[win_rate]", "ppo.eval_steps=1"], "policy"),
        (["search.objectives=[sft_loss]"], "sft"),
        (["search.objectives=[reward_accuracy]"], "reward"),
    ],
)
def test_a_pruned_trial_leaves_nothing_of_what_it_trained(
    words: list[str], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    heard = []

    def stop(config: object, value: float, step: int) -> str:
        heard.append((step, value))
        return "worse than others"

    monkeypatch.setattr(study, "tell_on_the_way", stop)
    results = run(tmp_path, *TRIAL, *words, "search.study=s", "search.storage=sqlite:///unused", name="pruned")
    assert results["state"] == "pruned"
    assert results["pruned"] == "pruned: worse than others"
    assert results["objectives"] == {}
    assert len(heard) == 1
    assert json.loads((tmp_path / "pruned" / "run.json").read_text())["state"] == "pruned"
    registry = Registry(tmp_path / "registry", create=False)
    assert kind not in {artifact.kind for artifact in registry.artifacts()}
    assert list((tmp_path / "registry" / ".work").iterdir()) == []
