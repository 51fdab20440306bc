"""The whole line on a micro world: what is cached, what is registered, what results.json promises."""

import json
import shutil
from pathlib import Path

import pytest
from micro import run
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from rlhf.pipeline import name_policy
from rlhf.registry import Registry, Verdict
from rlhf.runs.compare import compare
from rlhf.runs.duels import Duel
from rlhf.runs.folder import find_runs, resolve
from rlhf.runs.lock import only_writer
from rlhf.runs.record import State
from rlhf.stages.evaluation import passes_evaluation
from sft.core.durable import broken_files
from sft.core.errors import DataError, StorageError, UsageError
from sft.core.ledger import read_ledger

STAGES = ["sft", "labels", "reward", "ppo", "evaluation", "bias"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("pipeline")
    return folder, run(folder)


def cached(results: dict) -> list[bool]:
    return [stage["cached"] for stage in results["stages"]]


def test_results_hold_what_the_contract_names(finished: tuple[Path, dict]) -> None:
    folder, results = finished
    written = json.loads((folder / "run" / "results.json").read_text())
    assert written == results
    assert [stage["name"] for stage in written["stages"]] == STAGES
    for stage in written["stages"]:
        assert set(stage) == {"name", "artifact", "fingerprint", "cached", "seconds", "train_steps", "metrics"}
        assert stage["cached"] is False
    steps = {stage["name"]: stage["train_steps"] for stage in written["stages"]}
    assert steps["sft"] > 0
    assert steps["reward"] > 0
    assert steps["ppo"] == 3 * 2 * 4  # iterations x epochs x minibatches
    labels = next(stage for stage in written["stages"] if stage["name"] == "labels")["metrics"]
    assert labels["rows_in"] == labels["judgements"] + labels["quarantined"] + labels["duplicates"]
    assert labels["annotators"] == 8
    accuracy = written["evaluation"]["reward_model_accuracy"]
    assert {"value", "ci", "n", "ceiling", "longer_wins", "longer_wins_ci"} <= set(accuracy)
    for name in ("win_rate", "kl", "sft_perplexity", "policy_perplexity", "policy_length", "policy_repetition"):
        estimate = written["evaluation"][name]
        assert estimate["ci"][0] <= estimate["value"] <= estimate["ci"][1]
        assert estimate["n"] > 0
    assert set(written["registry"]) == {"sft", "reward", "policy"}
    for check in written["bias"]["checks"]:
        assert {"name", "group", "effect", "ci", "n", "limit", "passed"} <= set(check)
    ppo = next(stage for stage in written["stages"] if stage["name"] == "ppo")["metrics"]
    assert ppo["first_ratio_deviation"] < 1e-5


def test_every_model_loads_with_transformers_alone(finished: tuple[Path, dict]) -> None:
    registry = Registry(finished[0] / "registry", create=False)
    for name, kind in (
        ("base", AutoModelForCausalLM),
        ("sft", AutoModelForCausalLM),
        ("policy", AutoModelForCausalLM),
        ("reward", AutoModelForSequenceClassification),
        ("critic", AutoModelForSequenceClassification),
    ):
        folder = registry.get(name).path
        kind.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert tokenizer.pad_token_id != tokenizer.eos_token_id
        assert not list(folder.rglob("*.bin"))
        assert not list(folder.rglob("*.pt"))
    assert (registry.get("reward").path / "calibration.json").is_file()


def test_lineage_leads_from_the_policy_to_the_labels(finished: tuple[Path, dict]) -> None:
    registry = Registry(finished[0] / "registry", create=False)
    edges = {(e.child_ref, e.parent_ref) for e in registry.lineage("policy").ancestors}
    assert {
        ("policy:1", "sft:1"),
        ("policy:1", "reward:1"),
        ("reward:1", "sft:1"),
        ("reward:1", "comparisons:1"),
        ("comparisons:1", "labels:1"),
        ("sft:1", "base:1"),
    } <= edges
    for artifact in registry.artifacts():
        assert broken_files(artifact.path) == []
    assert not any((finished[0] / "registry" / ".work").iterdir())


def test_the_ledger_holds_every_stage(finished: tuple[Path, dict]) -> None:
    rows = read_ledger(finished[0] / "run" / "metrics.jsonl")
    assert {entry.stage for entry in rows.entries} == set(STAGES)
    assert rows.broken == 0


def test_the_run_tells_of_itself_and_compares(finished: tuple[Path, dict]) -> None:
    folder, results = finished
    run(folder, "ppo.kl_coef=0.31", name="changed")
    found = find_runs([folder])
    names = {made.path.name: made for made in found.runs}
    record = names["run"].record
    assert (record.state, record.run_id, record.config_sha256) == (
        State.FINISHED,
        results["run_id"],
        results["config_sha256"],
    )
    assert [stage.name for stage in record.stages] == STAGES
    assert [stage.artifact for stage in record.stages] == [stage["artifact"] for stage in results["stages"]]
    assert [stage.cached for stage in names["changed"].record.stages] == [True, True, True, False, False, False]
    comparison = compare(resolve([str(folder / "run"), str(folder / "changed")], []))
    assert comparison.sorted.fields == ("ppo.kl_coef",)
    assert [len(course.lines) for course in comparison.courses["gold reward"]] == [1, 1]
    own_sft = comparison.duels.cells[0].found
    assert isinstance(own_sft, Duel)
    assert own_sft.prompts == 10
    assert 0 <= own_sft.low <= own_sft.share <= own_sft.high <= 1
    assert len(comparison.questions[0].answers) == 3


def test_a_second_run_in_a_folder_that_is_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with only_writer(tmp_path / "run"), pytest.raises(UsageError, match="is being written"):
        run(tmp_path)
    assert not (tmp_path / "registry").exists()


def test_a_failed_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="absent"):
        run(tmp_path, "sft.from=absent:7")
    (failed,) = find_runs([tmp_path]).runs
    assert (failed.record.state, (failed.record.error or "").split(":")[0]) == (State.FAILED, "UsageError")


def test_the_same_command_again_computes_nothing(finished: tuple[Path, dict]) -> None:
    again = run(finished[0], name="again")
    assert cached(again) == [True] * 6
    assert [stage["train_steps"] for stage in again["stages"]] == [0] * 6
    assert again["evaluation"] == finished[1]["evaluation"]
    assert again["bias"] == finished[1]["bias"]
    assert again["alias"] == finished[1]["alias"]
    assert (finished[0] / "again" / "report.html").stat().st_size > 10_000


def test_a_changed_ppo_value_retrains_ppo_and_what_follows(finished: tuple[Path, dict]) -> None:
    changed = run(finished[0], "ppo.kl_coef=0.3", name="retrained")
    assert cached(changed) == [True, True, True, False, False, False]
    assert changed["registry"]["policy"] != finished[1]["registry"]["policy"]
    assert changed["registry"]["sft"] == finished[1]["registry"]["sft"]


def test_one_flipped_bit_in_registered_weights_stops_the_next_run(finished: tuple[Path, dict], tmp_path: Path) -> None:
    """The policy would else be trained on it, and registered."""
    shutil.copytree(finished[0] / "registry", tmp_path / "registry")
    registry = Registry(tmp_path / "registry")
    weights = registry.get("sft:1").path / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    before = registry.artifacts()
    with pytest.raises(StorageError, match=rf"sft:1 is damaged: {weights}: changed since it was registered"):
        run(tmp_path, "ppo.kl_coef=0.4")
    assert registry.artifacts() == before


def test_changed_evaluation_and_labels_keep_what_does_not_depend_on_them(finished: tuple[Path, dict]) -> None:
    assert cached(run(finished[0], "evaluation.prompts=9", name="fewer")) == [True] * 4 + [False, True]
    biased = run(finished[0], "simulation.planted_bias=1.0", name="biased")
    assert cached(biased) == [True, False, False, False, False, False]


def test_a_changed_seed_retrains_all(finished: tuple[Path, dict]) -> None:
    assert cached(run(finished[0], "seed=1", name="seed")) == [False] * 6


def test_the_same_command_on_a_new_registry_gives_the_same_bits(finished: tuple[Path, dict], tmp_path: Path) -> None:
    second = run(tmp_path)
    first_registry, second_registry = Registry(finished[0] / "registry"), Registry(tmp_path / "registry")
    for name in ("base", "sft", "labels", "comparisons", "reward", "critic"):
        assert first_registry.get(f"{name}:1").sha256 == second_registry.get(f"{name}:1").sha256, name
    assert second["evaluation"] == finished[1]["evaluation"]
    assert second["bias"] == finished[1]["bias"]


def test_given_models_take_the_place_of_stages(finished: tuple[Path, dict], tmp_path: Path) -> None:
    folder, results = finished
    given = run(folder, "sft.from=sft:1", f"reward.from={folder / 'registry' / 'reward' / '1'}", name="given")
    stages = {stage["name"]: stage for stage in given["stages"]}
    assert stages["sft"]["artifact"] == "sft:1"
    assert stages["sft"]["train_steps"] == stages["reward"]["train_steps"] == 0
    adopted = Registry(folder / "registry").get(given["registry"]["reward"])
    assert adopted.version > 1  # a folder is copied into the registry, so that the lineage stays whole
    assert adopted.parents == ()
    accuracy = given["evaluation"]["reward_model_accuracy"]
    assert accuracy == results["evaluation"]["reward_model_accuracy"]


HH_ROW = "\n\nHuman: {question}\n\nAssistant: {answer}"


def write_hh(path: Path, *, broken: int) -> None:
    rows = [
        {
            "chosen": HH_ROW.format(question=f"how do I fix thing {i}?", answer=f"Use the right tool for {i}."),
            "rejected": HH_ROW.format(question=f"how do I fix thing {i}?", answer=f"I will not say {i}."),
        }
        for i in range(100)
    ]
    lines = [json.dumps(row) for row in rows] + ['{"chosen": "\\n\\nHuman: hi'] * broken
    path.write_text("\n".join(lines) + "\n")


HH = [
    "data=hh",
    "reward.judge_fraction=0.4",
    "data.validation_fraction=0.15",
    "data.test_fraction=0.3",
    "bias=gender",
    "bias.probes=30",
]


def test_real_preferences_run_the_same_line_with_a_judge(tmp_path: Path) -> None:
    write_hh(tmp_path / "hh.jsonl", broken=3)
    results = run(tmp_path, *HH, f"data.path={tmp_path / 'hh.jsonl'}")
    labels = results["stages"][1]["metrics"]
    assert (labels["rows_in"], labels["comparisons"], labels["quarantined"], labels["duplicates"]) == (103, 100, 3, 0)
    assert results["evaluation"]["judge"] == "held-out reward model"
    assert results["evaluation"]["reward_model_accuracy"]["ceiling"] is None
    assert "bag_of_words" in results["evaluation"]["reward_model_accuracy"]
    assert results["bias"]["passed"] is False  # no answer names anybody: nothing could be checked
    assert results["alias"] == "candidate"
    quarantine = (tmp_path / "registry" / "labels" / "1" / "quarantine.jsonl").read_text().splitlines()
    assert [json.loads(line)["line"] for line in quarantine] == [101, 102, 103]


def test_too_many_broken_rows_stop_the_run(tmp_path: Path) -> None:
    write_hh(tmp_path / "hh.jsonl", broken=30)
    with pytest.raises(DataError, match=r"30 of 130 rows .* labels\.max_quarantine_fraction=0\.05") as caught:
        run(tmp_path, *HH, f"data.path={tmp_path / 'hh.jsonl'}")
    assert caught.value.exit_code == 1
    assert (tmp_path / "run" / "quarantine.jsonl").is_file()


def test_own_demonstrations_and_prompts(tmp_path: Path) -> None:
    write_hh(tmp_path / "hh.jsonl", broken=0)
    demonstrations = [{"prompt": f"say {i}", "completion": f"here is {i} for you"} for i in range(80)]
    (tmp_path / "sft.jsonl").write_text("".join(json.dumps(row) + "\n" for row in demonstrations))
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"ask {i}"}) + "\n" for i in range(60)))
    paths = [f"data.path={tmp_path / 'hh.jsonl'}", f"data.sft_path={tmp_path / 'sft.jsonl'}"]
    results = run(tmp_path, *HH, *paths, f"data.prompts_path={tmp_path / 'prompts.jsonl'}")
    sft = results["stages"][0]["metrics"]
    assert sft["examples"] + sft["validation_examples"] < 80  # the rest is the test split
    stage = json.loads((tmp_path / "registry" / "evaluation" / "1" / "stage.json").read_text())
    assert all("ask" in sample["prompt"] for sample in stage["samples"])


def test_the_gate_asks_for_the_low_end_of_the_interval() -> None:
    measured = {"win_rate": {"value": 0.8, "ci": [0.49, 0.9], "n": 10}}
    assert not passes_evaluation(measured, 0.5)
    assert passes_evaluation(measured, 0.48)


def test_the_gate_asks_for_a_judge_who_knows_better_than_a_coin() -> None:
    measured = {"win_rate": {"value": 0.8, "ci": [0.7, 0.9], "n": 10}}
    assert not passes_evaluation(measured | {"judge_accuracy": {"value": 0.55, "ci": [0.49, 0.6], "n": 286}}, 0.5)
    assert passes_evaluation(measured | {"judge_accuracy": {"value": 0.6, "ci": [0.55, 0.65], "n": 286}}, 0.5)


def test_an_alias_moves_forward_only(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    policies = []
    for number in range(2):
        with registry.workspace(f"f{number}") as folder:
            (folder / "weights").write_text(str(number))
            policies.append(
                registry.register(
                    folder, name="policy", kind="policy", fingerprint=f"f{number}", metadata={}, parents=[]
                )
            )
    passed = [Verdict("evaluation:1", "evaluation", True), Verdict("bias:1", "bias", True)]
    failed = [passed[0], Verdict("bias:2", "bias", False)]
    assert name_policy(registry, policies[0], passed, computed=True, asked_by="a") == "champion"
    assert name_policy(registry, policies[1], passed, computed=True, asked_by="b") == "champion"
    assert name_policy(registry, policies[0], passed, computed=False, asked_by="c") == "champion"  # the older, cached
    assert registry.get("policy@champion").version == 2
    assert name_policy(registry, policies[1], failed, computed=True, asked_by="d") == "candidate"  # a stricter gate
    assert registry.get("policy:2").aliases == ("candidate",)
    assert [(kept.ref, kept.alias, kept.asked_by) for kept in registry.promotions()] == [
        ("policy:1", "champion", "a"),
        ("policy:2", "champion", "b"),
        ("policy:2", "candidate", "d"),
    ]
    registry.promote(policies[1], "champion", asked_by="ann", reason="demo")
    name_policy(registry, policies[1], failed, computed=False, asked_by="e")
    assert registry.get("policy@champion").version == 2, "a cached run takes back what somebody forced"
