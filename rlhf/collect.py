"""`rlhf labels create`: answers from a file or from registered policies become tasks for people.

With --json, standard output is one JSON document. Heavy libraries are imported inside the functions.
"""

import json
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from rlhf.labels.commands import REGISTRY, DatabaseOption, JsonOption, RegistryOption, open_store, show
from rlhf.registry.options import UrlOption, open_registry
from sft.core.errors import DataError, UsageError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from rlhf.labels.collection.queue import Purpose
    from rlhf.labels.collection.tasks import Pair
    from rlhf.labels.store import Project
    from rlhf.registry import Artifact, Registry
    from sft.core.progress import StageProgress
    from sft.core.rows import BadRow

ORDERS = ("random", "uncertainty")
MOST_PROMPT_TOKENS = 1024
"""Of a longer prompt the models read the last tokens; fewer where they have no room for so many."""


def create_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the project; made where it is new.")],
    from_file: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Rows with prompt and answers [..] or response_a, response_b."),
    ] = None,
    policy: Annotated[str | None, typer.Option("--policy", metavar="REF", help="Model of the first answers.")] = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="REF", help="Model of the others; default: the same.")
    ] = None,
    prompts: Annotated[Path | None, typer.Option("--prompts", metavar="FILE", help="What the models answer.")] = None,
    select: Annotated[str, typer.Option("--select", metavar="ORDER", help=", ".join(ORDERS))] = "random",
    reward: Annotated[
        list[str] | None,
        typer.Option("--reward", metavar="REF", help="Reward model for --select uncertainty; better several."),
    ] = None,
    random_share: Annotated[
        float, typer.Option("--random-share", min=0.0, max=1.0, help="Drawn at random all the same, for evaluation.")
    ] = 0.2,
    pairs_per_prompt: Annotated[
        int | None, typer.Option("--pairs-per-prompt", min=1, help="Of a row of more than two answers; default: all.")
    ] = None,
    overlap: Annotated[int | None, typer.Option("--overlap", min=1, help="People per task; default 2.")] = None,
    attribute: Annotated[
        list[str] | None, typer.Option("--attribute", metavar="NAME", help="Asked too; may be given again.")
    ] = None,
    question: Annotated[str | None, typer.Option("--question", metavar="TEXT", help="Above the choice.")] = None,
    guidelines: Annotated[Path | None, typer.Option("--guidelines", metavar="FILE.md", help="Of the project.")] = None,
    gold: Annotated[Path | None, typer.Option("--gold", metavar="FILE", help="Rows with gold: a, b or tie.")] = None,
    qualification: Annotated[
        Path | None, typer.Option("--qualification", metavar="FILE", help="Likewise; asked before the work begins.")
    ] = None,
    source: Annotated[
        str | None, typer.Option("--source", metavar="TEXT", help="Where the texts come from, for the datasheet.")
    ] = None,
    licence: Annotated[str | None, typer.Option("--licence", metavar="TEXT", help="Of the texts.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of sampling and order.")] = 0,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Of a sampled answer.")] = 64,
    temperature: Annotated[float, typer.Option("--temperature", help="Of sampling; greater than 0.")] = 1.0,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
    registry: RegistryOption = REGISTRY,
    registry_url: UrlOption = None,
) -> None:
    """Make tasks for people from a file of answers or from registered policies; the same again adds nothing."""
    _check_words(from_file, policy, prompts, select, reward or [], temperature)
    from rlhf.labels.collection.queue import Purpose
    from rlhf.labels.collection.study import read_guidelines, set_guidelines
    from rlhf.labels.collection.study import study as study_of
    from rlhf.labels.collection.tasks import Select, enqueue, revise_study
    from rlhf.labels.store import check_project

    check_project(name)
    text = None if guidelines is None else read_guidelines(guidelines)
    if from_file is not None:
        made = _read(from_file, seed, pairs_per_prompt)
    else:
        assert policy is not None, "checked above"
        assert prompts is not None, "checked above"
        made = _sample(
            open_registry(registry, registry_url), policy, against or policy, prompts, seed, max_tokens, temperature
        )
    if select == Select.UNCERTAINTY:
        made = made._replace(pairs=_scored(open_registry(registry, registry_url), reward or [], made.pairs))
    files = {Purpose.LABEL: made}
    files |= {purpose: _read(path, seed, None, needs_gold=True) for purpose, path in _given(gold, qualification)}
    with open_store(database, registry, create=True).changing(name) as (connection, project):
        changed = revise_study(connection, project, question=question, attributes=attribute, overlap=overlap, seed=seed)
        if text is not None:
            set_guidelines(connection, project, text)
        places = study_of(connection, project).overlap
        counts: dict[str, object] = {}
        for purpose, pairs in _by_purpose(files):
            order = Select(select) if purpose is Purpose.LABEL else Select.RANDOM
            done = enqueue(
                connection,
                project,
                pairs,
                purpose=purpose,
                overlap=places,
                seed=seed,
                order=order,
                random_share=random_share,
            )
            counts[purpose.value] = done._asdict()
            if pairs and not (done.queued or done.already):
                raise DataError(
                    f"no {purpose.value} task can be made: {done.identical} pairs have twice the same answer, "
                    f"{done.empty} have one without text; give rows with two different answers"
                )
        origin = _record_origin(connection, project, made, source, licence)
        unused = [_put_aside(connection, project, made) for made in files.values() if made.bad]
    command = ["rlhf", "labels", "serve", "--project", name]
    command += ["--database", database] if database else []
    command += ["--registry", str(registry)] if registry != REGISTRY else []
    document: dict[str, object] = {
        "project": name,
        **made.facts,
        **counts,
        "overlap": places,
        "changed_settings": changed,
        **origin,
        "unused_rows": unused,
        "next": shlex.join(command),
    }
    show(document, as_json)


class _Made(NamedTuple):
    """Pairs, what to say of their making, and the rows of the file that could not be used."""

    path: Path
    pairs: "list[Pair]"
    rows_in: int
    bad: "list[tuple[BadRow, bytes | None]]"
    facts: dict[str, object]


def _check_words(
    from_file: Path | None,
    policy: str | None,
    prompts: Path | None,
    select: str,
    reward: Sequence[str],
    temperature: float,
) -> None:
    """Raise UsageError for options that do not go together."""
    if (from_file is None) == (policy is None):
        raise UsageError("give the answers with --from FILE, or have them made with --policy REF --prompts FILE")
    if (policy is None) != (prompts is None):
        raise UsageError("--policy and --prompts belong together: the model, and the file of what it answers")
    if select not in ORDERS:
        raise UsageError(f"--select {select} is not known; use one of {', '.join(ORDERS)}")
    if (select == "uncertainty") != bool(reward):
        raise UsageError("--select uncertainty and --reward REF belong together; give --reward once or several times")
    if not temperature > 0:
        raise UsageError(f"--temperature {temperature:g} is not allowed; give a number greater than 0, such as 1.0")


def _given(gold: Path | None, qualification: Path | None) -> "list[tuple[Purpose, Path]]":
    from rlhf.labels.collection.queue import Purpose

    both = ((Purpose.GOLD, gold), (Purpose.QUALIFICATION, qualification))
    return [(purpose, path) for purpose, path in both if path is not None]


def _read(path: Path, seed: int, pairs_per_prompt: int | None, *, needs_gold: bool = False) -> _Made:
    from rlhf.labels.collection.pair_files import read_pairs

    found = read_pairs(path, seed=seed, pairs_per_prompt=pairs_per_prompt, needs_gold=needs_gold)
    return _Made(path, found.pairs, found.rows_in, found.bad, {"rows_in": found.rows_in, "pairs": len(found.pairs)})


def _by_purpose(files: "dict[Purpose, _Made]") -> "Iterator[tuple[Purpose, list[Pair]]]":
    """Yield the pairs by purpose; a row of the first file whose choice is known is a gold task."""
    from rlhf.labels.collection.queue import Purpose

    pairs = {purpose: list(made.pairs) for purpose, made in files.items()}
    first = pairs[Purpose.LABEL]
    known = [pair for pair in first if pair.gold is not None]
    pairs[Purpose.LABEL] = [pair for pair in first if pair.gold is None]
    if known:
        pairs[Purpose.GOLD] = [*pairs.get(Purpose.GOLD, []), *known]
    yield from pairs.items()


def _record_origin(
    connection: "Connection", project: "Project", made: _Made, source: str | None, licence: str | None
) -> dict[str, object]:
    """Remember where the texts of the tasks come from, as an import does; what was said before of a task stays."""
    from rlhf.labels.collection.tasks import task_ids_of
    from rlhf.labels.events import ranges
    from rlhf.labels.importing.batches import BatchWriter
    from rlhf.labels.origins import BATCH, Origin, origins

    if source is None and licence is None:
        return {}
    said, now = origins(connection, project.id), Origin(source, licence)
    tasks = task_ids_of(connection, project, made.pairs)
    new = [task for task in tasks if now.adds_to(said.of(task))]
    if new:
        writer = BatchWriter(connection, project, file=made.path.name, format=BATCH, source=source, licence=licence)
        writer.finish({"rows_in": made.rows_in, "tasks": ranges(new)})
    return {"origin": {**now._asdict(), "tasks": len(new), "said_before": len(tasks) - len(new)}}


def _put_aside(connection: "Connection", project: "Project", made: _Made) -> dict[str, object]:
    """Remember where the rows stood that were not used, as an import does; return the count and the first ones."""
    from rlhf.labels.importing.batches import BatchWriter, Quarantined
    from rlhf.labels.origins import BATCH

    writer = BatchWriter(connection, project, file=made.path.name, format=BATCH)
    writer.quarantine([Quarantined(row.line, row.kind, digest) for row, digest in made.bad])
    reasons = dict(Counter(row.kind for row, _ in made.bad).most_common())
    writer.finish({"rows_in": made.rows_in, "quarantined": len(made.bad), "reasons": reasons})
    first = [f"line {row.line}: {row.reason}" for row, _ in made.bad[:3]]
    return {"file": str(made.path), "quarantined": len(made.bad), "reasons": reasons, "first": first}


# Answers of registered policies


def _sample(
    registry: "Registry", policy: str, against: str, prompts: Path, seed: int, max_tokens: int, temperature: float
) -> _Made:
    from rlhf.answer_pairs import Source, sample_pairs
    from sft.config import RuntimeConfig
    from sft.core.text import TokenLimits
    from sft.data import read_prompts

    first, second = (_model(registry, ref, ("sft", "policy", "base")) for ref in (policy, against))
    asked, bad = read_prompts(prompts)
    if not asked:
        shown = "; ".join(f"line {row.line}: {row.reason}" for row in bad[:3])
        raise DataError(f"{prompts}: none of its {len(bad)} rows holds a prompt; the first: {shown}; repair it")
    room = _room([first, second], max_tokens)
    with _bar("sample", 2 * len(asked), "answer") as bar:
        made = sample_pairs(
            Source(first.path, first.ref),
            Source(second.path, second.ref),
            asked,
            limits=TokenLimits(room, max_tokens),
            temperature=temperature,
            runtime=RuntimeConfig(),
            seed=seed,
            advance=lambda done: bar.advance(done, {}),
        )
    facts = {"policy": first.ref, "against": second.ref, "prompts": len(asked), "pairs": len(made.pairs)}
    facts |= {"answers_cut_off": made.cut_off}
    return _Made(prompts, made.pairs, len(asked) + len(bad), [(row, None) for row in bad], facts)


def _scored(registry: "Registry", refs: Sequence[str], pairs: "Sequence[Pair]") -> "list[Pair]":
    from rlhf.answer_pairs import score_margins, uncertainty
    from sft.config import RuntimeConfig

    models = [_model(registry, ref, ("reward", "judge")) for ref in refs]
    repeated = [model.ref for number, model in enumerate(models) if model in models[:number]]
    if repeated:
        raise UsageError(f"--reward {repeated[0]} is given twice; an ensemble needs models that differ")
    with _bar("score", len(models), "model") as bar:
        margins = score_margins(
            [model.path for model in models],
            pairs,
            max_prompt_tokens=_room(models, 0),
            runtime=RuntimeConfig(),
            advance=lambda done: bar.advance(done, {}),
        )
    return [pair._replace(score=float(score)) for pair, score in zip(pairs, uncertainty(margins), strict=True)]


def _model(registry: "Registry", ref: str, kinds: Sequence[str]) -> "Artifact":
    found = registry.get(ref)
    if found.kind not in kinds:
        raise UsageError(
            f"{found.ref} is of kind {found.kind!r}, needed is one of {', '.join(kinds)}; see `rlhf models list`"
        )
    return found


def _room(models: "Sequence[Artifact]", max_tokens: int) -> int:
    """Return how many tokens of a prompt all models can read before an answer of `max_tokens`."""
    known = [json.loads((model.path / "config.json").read_text()) for model in models]
    longest = min(config.get("max_position_embeddings", MOST_PROMPT_TOKENS + max_tokens) for config in known)
    if longest <= max_tokens:
        raise UsageError(f"--max-tokens {max_tokens} leaves no room for a prompt: the models read {longest} in all")
    return int(min(longest - max_tokens, MOST_PROMPT_TOKENS))


@contextmanager
def _bar(stage: str, total: int, unit: str) -> "Iterator[StageProgress]":
    """Show on standard error how far a stage is."""
    from rich.console import Console

    from sft.core.progress import stage_progress

    progress = stage_progress(stage, Console(stderr=True))
    progress.start(total, unit)
    try:
        yield progress
    finally:
        progress.close()
