from pathlib import Path

import pytest
from label_people import START, Worker, open_study, pairs, work

from rlhf.labels.collection.monitor import status
from rlhf.labels.collection.status_text import status_sections
from rlhf.labels.collection.study import Study
from rlhf.labels.store import LabelStore
from rlhf.labels.trust.render import Section

PLAIN = Study(overlap=2, gold_share=0.0, probe_share=0.0)


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    return LabelStore(f"sqlite:///{tmp_path / 'labels.sqlite'}", create=True)


def sections(store: LabelStore, now: float = START) -> dict[str, Section]:
    """Return the sections by the first word of their titles, and those about people by the last one."""
    found = status_sections(status(store, "p", now))
    return {section.title.split()[-1 if ":" in section.title[:8] else 0]: section for section in found}


def test_a_project_where_nobody_has_begun(store):
    open_study(store, "p", PLAIN, label=pairs(3))
    found = sections(store)
    assert found["Project"].title.startswith("Project p, 20")
    assert found["Project"].lines == [
        ("tasks", "0 of 3 complete"),
        ("labels", "0 of 6"),
        ("labels still to come", "6"),
        ("waits for", "2 more people, for 6 labels: rlhf labels users invite --role annotator"),
    ]
    assert found["Project"].after == [
        "none: open in somebody's hands, labels from files, labels of the last 1 h, skips, flags"
    ]
    assert found["Look"].sentences == ["nobody: no number is out of the ordinary"]
    assert found["Agreement"].sentences[0].startswith("unknown: no pair has two labels")
    assert "rlhf labels users invite" in found["People"].sentences[0]


def test_people_at_work(store):
    settings = Study(overlap=3, gold_share=0.3, probe_share=0.2, probe_after=3, pause_below=0.0, seed=2)
    open_study(store, "p", settings, label=pairs(30, words=60), gold=pairs(20, prefix="g", gold=True, words=60))
    workers = (Worker("ann", skill=0.95, skip=0.1), Worker("lefty", skill=0.9, left=1.0), Worker("quick", seconds=1.0))
    end = work(store, "p", settings, workers, answers=100, seed=5)
    found = sections(store, START + 3600 if end is None else end)
    assert {name for name, _ in found["Look"].lines} >= {"lefty", "quick"}
    habits = {row["name"]: row for row in found["habits"].rows}
    assert habits["quick"]["faster than reading"].startswith("100 % [")
    assert "tie" not in habits["ann"]
    assert "0 % of everybody: tie" in found["habits"].after
    assert "--json" in found["habits"].after[-1]
    assert "not known: qualification" in found["right"].after
    assert found["work"].rows[0].keys() <= {"name", "labels", "skips", "seconds"}
    assert all(row["known answers right"].endswith(tuple("0123456789")) for row in found["right"].rows)


def test_a_pace_is_told_where_labels_came(store):
    open_study(store, "p", PLAIN, label=pairs(30))
    work(store, "p", PLAIN, (Worker("ann"),), answers=12, seed=0)
    lines = dict(sections(store, START + 3600)["Project"].lines)
    assert lines["labels"] == "12 of 60"
    assert lines["tasks by labels"] == "18 with 0, 12 with 1"
    assert float(lines["pace"].split()[0]) > 0
    assert lines["time left"].endswith("hours at this pace around the clock")
    assert sum(int(number) for number in lines["last 48 h, by 6 h"].split(", ")) == 12


def test_tasks_that_nobody_there_can_finish_wait_for_people(store):
    """Each task needs two people, and there is one: whatever she does, every second label waits."""
    open_study(store, "p", PLAIN, label=pairs(5))
    work(store, "p", PLAIN, (Worker("ann"),), answers=5, seed=0)
    lines = dict(sections(store, START + 3600)["Project"].lines)
    assert lines["waits for"] == "1 more person, for 5 labels: rlhf labels users invite --role annotator"
