"""`rlhf run` with people in the loop: it waits for labels, carries on with them, and trains nothing twice."""

import dataclasses
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from micro import MICRO, run
from sqlalchemy import select

from rlhf import preflight
from rlhf.config import LabelsConfig
from rlhf.labelling.erasure import erase_annotator
from rlhf.labels.collection.queue import Lease, Purpose, claim
from rlhf.labels.collection.study import Guidelines, guidelines, study
from rlhf.labels.collection.submissions import submit
from rlhf.labels.collection.verdicts import Answer, Verdict
from rlhf.labels.exporting.export_rows import CSV_FILE
from rlhf.labels.store import LabelStore, ProjectLabels
from rlhf.labels.tables import ANNOTATOR, EVENT, LEASE, QUEUE
from rlhf.pipeline import Trained, train_rounds
from rlhf.registry import Artifact, Registry
from rlhf.run import Done, Run, read_stage
from rlhf.scripted import answer_tasks
from rlhf.simulation import make_annotators
from rlhf.sources import Sources
from rlhf.stages.labels import run_labels
from rlhf.stages.people import Waiting, run_people
from rlhf.stages.reward import run_reward
from rlhf.stages.sft import run_sft
from sft.core.errors import ConfigError, DataError
from sft.core.tracking import RunTracker

LIVELIER = [
    "sft.num_train_epochs=6",
    "sft.learning_rate=1e-2",
    "ppo.response_length=16",
    "ppo.total_episodes=16",
    "ppo.critic_warmup_iterations=0",
    "ppo.learning_rate=2e-3",
]
"""Enough training for answers whose quality differs."""
PEOPLE = make_annotators(4, seed=0, bias=0.0, biased_against="women", biased=0)


ASKED = ["labels.source=human", "labels.project=trial", "labels.tasks=60", "labels.overlap=2"]
ROUNDS = ["labels.source=scripted", "labels.tasks=80", "labels.overlap=1", "labels.rounds=2"]


def human(folder: Path, *words: str, name: str) -> dict:
    return run(folder, *LIVELIER, *ASKED, *words, name=name)


def begin(folder: Path, *words: str) -> Run:
    """Return a run whose stages can be called one by one."""
    (point,) = preflight.check([*MICRO, f"registry.root={folder / 'registry'}", *LIVELIER, *words])
    tracker = RunTracker(
        folder / "stages", run_id="stages", experiment="stages", mode="disabled", project="rlhf", config={}
    )
    return Run(point.config, Registry(folder / "registry"), tracker, Sources(point.config, folder / "stages"))


@pytest.fixture(scope="module")
def with_sft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder whose registry holds the SFT model and nothing of the labels."""
    folder = tmp_path_factory.mktemp("sft")
    run_sft(begin(folder))
    return folder


@pytest.fixture
def folder(with_sft: Path, tmp_path: Path) -> Path:
    """Return a copy of it, for one test."""
    return shutil.copytree(with_sft, tmp_path / "run")


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


def test_a_run_waits_for_labels_and_the_same_command_carries_on(folder: Path) -> None:
    first = human(folder, name="first")
    assert json.loads((folder / "first" / "results.json").read_text()) == first
    assert first["state"] == "waiting"
    assert [stage["name"] for stage in first["stages"]] == ["sft"]
    waiting = first["waiting"]
    assert waiting["command"] == f"rlhf labels serve --project trial --registry {folder / 'registry'}"
    with labels(folder).reading("trial") as project:
        assert list(project.labels()) == []
    with labels(folder).changing("trial") as (connection, _):
        tasks = len(connection.execute(select(QUEUE)).all())
    assert 50 <= tasks <= 60  # few pairs are the same text, or one prompt twice with the same answers
    assert (waiting["labels"], waiting["wanted"], waiting["missing"]) == (0, 2 * tasks, 2 * tasks)

    answer(folder, 3)
    second = human(folder, name="second")
    assert (second["waiting"]["labels"], second["waiting"]["missing"]) == (3, 2 * tasks - 3)
    assert second["stages"][0]["cached"] is True
    registry = Registry(folder / "registry")
    assert {found.kind for found in registry.artifacts()} == {"base", "sft", "tasks"}

    answer_tasks(labels(folder), "trial", PEOPLE, seed=0)
    third = human(folder, name="third")
    assert [stage["cached"] for stage in third["stages"]] == [True] + [False] * 5
    measured = next(stage for stage in third["stages"] if stage["name"] == "labels")["metrics"]
    assert measured["judgements"] == 2 * tasks
    assert measured["annotators"] == 5
    assert lineage_events(registry, third["registry"]["policy"]) == current_events(folder)

    answer_again(folder)
    again = human(folder, name="again")
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


def test_fewer_labels_do_where_that_was_said(folder: Path) -> None:
    assert isinstance(collect(folder), Waiting)
    answer(folder, 40)
    words = [*MICRO, *LIVELIER, *ASKED, f"registry.root={folder / 'registry'}", f"hydra.run.dir={folder / 'short'}"]
    command = [sys.executable, "-m", "rlhf", "run", *words, "labels.min_labels=41", "--json"]
    short = subprocess.run(command, capture_output=True, text=True, check=False)
    assert short.returncode == 0, short.stderr
    waiting = json.loads(short.stdout)["waiting"]
    assert waiting["missing"] == 1
    assert (
        f"1 of 41 labels are missing in project trial, round 1.\nStart the page:   {waiting['command']}\n"
        in short.stderr
    )
    found = collect(folder, "labels.min_labels=40")
    assert isinstance(found, Collected)
    assert found.judgements == 40


class Collected(NamedTuple):
    """What one run of the stage `labels` trains on."""

    dataset: Artifact
    comparisons: Done
    judgements: int


def collect(folder: Path, *words: str) -> Collected | Waiting:
    """Run the stage `labels` of the first round."""
    stages = begin(folder, *ASKED, *words)
    sft = run_sft(stages)
    assert sft.cached
    _, waiting = run_people(stages, sft, 1, None)
    if waiting is not None:
        return waiting
    comparisons, _ = run_labels(stages)
    assert stages.sources.dataset is not None
    return Collected(stages.sources.dataset, comparisons, len(stages.sources.ingested.judgements))


def test_labels_of_the_erased_are_frozen_anew_by_the_same_command(folder: Path) -> None:
    registry, enough = Registry(folder / "registry"), "labels.min_labels=40"
    assert isinstance(collect(folder, enough), Waiting)
    answer_tasks(labels(folder), "trial", PEOPLE, seed=0)
    first = collect(folder, enough)
    assert isinstance(first, Collected)
    before = [first]
    for person in PEOPLE[:2]:
        erased = erase_annotator(labels(folder), registry, "trial", person.name).erased.pseudonym
        found = collect(folder, enough)
        assert isinstance(found, Collected)
        assert erased not in (found.dataset.path / CSV_FILE).read_text()
        assert 40 <= found.judgements == current_events(folder)
        assert found.comparisons.artifact.ref not in {old.comparisons.artifact.ref for old in before}
        behind = set(registry.lineage(found.comparisons.artifact.ref).kinds)
        assert found.dataset.ref in behind
        assert not behind & {old.dataset.ref for old in before}
        before.append(found)
        made = [artifact.ref for artifact in registry.artifacts()]
        again = collect(folder, enough)
        assert isinstance(again, Collected)
        assert (again.dataset.ref, again.comparisons.cached) == (found.dataset.ref, True)
        assert [artifact.ref for artifact in registry.artifacts()] == made
    erase_annotator(labels(folder), registry, "trial", PEOPLE[2].name)
    waiting = collect(folder, enough)  # what is left is too little
    assert isinstance(waiting, Waiting)
    assert waiting.labels == current_events(folder) < waiting.wanted == 40


def test_the_page_asks_what_the_configuration_says(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guide = folder / "guide.md"
    guide.write_text("Be fair.")
    asked = [f"labels.guidelines={guide}", "labels.attributes=[helpful,honest]", "labels.question='Which one, please?'"]
    assert isinstance(collect(folder, *asked), Waiting)
    assert page_of(folder) == ("Which one, please?", ("helpful", "honest"), 2, Guidelines(1, "Be fair."))
    assert isinstance(collect(folder), Waiting)
    assert page_of(folder) == ("Which one, please?", ("helpful", "honest"), 2, Guidelines(1, "Be fair."))
    assert "settings changed" not in capsys.readouterr().err
    guide.write_text("Be fair, and kind.")
    assert isinstance(collect(folder, f"labels.guidelines={guide}", "labels.attributes=[kind]"), Waiting)
    assert page_of(folder) == ("Which one, please?", ("kind",), 2, Guidelines(2, "Be fair, and kind."))
    said = capsys.readouterr().err
    assert "settings changed: attributes: ('helpful', 'honest') -> ('kind',), guidelines: version 1 -> 2\n" in said
    answer_tasks(labels(folder), "trial", PEOPLE, seed=0)
    assert isinstance(collect(folder), Collected)
    guide.write_text("Something else.")
    again = collect(folder, f"labels.guidelines={guide}", "labels.question=Hm?")
    assert isinstance(again, Collected)
    assert again.comparisons.cached  # what was frozen stays: nothing is asked any more
    assert page_of(folder)[0] == "Which one, please?"


def page_of(folder: Path) -> tuple[str, tuple[str, ...], int, Guidelines]:
    with labels(folder).changing("trial") as (connection, project):
        settings = study(connection, project)
        return settings.question, settings.attributes, settings.overlap, guidelines(connection, project)


def test_further_labels_of_a_task_do_not_count_towards_those_wanted(folder: Path) -> None:
    assert isinstance(collect(folder), Waiting)
    answer_tasks(labels(folder), "trial", PEOPLE, seed=0)
    assert isinstance(collect(folder, "labels.overlap=1"), Collected)
    counted = read_stage(Registry(folder / "registry").get("collection").path)["metrics"]
    assert isinstance(counted, dict)
    assert counted["labels"] == counted["tasks"] == current_events(folder) / 2


class Alphabetical(NamedTuple):
    """Somebody who prefers the answer that comes first in the alphabet."""

    name: str = "abc"

    def judge(self, request: str, first: str, second: str, generator: random.Random) -> str:
        return "a" if first < second else "b"


def test_simulated_annotators_judge_the_answers_where_they_stand(folder: Path) -> None:
    assert isinstance(collect(folder), Waiting)
    answer_tasks(labels(folder), "trial", [Alphabetical()], seed=0)
    with labels(folder).reading("trial") as project:
        found = [event.judgement for event in project.labels()]
    assert len(found) > 30
    for judgement in found:
        assert judgement is not None
        assert judgement.choice == ("a" if judgement.response_a < judgement.response_b else "b")


def test_a_second_round_asks_for_labels_of_its_own(folder: Path) -> None:
    assert isinstance(collect(folder), Waiting)
    answer_tasks(labels(folder), "trial", PEOPLE, seed=0)
    stages = begin(folder, *ASKED)
    _, waiting = run_people(stages, run_sft(stages), 2, "trial")
    assert waiting is not None
    assert waiting.round == 2
    assert waiting.labels < 0.2 * waiting.wanted  # few pairs are those of the first round again


def test_rounds_start_from_the_policy_so_far_and_use_all_labels(folder: Path) -> None:
    rounds = [*LIVELIER, *ROUNDS]
    found = run(folder, *rounds)
    names = ["sft", "labels-1", "reward-1", "ppo-1", "labels", "reward", "ppo", "evaluation", "bias"]
    assert [stage["name"] for stage in found["stages"]] == names
    stages = {stage["name"]: stage["metrics"] for stage in found["stages"]}
    first, second = stages["labels-1"]["judgements"], stages["labels"]["judgements"]
    assert first <= 80 < second <= 160
    registry = Registry(folder / "registry")
    parents = {artifact.ref: {tuple(p) for p in artifact.parents} for artifact in registry.artifacts()}
    assert parents["policy:1"] == {("sft", "sft:1"), ("reward", "reward:1")}
    assert parents["policy:2"] == {("sft", "sft:1"), ("start", "policy:1"), ("reward", "reward:2")}
    assert [("sft", "sft:1") in parents[f"reward:{number}"] for number in (1, 2)] == [True, True]
    assert first_kl(registry, "policy:1") == pytest.approx(0, abs=1e-4)
    assert first_kl(registry, "policy:2") > 0.1  # of the policy so far to the SFT model
    assert stages["ppo"]["first_ratio_deviation"] < 1e-4
    assert ("sampler", "sft:1") in parents["tasks:1"]
    assert ("sampler", "policy:1") in parents["tasks:2"]
    assert {("tasks", "tasks:2"), ("labels", registry.get("comparisons:2").parents[0].ref)} == parents["collection:2"]
    assert found["registry"]["policy"] == "policy:2"
    again = begin(folder, *ROUNDS)
    assert isinstance(train_rounds(again, run_sft(again)), Trained)
    assert [stage.cached for stage in again.stages.values()] == [True] * 7
    more = begin(folder, *ROUNDS, "ppo.learning_rate=1e-2")  # far enough to say other things
    assert isinstance(train_rounds(more, run_sft(more)), Trained)
    assert [stage.cached for stage in more.stages.values()] == [True] * 3 + [False] * 4


def first_kl(registry: Registry, policy: str) -> float:
    """Return the KL to the reference before a policy's first update, in nats per answer."""
    rows = read_stage(registry.get(policy).path)["iterations"]
    assert isinstance(rows, list)
    return float(rows[0]["kl"])


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["labels.source=human", "labels.tasks=10", "labels.min_labels=21"], "labels.min_labels"),
        (["labels.rounds=2"], "labels.rounds"),
        ([*ROUNDS, "ppo.models=shared"], "ppo.models"),
        (["labels.source=human", "labels.database_url=postgresql://me:secret@host/x"], "labels.database_url"),
        (["labels.source=human", "labels.database_url=mysql://host/x"], "labels.database_url"),
        (["labels.source=human", "labels.project=No Good"], "labels.project"),
        (["labels.source=scripted", "data=files", "data.path=pyproject.toml"], "labels.source"),
        (["labels.source=human", "labels.guidelines=nowhere.md"], "labels.guidelines"),
        (["labels.source=human", "labels.guidelines=tests"], "labels.guidelines"),
        (["labels.source=human", "labels.attributes=[a,b,a]"], "labels.attributes"),
        (["labels.guidelines=pyproject.toml"], "labels.guidelines"),
        (["labels.source=scripted", "labels.question=Why?"], "labels.question"),
        (["labels.attributes=[a]"], "labels.attributes"),
    ],
)
def test_settings_that_cannot_work_cost_nothing(words: list[str], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        preflight.check([*MICRO, *words])
    assert field in {problem.field for problem in caught.value.problems}
    assert "secret" not in str(caught.value)


def test_the_defaults_ask_nobody() -> None:
    assert not LabelsConfig().asks_people


def test_answers_that_are_all_the_same_cannot_be_compared(folder: Path) -> None:
    with pytest.raises(DataError, match=r"raise ppo\.temperature"):
        collect(folder, "ppo.temperature=1e-9")


def test_labels_without_a_test_prompt_stop_before_a_reward_model_is_trained(folder: Path) -> None:
    stages = begin(folder)
    labels, preferences = run_labels(stages)
    splits = dataclasses.replace(stages.sources.split_preferences(preferences), unsealed_test=[])
    with pytest.raises(DataError, match=r"none of the \d+ comparisons is on a held-out .* raise data\.test_fraction"):
        run_reward(stages, run_sft(stages), labels, splits)
    assert "reward" not in {artifact.kind for artifact in Registry(folder / "registry").artifacts()}
