"""Stage `labels` where people label what the model in training says: tasks, a wait, and a frozen dataset.

Tasks are sampled once and labels frozen once: the same command later finds both in the registry, so that labels that
come afterwards change nothing that was trained. `labels.min_labels` decides when labels are frozen.
"""

import random
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection

from rlhf.config import LabelSource
from rlhf.labelling.datasets import ERASURE, register_export, training_dataset
from rlhf.labels.collection.pair_files import read_pairs
from rlhf.labels.collection.study import Study, guidelines, read_guidelines, set_guidelines, set_study
from rlhf.labels.collection.tasks import Pair, enqueue, revise_study, task_ids_of
from rlhf.labels.exporting.export import ExportRequest
from rlhf.labels.exporting.export_rows import ExportFormat
from rlhf.labels.store import LabelStore, Project, ProjectLabels, default_url
from rlhf.registry import Artifact
from rlhf.run import Built, Done, Run, read_stage
from rlhf.simulation import make_annotators
from sft.core.durable import json_digest, write_jsonl
from sft.core.errors import DataError
from sft.core.text import Conversation, as_dicts
from sft.core.tracking import Tracker

TASKS_FILE = "tasks.jsonl"


class Waiting(NamedTuple):
    """Labels are missing; people must give them before the run can carry on."""

    round: int
    project: str
    labels: int
    wanted: int
    command: str
    """That starts the label page."""

    def as_dict(self) -> dict[str, object]:
        """Return the fields as JSON values, with the number of labels that are missing."""
        return {**self._asdict(), "missing": self.wanted - self.labels}


def run_people(run: Run, sampler: Done, number: int, project: str | None) -> "tuple[str, Waiting | None]":
    """Let people compare answers of a model, and make their frozen labels the run's source of labels.

    Args:
        run: in progress.
        sampler: the model that answers; each prompt twice.
        number: of the round, from 1.
        project: of the labels; None: `labels.project`, or a name of the first tasks' own.

    Returns:
        The project, and what is missing; None: nothing.
    """
    tasks = _make_tasks(run, sampler, number)
    project = project or run.config.labels.project or f"run-{tasks.artifact.fingerprint[:12]}"
    replaced: list[str] = []
    while True:
        found = _frozen(run, project, tasks, number, replaced)
        if isinstance(found, Waiting):
            return project, found
        if not _holds_erased(run, found) or found.sha256 in replaced:
            run.sources = replace(run.sources, collected=training_dataset(run.registry, found.ref))
            return project, None
        replaced.append(found.sha256)


def _holds_erased(run: Run, dataset: Artifact) -> bool:
    """Say whether somebody in a dataset has been erased since: its place is taken by what is left of the labels."""
    lineage = run.registry.lineage(dataset.ref)
    return any(lineage.kinds[edge.child_ref] == ERASURE for edge in lineage.descendants)


def _frozen(run: Run, project: str, tasks: Done, number: int, replaced: Sequence[str]) -> Artifact | Waiting:
    """Return the labels that were frozen for these tasks, or freeze them now.

    `replaced` are the digests of those that were frozen before and may not be used any more.
    """
    config = run.config.labels
    settings: dict[str, object] = {"project": project, "database": config.database_url, "overlap": config.overlap}
    settings |= {"min_labels": config.min_labels, "replaced": list(replaced)}
    fingerprint = run.fingerprint("collection", settings, {"tasks": tasks.artifact.fingerprint})
    pinned = run.registry.find(fingerprint)
    if pinned is not None:
        run.check(pinned)
        return run.registry.get(str(read_stage(pinned.path)["dataset"]))
    found = _collect(run, project, tasks, number)
    if isinstance(found, Waiting):
        return found
    dataset, metrics = found

    def build(folder: Path, tracker: Tracker) -> Built:
        return Built(folder, {"metrics": metrics, "dataset": dataset.ref}, 0)

    parents = [("tasks", tasks.artifact), ("labels", dataset)]
    made = run.produce("labels", "collection", fingerprint, parents, build)
    return run.registry.get(str(made.stage["dataset"]))


def _make_tasks(run: Run, sampler: Done, number: int) -> Done:
    """Sample two answers to each of the round's prompts, once."""
    prompts = _asked(run, number)
    settings = {"tasks": run.config.labels.tasks, "round": number} | run.sampling_settings()
    inputs = {"sampler": sampler.artifact.fingerprint, "prompts": json_digest([as_dicts(p) for p in prompts])}

    def build(folder: Path, tracker: Tracker) -> Built:
        from rlhf.answer_pairs import Source, sample_pairs

        tracker.start(2 * len(prompts), "answer")
        source = Source(sampler.path, sampler.artifact.ref)
        made = sample_pairs(
            source,
            source,
            prompts,
            limits=run.sampling_limits,
            temperature=run.config.ppo.temperature,
            runtime=run.config.runtime,
            seed=run.config.seed,
            longest=run.limits.answer,
            advance=lambda done: tracker.log(done, {}),
        )
        write_jsonl(folder / TASKS_FILE, [_row(pair) for pair in made.pairs])
        cut = {"answers_cut_off": made.cut_off, "pairs_too_long": made.too_long}
        metrics: dict[str, object] = {"pairs": len(made.pairs), **cut}
        return Built(folder, {"metrics": metrics}, 0, run.device())

    fingerprint = run.fingerprint("tasks", settings, inputs)
    return run.produce("labels", "tasks", fingerprint, [("sampler", sampler.artifact)], build)


def _asked(run: Run, number: int) -> list[Conversation]:
    """Return the round's prompts: of all splits, since reward models are also validated and tested on labels."""
    splits = run.sources.prompts
    every = [*splits.train, *splits.validation, *splits.test]
    random.Random(f"label-prompts-{run.config.seed}-{number}").shuffle(every)
    return [every[index % len(every)] for index in range(run.config.labels.tasks)]


def _row(pair: Pair) -> dict[str, object]:
    answers = {"response_a": pair.response_a, "response_b": pair.response_b}
    return {"prompt": as_dicts(pair.prompt), **answers, "model_a": pair.model_a, "model_b": pair.model_b}


def _collect(run: Run, project: str, tasks: Done, number: int) -> "tuple[Artifact, dict[str, object]] | Waiting":
    """Put the tasks in the queue, count their labels, and freeze the project's labels once there are enough."""
    config = run.config.labels
    store = LabelStore(config.database_url or default_url(run.registry.root), create=True)
    pairs = read_pairs(tasks.path / TASKS_FILE, seed=run.config.seed).pairs
    with store.changing(project) as (connection, row):
        changed = _settle(run, connection, row)
        made = enqueue(connection, row, pairs, overlap=config.overlap, seed=run.config.seed)
        ids = task_ids_of(connection, row, pairs)
    if changed:
        run.tracker.note(f"project {project}: settings changed: {', '.join(changed)}")
    if not ids:
        raise DataError(
            f"none of the {len(pairs)} pairs of answers can be compared: {made.identical} are of one text, "
            f"{made.empty} have an empty answer; raise ppo.temperature, or train the model longer"
        )
    if config.source is LabelSource.SCRIPTED:
        _answer(run, store, project)
    with store.reading(project) as labels:
        given = _given(labels, ids, config.overlap)
    possible = len(ids) * config.overlap
    wanted = possible if config.min_labels is None else min(config.min_labels, possible)
    if given < wanted:
        return Waiting(number, project, given, wanted, _serve(run, project))
    frozen = register_export(store, run.registry, ExportRequest(project, ExportFormat.CSV))
    counts: dict[str, object] = {"labels": given, "tasks": len(ids), "identical": made.identical, "empty": made.empty}
    return frozen.dataset, counts


def _settle(run: Run, connection: Connection, project: Project) -> list[str]:
    """Give the project its settings and guidelines, and return what changed in those it had, in words.

    Simulated annotators need neither gold tasks nor probes. What is asked is no part of a fingerprint: labels that were
    frozen stay what they are.
    """
    config, seed = run.config.labels, run.config.seed
    if config.source is LabelSource.SCRIPTED:
        set_study(connection, project, Study(overlap=config.overlap, seed=seed, gold_share=0.0, probe_share=0.0))
        return []
    asked = config.attributes or None
    changed = revise_study(
        connection, project, question=config.question, attributes=asked, overlap=config.overlap, seed=seed
    )
    if config.guidelines is not None:
        before = guidelines(connection, project).version
        now = set_guidelines(connection, project, read_guidelines(Path(config.guidelines))).version
        changed += [f"guidelines: version {before} -> {now}"] if 0 < before < now else []
    return changed


def _answer(run: Run, store: LabelStore, project: str) -> None:
    from rlhf.scripted import answer_tasks

    world = run.config.simulation
    people = make_annotators(
        world.annotators,
        seed=run.config.seed,
        bias=world.planted_bias,
        biased_against=world.planted_group,
        biased=world.annotators if world.biased_annotators is None else world.biased_annotators,
    )
    answer_tasks(store, project, people, seed=run.config.seed)


def _given(labels: ProjectLabels, ids: Sequence[int], overlap: int) -> int:
    """Return how many labels of the tasks hold now; beyond the overlap a task's further labels do not count."""
    wanted = set(ids)
    counts = Counter(event.task_id for event in labels.labels() if event.task_id in wanted)
    return sum(min(count, overlap) for count in counts.values())


def _serve(run: Run, project: str) -> str:
    words = ["rlhf", "labels", "serve", "--project", project]
    url = run.config.labels.database_url
    words += ["--registry", run.config.registry.root] if url is None else ["--database", url]
    return shlex.join(words)
