"""`rlhf models export | import | lineage | used-by`. With --json, standard output is one JSON document."""

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlhf.labels.commands import DatabaseOption, open_store
from rlhf.registry.options import (
    REGISTRY,
    JsonOption,
    RefArgument,
    RegistryOption,
    UrlOption,
    open_registry,
    print_json,
)
from sft.core.errors import UsageError

if TYPE_CHECKING:
    from rlhf.labels.store import LabelStore
    from rlhf.publishing.label_sources import LabelSource

_SHOWN_PEOPLE = 12


def export_command(
    ref: RefArgument,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that does not exist yet.")],
    merge_adapters: Annotated[
        bool, typer.Option("--merge-adapters", help="A whole model, also where a reward model kept its adapters.")
    ] = False,
    licence: Annotated[
        str | None, typer.Option("--license", metavar="ID", help="For the model card, such as apache-2.0.")
    ] = None,
    as_json: JsonOption = False,
    registry: RegistryOption = REGISTRY,
    url: UrlOption = None,
) -> None:
    """Write a model as a folder that transformers and vLLM load, with a model card and its lineage."""
    from rlhf.publishing.export import export_model

    made = export_model(open_registry(registry, url), ref, folder, merge_adapters=merge_adapters, licence=licence)
    if as_json:
        print_json(made.as_dict())
        return
    typer.echo(f"{made.ref} -> {made.folder}: {len(made.files)} files of the model, content {made.content}")
    if made.adapter_of is not None:
        typer.echo(f"adapters of {made.adapter_of}, as peft reads them; --merge-adapters writes a whole model")


def import_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="As save_pretrained or `rlhf models export` wrote it.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Of the artifact.")],
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="KIND", help="sft, policy, reward or judge; default: as it says.")
    ] = None,
    as_json: JsonOption = False,
    registry: RegistryOption = REGISTRY,
    url: UrlOption = None,
) -> None:
    """Check everything in a model's folder, then register it; the same files are the same version."""
    from rlhf.publishing.importing import FolderError, import_model
    from rlhf.registry import Registry

    try:
        made = import_model(Registry(registry, url=url), folder, name=name, kind=kind)
    except FolderError as error:
        if not as_json:
            raise
        typer.echo(f"error: {error}", err=True)
        print_json(error.as_dict())
        raise typer.Exit(error.exit_code) from None
    if as_json:
        print_json(made.as_dict())
        return
    known = "" if made.is_new else " (it was there)"
    typer.echo(f"{folder} -> {made.artifact.ref}{known}, kind {made.artifact.kind}, content {made.content}")
    if made.left_out:
        typer.echo(f"not taken over: {', '.join(made.left_out)}")


def lineage_command(
    ref: RefArgument,
    events: Annotated[bool, typer.Option("--events", help="With --json: the ids or digests of label events.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write a picture of it: one page.")
    ] = None,
    as_json: JsonOption = False,
    registry: RegistryOption = REGISTRY,
    url: UrlOption = None,
) -> None:
    """Show what an artifact was made from, down to who labelled, and what was made from it."""
    if events and not as_json:
        raise UsageError("--events needs --json: there may be many thousands")
    if html is not None and not html.parent.is_dir():
        raise UsageError(f"--html {html}: {html.parent} is no folder; make it first, or name another place")
    from rlhf.publishing.claims import claims
    from rlhf.publishing.label_sources import label_sources

    store = open_registry(registry, url)
    lineage = store.lineage(ref)
    sources = label_sources(store, lineage)
    claimed = claims(store, lineage)
    if html is not None:
        from rlhf.publishing.graph import lineage_graph
        from rlhf.publishing.page import render
        from sft.core.durable import write_text

        write_text(html, render(lineage_graph(store, lineage, sources), sources, claimed))
        typer.echo(str(html), err=True)
    if as_json:
        labels = [source.as_dict(events=events) for source in sources]
        print_json({**lineage.as_dict(), "labels": labels, "claims": [claim._asdict() for claim in claimed]})
        return
    from rlhf.registry.render import lineage_tree, show

    show(lineage_tree(lineage))
    for sentence in (*map(_sentence, sources), *(words for claim in claimed for words in claim.sentences())):
        typer.echo(sentence)


def used_by_command(
    annotator: Annotated[
        str, typer.Argument(metavar="ANNOTATOR", help="Name, as the account or the imported file has it; or pseudonym.")
    ],
    project: Annotated[
        str | None, typer.Option("--project", metavar="NAME", help="Only this one; default: all.")
    ] = None,
    of: Annotated[
        str | None,
        typer.Option("--of", metavar="REF", help="ANNOTATOR is a `person 1` in the lineage of this version of labels."),
    ] = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
    registry: RegistryOption = REGISTRY,
    url: UrlOption = None,
) -> None:
    """Show which datasets, reward models and policies used a person's labels."""
    from rlhf.publishing.used_by import used_by

    found = used_by(open_registry(registry, url), _labels(database, registry), annotator, project, of)
    if as_json:
        print_json(found.as_dict())
        return
    for ref, count in found.holdings:
        typer.echo(f"{ref}: {'an unknown number of' if count is None else count} label events of this person")
    datasets, reward_models, policies, others, same_files = found.affected
    lists = {"datasets": datasets, "reward models": reward_models, "policies": policies, "others": others}
    for title, refs in lists.items():
        shown = (f"{ref} (the same files as {same_files[ref]})" if ref in same_files else ref for ref in refs)
        typer.echo(f"{title}: {', '.join(shown) or 'none'}")


def _labels(database: str | None, registry: Path) -> "LabelStore | None":
    """Return the database of labels; None where none was named and the usual one is not there."""
    from rlhf.labels.store import default_url

    usual = Path(default_url(registry).removeprefix("sqlite:///"))
    return None if database is None and not usual.is_file() else open_store(database, registry)


def _sentence(source: "LabelSource") -> str:
    """Return who labelled a version, on one line."""
    from rlhf.publishing.label_sources import told

    if source.people is None:
        return f"labelled by: {source.ref}: people not recorded"
    shown = dict(islice(source.people.items(), _SHOWN_PEOPLE))
    more = len(source.people) - len(shown)
    people = told(shown) + (f", and {more} more (--json)" if more else "")
    parts = [f"labelled by: {source.ref}: {source.labels} label events of {len(source.people)} people: {people}"]
    parts += [f"{source.unknown} of unknown people"] if source.unknown else []
    for title, counts in (
        ("sources", source.sources),
        ("licences", source.licences),
        ("guidelines", source.guidelines),
    ):
        parts += [] if counts is None else [f"{title}: {told(counts)}"]
    return "; ".join(parts)
