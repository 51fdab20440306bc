"""`rlhf run` with people in the loop: it waits for labels, carries on with them, and trains nothing twice."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from micro import MICRO, run
from sqlalchemy import select

from rlhf import preflight
from rlhf.config import LabelsConfig
from rlhf.labels.queue import Lease, Purpose, claim
from rlhf.labels.store import LabelStore, ProjectLabels
from rlhf.labels.study import study
from rlhf.labels.submissions import Answer, Verdict, submit
from rlhf.labels.tables import ANNOTATOR, EVENT, LEASE, QUEUE
from rlhf.registry import Registry
from rlhf.scripted import answer_tasks
from rlhf.simulation import make_annotators
from sft.core.errors import ConfigError, DataError

LIVELIER = ["sft.num_train_epochs=6", "sft.learning_rate=1e-2", "ppo.response_length=16", "ppo.total_episodes=32"]
"""Enough training for answers whose quality differs."""
PEOPLE = make_annotators(4, seed=0, bias=0.0, biased_against="women", biased=0)


ASKED = ["labels.source=human", "labels.project=trial", "labels.tasks=60", "labels.overlap=2"]


def human(folder: Path, *words: str, name: str) -> dict:
    return run(folder, *LIVELIER, *ASKED, *words, name=name)


def labels(folder: Path) -> LabelStore:
    return LabelStore(f"sqlite:///{folder / 'labels.sqlite'}")


def answer(folder: Path, count: int) -> None:
    """Let one person answer some tasks: the left answer is better."""
    with labels(folder).changing("trial") as (connection, project):
        settings = study(connection, project)
        connection.execute(ANNOTATOR.insert().values(project_id=project.id, name="ann", pseudonym="annotator-ann"))
        person = connection.scalar(select(ANNOTATOR.c.id))
        assert person is not None
        while count:
            lease = claim(connection, project, settings, person, time.time())
            assert isinstance(lease, Lease)
            count -= lease.purpose is Purpose.LABEL  # a probe measures the annotator and is no label
            sent = Answer(Verdict.LEFT_CLEARLY)
            submit(connection, project, settings, person, lease.id, lease.revision, sent, time.time())


def test_a_run_waits_for_labels_and_the_same_command_carries_on(tmp_path: Path) -> None:
    first = human(tmp_path, name="first")
    assert json.loads((tmp_path / "first" / "results.json").read_text()) == first
    assert first["state"] == "waiting"
    assert [stage["name"] for stage in first["stages"]] == ["sft"]
    waiting = first["waiting"]
    assert waiting["command"] == f"rlhf labels serve --project trial --registry {tmp_path / 'registry'}"
    with labels(tmp_path).reading("trial") as project:
        assert list(project.labels()) == []
    with labels(tmp_path).changing("trial") as (connection, _):
        tasks = len(connection.execute(select(QUEUE)).all())
    assert 50 <= tasks <= 60  # few pairs are the same text, or one prompt twice with the same answers
    assert (waiting["labels"], waiting["wanted"], waiting["missing"]) == (0, 2 * tasks, 2 * tasks)

    answer(tmp_path, 3)
    second = human(tmp_path, name="second")
    assert (second["waiting"]["labels"], second["waiting"]["missing"]) == (3, 2 * tasks - 3)
    assert second["stages"][0]["cached"] is True
    registry = Registry(tmp_path / "registry")
    assert {found.kind for found in registry.artifacts()} == {"base", "sft", "tasks"}

    answer_tasks(labels(tmp_path), "trial", PEOPLE, seed=0)
    third = human(tmp_path, name="third")
    assert [stage["cached"] for stage in third["stages"]] == [True] + [False] * 5
    measured = next(stage for stage in third["stages"] if stage["name"] == "labels")["metrics"]
    assert measured["judgements"] == 2 * tasks
    assert measured["annotators"] == 5
    assert lineage_events(registry, third["registry"]["policy"]) == current_events(tmp_path)

    answer_again(tmp_path)
    again = human(tmp_path, name="again")
    assert [stage["cached"] for stage in again["stages"]] == [True] * 6  # labels were frozen: nothing is trained twice
    assert again["registry"] == third["registry"]


def lineage_events(registry: Registry, policy: str) -> int:
    """Return how many label events the one dataset behind a policy and its reward model pins."""
    ancestors = registry.lineage(policy).kinds
    (dataset,) = (ref for ref, kind in ancestors.items() if kind == "dataset")
    rewards = {edge.child_ref for edge in registry.lineage(dataset).descendants}
    assert policy in rewards
    pinned = json.loads((registry.get(dataset).path / "export.json").read_text())["event_ids"]
    return sum(last - first + 1 for first, last in pinned)


def current_events(folder: Path) -> int:
    with labels(folder).reading("trial") as project:
        return len(list(project.labels()))


def answer_again(folder: Path) -> None:
    """Change a label, as somebody does who goes back."""
    with labels(folder).changing("trial") as (connection, project):
        event = next(iter(ProjectLabels(connection, project).labels()))
        assert event.judgement is not None
        settings = study(connection, project)
        row = connection.execute(select(EVENT.c.lease_id, EVENT.c.annotator_id).where(EVENT.c.id == event.id)).one()
        revision = connection.scalar(select(LEASE.c.revision).where(LEASE.c.id == row.lease_id))
        assert revision == 1
        submit(connection, project, settings, row.annotator_id, row.lease_id, 1, Answer(Verdict.BOTH_BAD), time.time())


def test_fewer_labels_do_where_that_was_said(tmp_path: Path) -> None:
    human(tmp_path, name="first")
    answer(tmp_path, 40)
    words = [*MICRO, *LIVELIER, *ASKED, f"registry.root={tmp_path / 'registry'}", f"hydra.run.dir={tmp_path / 'short'}"]
    command = [sys.executable, "-m", "rlhf", "run", *words, "labels.min_labels=41", "--json"]
    short = subprocess.run(command, capture_output=True, text=True, check=False)
    assert short.returncode == 0, short.stderr
    waiting = json.loads(short.stdout)["waiting"]
    assert waiting["missing"] == 1
    assert (
        f"1 of 41 labels are missing in project trial, round 1.\nStart the page:   {waiting['command']}\n"
        in short.stderr
    )
    found = human(tmp_path, "labels.min_labels=40", name="found")
    measured = next(stage for stage in found["stages"] if stage["name"] == "labels")["metrics"]
    assert measured["judgements"] == 40


def test_rounds_start_from_the_policy_so_far_and_use_all_labels(tmp_path: Path) -> None:
    rounds = [*LIVELIER, "labels.source=scripted", "labels.tasks=80", "labels.overlap=1", "labels.rounds=2"]
    found = run(tmp_path, *rounds)
    names = ["sft", "labels-1", "reward-1", "ppo-1", "labels", "reward", "ppo", "evaluation", "bias"]
    assert [stage["name"] for stage in found["stages"]] == names
    stages = {stage["name"]: stage["metrics"] for stage in found["stages"]}
    first, second = stages["labels-1"]["judgements"], stages["labels"]["judgements"]
    assert first <= 80 < second <= 160
    registry = Registry(tmp_path / "registry")
    parents = {artifact.ref: {tuple(p) for p in artifact.parents} for artifact in registry.artifacts()}
    assert parents["policy:1"] == {("sft", "sft:1"), ("reward", "reward:1")}
    assert parents["policy:2"] == {("policy", "policy:1"), ("reward", "reward:2")}
    assert ("sampler", "sft:1") in parents["tasks:1"]
    assert ("sampler", "policy:1") in parents["tasks:2"]
    assert {("tasks", "tasks:2"), ("labels", registry.get("comparisons:2").parents[0].ref)} == parents["collection:2"]
    assert found["registry"]["policy"] == "policy:2"
    again = run(tmp_path, *rounds, name="again")
    assert all(stage["cached"] for stage in again["stages"])
    more = run(tmp_path, *rounds, "ppo.kl_coef=0.3", name="more")
    assert [stage["cached"] for stage in more["stages"]] == [True] * 3 + [False] * 6


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["labels.source=human", "labels.tasks=10", "labels.min_labels=21"], "labels.min_labels"),
        (["labels.rounds=2"], "labels.rounds"),
        (["labels.source=human", "labels.database_url=postgresql://me:secret@host/x"], "labels.database_url"),
        (["labels.source=human", "labels.database_url=mysql://host/x"], "labels.database_url"),
        (["labels.source=human", "labels.project=No Good"], "labels.project"),
        (["labels.source=scripted", "data=files", "data.path=pyproject.toml"], "labels.source"),
    ],
)
def test_settings_that_cannot_work_cost_nothing(words: list[str], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        preflight.check([*MICRO, *words])
    assert field in {problem.field for problem in caught.value.problems}
    assert "secret" not in str(caught.value)


def test_the_defaults_ask_nobody() -> None:
    assert not LabelsConfig().asks_people


def test_answers_that_are_all_the_same_cannot_be_compared(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"raise ppo\.temperature"):
        human(tmp_path, "ppo.temperature=1e-9", "sft.num_train_epochs=1", name="cold")
