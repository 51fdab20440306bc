"""Stage `labels`, from a file and from a registered export, without the stages around it."""

import json
from pathlib import Path
from typing import TypeVar

import pytest
from labels_and_registry import NAME, ROWS, Place, place_in

from rlhf.labelling.datasets import register_export
from rlhf.labelling.erasure import erase_annotator
from rlhf.labels.exporting.export import ExportRequest
from rlhf.labels.exporting.export_rows import ExportFormat
from rlhf.preflight import check
from rlhf.registry import Registry
from rlhf.run import Done, Run
from rlhf.sources import Sources
from rlhf.stages.labels import run_labels
from sft.core.errors import ConfigError, DataError, UsageError
from sft.core.text import user
from sft.core.tracking import RunTracker
from sft.split import Splits

T = TypeVar("T")
WORDS = ("data=files", "reward.judge_fraction=0.3", "wandb=disabled")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return place_in(tmp_path)


def export(place: Place, format: ExportFormat = ExportFormat.CSV) -> str:
    return register_export(place.store, place.registry, ExportRequest("p", format)).dataset.ref


def run_in(folder: Path, *words: str) -> Run:
    """Return a run of these words, its registry and its files in `folder`."""
    (point,) = check([*WORDS, f"registry.root={folder / 'registry'}", *words])
    tracker = RunTracker(
        folder / "run",
        run_id="r",
        experiment="e",
        mode=point.config.wandb.mode,
        project="p",
        entity=None,
        config={},
        tags=[],
        log_samples=False,
    )
    sources = Sources(point.config, folder / "run")
    return Run(point.config, Registry(folder / "registry"), tracker, sources)


def labels_of(folder: Path, *words: str) -> tuple[Run, Done]:
    (folder / "run").mkdir(exist_ok=True)
    run = run_in(folder, *words)
    with run.tracker:
        return run, run_labels(run)[0]


def comparisons(done: Done) -> list[dict[str, object]]:
    return [json.loads(line) for line in (done.path / "comparisons.jsonl").read_text().splitlines()]


def every(splits: Splits[T]) -> list[T]:
    return [*splits.train, *splits.validation, *splits.test]


def test_a_registered_export_is_the_parent_of_the_comparisons(place, tmp_path):
    ref = export(place)
    run, done = labels_of(tmp_path, f"data.labels={ref}")
    assert [(parent.role, parent.ref) for parent in done.artifact.parents] == [("labels", ref)]
    assert {artifact.name for artifact in place.registry.artifacts()} == {"labels-p", "comparisons"}
    (first, second) = comparisons(done)
    assert (first["prompt"][0]["content"], first["chosen"][0]["content"]) == ("p1", "x")
    assert (first["votes_chosen"], first["votes_rejected"], len(first["annotators"])) == (2, 1, 3)
    assert second["rejected"][0]["content"] == "x"
    metrics = done.stage["metrics"]
    assert (metrics["rows_in"], metrics["judgements"], metrics["ties"], metrics["undecided"]) == (5, 5, 1, 1)
    assert (metrics["quarantined"], metrics["duplicates"], metrics["annotators"]) == (0, 0, 3)
    assert NAME.encode() not in (done.path / "comparisons.jsonl").read_bytes()
    assert run.stages["labels"].artifact == "comparisons:1"
    policy = place.make("policy", reward=place.make("reward", comparisons=done.artifact))
    chain = next(iter(place.registry.lineage(policy.ref).chains()))
    assert chain == (ref, "comparisons:1", "reward:1", "policy:1")
    assert place.registry.get(chain[0]).metadata["event_ids"] == [[1, 5]]


def test_the_same_version_is_not_read_twice_and_a_new_one_is(place, tmp_path):
    export(place)
    labels_of(tmp_path, "data.labels=labels-p")
    assert labels_of(tmp_path, "data.labels=labels-p:1")[1].cached
    place.add({**ROWS[3], "label": "a"})
    export(place)
    _, done = labels_of(tmp_path, "data.labels=labels-p")
    assert (done.cached, done.artifact.ref) == (False, "comparisons:2")
    assert comparisons(done)[1]["chosen"][0]["content"] == "x"


def test_all_else_comes_from_the_labels_too_where_no_file_is_given(place, tmp_path):
    export(place)
    sources = run_in(tmp_path, "data.labels=labels-p").sources
    examples = every(sources.demonstrations)
    assert {(example.prompt, example.answer) for example in examples} == {(user("p1"), "x"), (user("p2"), "y")}
    prompts = every(sources.prompts)
    assert set(prompts) == {user("p1"), user("p2"), user("=p3")}
    own = tmp_path / "sft.jsonl"
    own.write_text('{"prompt": "q", "completion": "z"}\n')
    sources = run_in(tmp_path, "data.labels=labels-p", f"data.sft_path={own}").sources
    assert [example.answer for example in every(sources.demonstrations)] == ["z"]


def test_what_cannot_be_trained_on_stops_the_run_before_any_stage(place, tmp_path):
    with pytest.raises(UsageError, match="nothing is registered as 'labels-p'"):
        run_in(tmp_path, "data.labels=labels-p")
    export(place, ExportFormat.EVENTS)
    with pytest.raises(UsageError, match="labels-p:1 was exported as events"):
        run_in(tmp_path, "data.labels=labels-p")
    export(place)
    run_in(tmp_path, "data.labels=labels-p")
    erase_annotator(place.store, place.registry, "p", NAME)
    with pytest.raises(DataError, match="labels-p:2 holds labels of a person who has been erased"):
        run_in(tmp_path, "data.labels=labels-p:2")


def problems(*words: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        check(["reward.judge_fraction=0.3", *words])
    return {problem.field: f"{problem.rule}; {problem.remedy}" for problem in caught.value.problems}


@pytest.mark.parametrize("ref", ["Labels", "a:0", "a@", "a:1@b", "../x"])
def test_a_reference_that_is_written_wrongly(ref):
    found = problems("data=files", f"data.labels='{ref}'")
    assert list(found) == ["data.labels"]
    assert "is not written as a registered artifact (NAME, NAME:VERSION, NAME@ALIAS); see" in found["data.labels"]


def test_what_goes_with_registered_labels_and_what_does_not(tmp_path):
    file = tmp_path / "file.jsonl"
    file.write_text("{}\n")
    both = problems("data=files", "data.labels=a:1", f"data.comparisons_path={file}")
    assert both == {
        "data.labels": "takes the place of data.comparisons_path, and both are given; leave one of the two out"
    }
    simulated = problems("data.labels=a@b")
    assert simulated == {"data.labels": "is not read with data.source=simulated; add data=files"}
    known = "is not read: data.labels names an export, whose format is known; use data=files and no data.format"
    assert problems("data=hh", "data.labels=a") == {"data.format": known}
    check(["data=hh", "data.labels=a", f"data.sft_path={file}", "reward.judge_fraction=0.3"])
    assert "or data.labels" in problems("data=files")["data.path"]


def test_the_agreement_of_a_file(tmp_path):
    """Krippendorff 2011, section A: two observers, ten units, binary values; alpha = 1 - 19 * 4 / (14 * 6)."""
    meg, owen = "0100000010", "1110010000"
    rows = [
        {"prompt": f"unit {unit}", "response_a": "x", "response_b": "y", "label": "ab"[int(value)], "annotator": who}
        for who, values in (("meg", meg), ("owen", owen))
        for unit, value in enumerate(values)
    ]
    file = tmp_path / "file.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {**rows[0], "prompt": "judged once"}]))
    _, done = labels_of(tmp_path, f"data.path={file}")
    alpha = done.stage["metrics"]["krippendorff_alpha"]
    assert alpha["value"] == pytest.approx(1 - 19 * 4 / (14 * 6), abs=1e-12)
    assert alpha["n"] == 10
    assert -0.8 < alpha["ci"][0] < alpha["value"] < alpha["ci"][1] < 1
    assert done.stage["agreement"] == alpha
    assert [parent.ref for parent in done.artifact.parents] == ["labels:1"]


def test_no_agreement_where_nothing_was_judged_twice(tmp_path):
    file = tmp_path / "file.jsonl"
    file.write_text(json.dumps({"response_a": "x", "response_b": "y", **ROWS[3]}) + "\n")
    assert labels_of(tmp_path, f"data.path={file}")[1].stage["agreement"] is None
