from pathlib import Path

import pytest
from labels_and_registry import ROWS
from published import SECRET, Published, publish

from rlhf.labelling.erasure import erase_annotator
from rlhf.labels.store import LabelStore, pseudonym
from rlhf.publishing.export import export_model
from rlhf.publishing.importing import import_model
from rlhf.publishing.used_by import Holding, used_by
from sft.core.errors import UsageError

ALL_MADE = {
    "reward_models": ["reward:1"],
    "policies": ["policy:1"],
    "others": ["reward-report:1", "evaluation:1", "bias:1"],
}


def test_by_name_in_exports(published: Published):
    found = used_by(published.place.registry, published.place.store, SECRET)
    (known,) = found.pseudonyms
    assert known in published.dataset.metadata["annotators"]
    assert found.holdings == [Holding("labels-p:1", 1)]
    made = found.affected._asdict()
    assert made.pop("datasets") == ["labels-p:1", "comparisons:1"]
    assert made == {**ALL_MADE, "same_files": {}}
    assert used_by(published.place.registry, published.place.store, SECRET, "p") == found
    assert SECRET not in str(found.as_dict())


def test_by_pseudonym_without_a_database(published: Published):
    for name in published.dataset.metadata["annotators"]:
        assert used_by(published.place.registry, None, name).holdings[0].ref == "labels-p:1"


def test_by_name_in_labels_of_a_file(published: Published):
    found = used_by(published.place.registry, published.place.store, "Ottokar")
    assert (found.pseudonyms, found.holdings) == ([], [Holding("labels:1", 2)])
    made = found.affected._asdict()
    assert made.pop("datasets") == ["labels:1", "comparisons:1"]
    assert made == {**ALL_MADE, "same_files": {}}
    with pytest.raises(UsageError, match="of project 'p'"):
        used_by(published.place.registry, published.place.store, "Ottokar", "p")


def test_the_same_versions_as_an_erasure_lists(tmp_path: Path, sft_folder: Path, reward_folder: Path):
    own = publish(tmp_path, sft_folder, reward_folder)
    before = used_by(own.place.registry, own.place.store, SECRET)
    erased = erase_annotator(own.place.store, own.place.registry, "p", SECRET)
    assert before.affected == erased.affected
    assert used_by(own.place.registry, own.place.store, SECRET).affected == erased.affected, "the pseudonym stays"


def test_one_project_or_all(tmp_path: Path, sft_folder: Path, reward_folder: Path):
    own = publish(tmp_path, sft_folder, reward_folder)
    own.place.add(ROWS[0], project="q")
    assert used_by(own.place.registry, own.place.store, SECRET).holdings == [Holding("labels-p:1", 1)]
    with pytest.raises(
        UsageError, match="holds labels of 'Wilhelmina' of project 'q'; give the name letter for letter"
    ):
        used_by(own.place.registry, own.place.store, SECRET, "q")
    with pytest.raises(UsageError, match="there is no project 'r'"):
        used_by(own.place.registry, own.place.store, SECRET, "r")


def test_nobody(published: Published):
    with pytest.raises(UsageError, match="there is no database of labels, which knows the pseudonyms"):
        used_by(published.place.registry, None, SECRET)
    for name in ("Nobody", pseudonym(b"k", "x"), ""):
        with pytest.raises(UsageError, match=r"no dataset of the registry .* holds labels of"):
            used_by(published.place.registry, published.place.store, name)


def test_people_as_lineage_shows_them(published: Published):
    registry, store = published.place.registry, published.place.store
    for shown, name in (("person 1", "Ottokar"), ("person 2", "Leopoldine")):
        assert used_by(registry, store, shown, of="labels:1") == used_by(registry, store, name)
    with pytest.raises(UsageError, match=r"'person 2'; each version of .* has people of its own.*\(--of labels:1\)"):
        used_by(registry, store, "person 2")
    with pytest.raises(UsageError, match=r"say whose it is \(none of this registry has such a one\)"):
        used_by(registry, store, "person 3")
    with pytest.raises(UsageError, match=r"of project 'p'; give .*'person 1' --of REF"):
        used_by(registry, store, "person 2", "p")
    with pytest.raises(UsageError, match="labels:1 has no 'person 3': it has person 1 to person 2;"):
        used_by(registry, store, "person 3", of="labels")
    with pytest.raises(UsageError, match="labels-p:1 is of kind 'dataset'; --of takes a version of kind 'labels'"):
        used_by(registry, store, "person 1", of="labels-p")
    with pytest.raises(UsageError, match="--of means labels of a file, --project those of a database"):
        used_by(registry, store, "person 1", "p", of="labels")


def test_what_is_unknown_is_answered_without_names(published: Published):
    registry = published.place.registry
    known = published.dataset.metadata["annotators"][0]
    mistyped = known[:-1] + ("1" if known[-1] == "0" else "0")
    with pytest.raises(UsageError, match=f"did you mean {known}\\? Else give the name letter for letter"):
        used_by(registry, None, mistyped)
    with pytest.raises(UsageError, match=r"names are private, so none is suggested.*'person 1' --of REF") as caught:
        used_by(registry, published.place.store, "Ottokas")
    assert "Ottokar" not in str(caught.value)
    assert "did you mean" not in str(caught.value)


def test_a_model_that_left_and_came_back(tmp_path: Path, sft_folder: Path, reward_folder: Path):
    own = publish(tmp_path, sft_folder, reward_folder)
    registry = own.place.registry
    before = used_by(registry, own.place.store, SECRET).affected
    folder = export_model(registry, "reward", tmp_path / "out").folder
    theirs = import_model(registry, folder, name="theirs").artifact
    later = own.place.make("policy", sft=own.sft, reward=theirs)
    found = used_by(registry, own.place.store, SECRET).affected
    assert (found.reward_models, found.policies) == (["reward:1", "theirs:1"], ["policy:1", later.ref])
    assert (found.datasets, found.others, found.same_files) == (
        before.datasets,
        before.others,
        {"theirs:1": "reward:1"},
    )
    assert erase_annotator(own.place.store, registry, "p", SECRET).affected == found
    assert used_by(registry, own.place.store, SECRET).as_dict()["same_files"] == {"theirs:1": "reward:1"}


def test_all_projects_are_listed(published: Published, tmp_path: Path):
    assert [project.name for project in published.place.store.projects()] == ["p"]
    assert LabelStore(f"sqlite:///{tmp_path / 'empty.sqlite'}", create=True).projects() == []
