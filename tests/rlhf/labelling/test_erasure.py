from pathlib import Path

import pytest
from labels_and_registry import NAME, ROWS, TEXT, Place, place_in
from sqlalchemy import select

from rlhf.labelling.datasets import register_export, training_dataset
from rlhf.labelling.erasure import erase_annotator
from rlhf.labelling.traces import Affected
from rlhf.labels.events import EventKind
from rlhf.labels.exporting.export import ExportRequest
from rlhf.labels.exporting.export_rows import ExportFormat
from rlhf.labels.tables import ANNOTATOR, EVENT
from rlhf.registry import Artifact, Registry
from sft.core.durable import broken_files, folder_digest
from sft.core.errors import DataError, UsageError


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return place_in(tmp_path)


def export(place: Place, format: ExportFormat = ExportFormat.CSV, project: str = "p") -> Artifact:
    return register_export(place.store, place.registry, ExportRequest(project, format)).dataset


def train(place: Place, dataset: Artifact) -> None:
    """Register what the pipeline makes of a dataset version."""
    comparisons = place.make("comparisons", labels=dataset)
    sft = place.make("sft")
    reward = place.make("reward", sft=sft, comparisons=comparisons)
    judge = place.make("judge", sft=sft, comparisons=comparisons)
    critic = place.make("critic", reward=reward)
    policy = place.make("policy", sft=sft, reward=reward, critic=critic)
    place.make("evaluation", policy=policy, judge=judge)


def add_text(place: Place) -> None:
    """Let the person skip a task and say why."""
    with place.store.changing("p") as (connection, project):
        person = connection.scalar(select(ANNOTATOR.c.id).where(ANNOTATOR.c.name == NAME))
        values = {"task_id": 2, "annotator_id": person, "kind": EventKind.SKIP, "reason": TEXT}
        connection.execute(EVENT.insert().values(**values, project_id=project.id, row_digest=b"d" * 32, row_part=0))


def test_everything_made_from_the_labels_is_listed(place):
    used, unused = export(place), export_without(place)
    train(place, used)
    train(place, unused)
    found = erase_annotator(place.store, place.registry, "p", NAME)
    assert found.affected == Affected(
        datasets=["labels-p:1", "comparisons:1"],
        reward_models=["reward:1", "judge:1"],
        policies=["policy:1"],
        others=["critic:1", "evaluation:1"],
        same_files={},
    )
    assert (found.erased.labels, found.erased.exports, found.unregistered) == (1, [used.sha256], [])
    shown = found.as_dict()
    assert (shown["reward_models"], shown["policies"]) == (["reward:1", "judge:1"], ["policy:1"])
    again, train_again, rows = found.next
    assert again.endswith("rlhf labels export --project p")
    assert train_again.startswith("train again on that version (rlhf run data=files data.labels=NAME)")
    assert f"still hold the rows of {found.erased.pseudonym}" in rows


def export_without(place: Place) -> Artifact:
    """Return a version of another project, in which the person has no label."""
    place.add(ROWS[1], project="q")
    return export(place, project="q")


@pytest.mark.parametrize("format", list(ExportFormat))
def test_versions_of_every_format_are_found_marked_and_left_as_they_are(place, format):
    dataset = export(place, format)
    before = folder_digest(dataset.path)
    erased = erase_annotator(place.store, place.registry, "p", NAME).erased
    assert folder_digest(dataset.path) == before
    assert broken_files(dataset.path) == []
    mark = place.registry.get("erasure")
    assert [parent.ref for parent in mark.parents] == [dataset.ref]
    assert (mark.metadata["annotator"], mark.metadata["dataset"]) == (erased.pseudonym, dataset.ref)
    assert (place.registry.get("erasure").version, broken_files(mark.path)) == (1, [])


def test_no_trace_of_the_person_is_left_in_the_database_and_in_new_exports(place, tmp_path):
    add_text(place)
    old = export(place, ExportFormat.EVENTS)
    assert TEXT.encode() in (old.path / "events.jsonl").read_bytes()
    found = erase_annotator(place.store, place.registry, "p", NAME)
    assert (found.erased.labels, found.erased.texts) == (1, 1)
    content = (tmp_path / "labels.sqlite").read_bytes()
    assert [word for word in (NAME, TEXT) if word.encode() in content] == []
    for format in ExportFormat:
        made = register_export(place.store, place.registry, ExportRequest("p", format), output=tmp_path / format)
        assert made.is_new
        for folder in (made.dataset.path, tmp_path / format):
            for path in (path for path in folder.rglob("*") if path.is_file()):
                content = path.read_bytes()
                assert not any(word.encode() in content for word in (NAME, TEXT, found.erased.pseudonym)), path
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*ExportFormat, "labels.sqlite", "registry"])


def test_nobody_trains_on_a_version_of_the_erased_any_more(place):
    old = export(place)
    assert training_dataset(place.registry, old.ref) == old
    erase_annotator(place.store, place.registry, "p", NAME)
    with pytest.raises(DataError, match="labels-p:1 holds labels of a person who has been erased; run `rlhf labels"):
        training_dataset(place.registry, "labels-p")
    new = export(place)
    assert training_dataset(place.registry, "labels-p").ref == new.ref == "labels-p:2"


def test_a_second_erasure_lists_all_again_and_removes_nothing(place):
    train(place, export(place))
    place.add(ROWS[0], project="q")
    first = erase_annotator(place.store, place.registry, "p", NAME)
    again = erase_annotator(place.store, place.registry, "p", NAME)
    assert again.affected == first.affected
    assert (again.erased.pseudonym, again.erased.labels, again.erased.also_in) == (first.erased.pseudonym, 0, ["q"])
    assert first.erased.also_in == ["q"]
    assert len(place.registry.artifacts("erasure")) == 1
    assert again.next[-1] == "other projects know the same name: run this with --project q"


def test_two_people_of_one_version(place):
    export(place)
    for name in (NAME, "Bo"):
        assert erase_annotator(place.store, place.registry, "p", name).affected.datasets == ["labels-p:1"]
    assert len(place.registry.artifacts("erasure")) == 2


def test_exports_that_the_registry_does_not_hold_are_named(place, tmp_path):
    used = export(place)
    other = Registry(tmp_path / "other")
    found = erase_annotator(place.store, other, "p", NAME)
    assert (found.affected, found.unregistered) == (Affected([], [], [], [], {}), [used.sha256])
    assert "does not hold the exports listed as unregistered: delete their folders" in found.next[1]
    right = erase_annotator(place.store, place.registry, "p", NAME)
    assert right.affected.datasets == ["labels-p:1"]
    with pytest.raises(DataError, match="has been erased"):
        training_dataset(place.registry, "labels-p")


def test_without_a_registry_and_without_exports(place):
    found = erase_annotator(place.store, None, "p", NAME)
    assert (found.affected, found.unregistered, found.next) == (Affected([], [], [], [], {}), [], [])
    with pytest.raises(UsageError, match="project 'p' knows no annotator 'Nobody'"):
        erase_annotator(place.store, None, "p", "Nobody")
    with pytest.raises(UsageError, match="there is no project 'r'"):
        erase_annotator(place.store, None, "r", NAME)
