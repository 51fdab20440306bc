from pathlib import Path

import pytest
from labels_and_registry import ROWS
from published import SECRET, Published, publish

from rlhf.labelling.erasure import erase_annotator
from rlhf.labels.store import LabelStore, pseudonym
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
    assert made == ALL_MADE
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
    assert made == ALL_MADE
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
    with pytest.raises(UsageError, match="holds labels of 'Wilhelmina' of project 'q'; give the name of the account"):
        used_by(own.place.registry, own.place.store, SECRET, "q")
    with pytest.raises(UsageError, match="there is no project 'r'"):
        used_by(own.place.registry, own.place.store, SECRET, "r")


def test_nobody(published: Published):
    with pytest.raises(UsageError, match="there is no database of labels, which knows the pseudonyms"):
        used_by(published.place.registry, None, SECRET)
    for name in ("Nobody", pseudonym(b"k", "x"), ""):
        with pytest.raises(UsageError, match=r"no dataset of the registry .* holds labels of"):
            used_by(published.place.registry, published.place.store, name)


def test_all_projects_are_listed(published: Published, tmp_path: Path):
    assert [project.name for project in published.place.store.projects()] == ["p"]
    assert LabelStore(f"sqlite:///{tmp_path / 'empty.sqlite'}", create=True).projects() == []
