"""`rlhf models promote | tag | gc | discard | upgrade`: what people change in the registry."""

import getpass
import os
import socket
from typing import Annotated

import typer

from rlhf.registry.options import (
    REGISTRY,
    JsonOption,
    RefArgument,
    RegistryOption,
    UrlOption,
    open_registry,
    print_json,
)
from sft.core.errors import DataError


def promote_command(
    ref: RefArgument,
    alias: Annotated[str, typer.Option("--alias", metavar="ALIAS", help="What it is called from now on.")] = "champion",
    force: Annotated[
        str | None, typer.Option("--force", metavar="REASON", help="Whatever its reports say; the reason is recorded.")
    ] = None,
    as_json: JsonOption = False,
    registry: RegistryOption = REGISTRY,
    url: UrlOption = None,
) -> None:
    """Give a version an alias, which the evaluation and bias reports about it must have earned.

    Its files and those of the reports are verified first. What was decided is recorded, and `show` shows it.
    """
    store = open_registry(registry, url)
    artifact = store.get(ref)
    problems = store.verify([artifact, *store.reports(artifact)])
    if problems:
        raise DataError(
            f"{artifact.ref} or a report about it is damaged: {'; '.join(problems)}; restore the files, or see "
            "`rlhf models discard --help`"
        )
    promoted = store.promote(artifact, alias, asked_by=_user(), reason=force)
    record = store.promotions(promoted)[-1]
    if as_json:
        print_json({**promoted.as_dict(), "promotion": record.as_dict()})
    else:
        typer.echo(f"{promoted.ref} is {promoted.name}@{alias} now")


def tag_command(
    ref: RefArgument,
    tags: Annotated[list[str] | None, typer.Argument(metavar="[TAG]...", help="WORD or KEY=VALUE.")] = None,
    remove: Annotated[list[str] | None, typer.Option("--remove", metavar="KEY", help="A tag to take away.")] = None,
    as_json: JsonOption = False,
    registry: RegistryOption = REGISTRY,
    url: UrlOption = None,
) -> None:
    """Put tags on a version: words, or keys with values. `rlhf models gc` keeps what has one."""
    from rlhf.registry.artifact import parse_tag

    wanted = [parse_tag(text) for text in tags or []]
    store = open_registry(registry, url)
    artifact = store.get(ref)
    if wanted or remove:
        artifact = store.tag(artifact, wanted, drop=remove or [])
    if as_json:
        print_json(artifact.as_dict())
    else:
        typer.echo(f"{artifact.ref}: {', '.join(map(str, artifact.tags)) or 'no tags'}")


def gc_command(
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; else it is only listed.")] = False,
    as_json: JsonOption = False,
    registry: RegistryOption = REGISTRY,
    url: UrlOption = None,
) -> None:
    """List what is of no use any more, or remove it: versions that nothing refers to, leftovers of killed runs.

    What has an alias or a tag, was promoted, is the latest of its name, was used for something that stays, or reports
    about something that stays, is never removed. Checkpoints of unfinished runs are leftovers, too.
    """
    swept = open_registry(registry, url).sweep(remove=yes)
    if as_json:
        print_json(swept.as_dict())
    else:
        from rlhf.registry import render

        render.show(render.sweep_page(swept))


def discard_command(
    ref: RefArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; else its damage is only listed.")] = False,
    as_json: JsonOption = False,
    registry: RegistryOption = REGISTRY,
    url: UrlOption = None,
) -> None:
    """Give up a damaged version of which there is no copy, so that what made it makes it again, as the next version.

    Its row and lineage stay, its aliases go. What is intact is refused.
    """
    found = open_registry(registry, url).discard(ref, remove=yes)
    if as_json:
        print_json(found.as_dict())
        return
    for problem in found.problems:
        typer.echo(problem)
    aliases = f" its aliases are gone, too: {', '.join(found.aliases)};" if found.aliases else ""
    if found.removed:
        typer.echo(f"{found.ref} was removed;{aliases} what made it (the same run, import or export) makes it again")
    else:
        typer.echo(f"nothing was removed; with --yes: {found.ref}")


def upgrade_command(as_json: JsonOption = False, registry: RegistryOption = REGISTRY, url: UrlOption = None) -> None:
    """Bring the database of an older program up to date; older programs refuse it then."""
    from rlhf.registry.database import Database
    from rlhf.registry.tables import SCHEMA_VERSION

    found = Database(registry.absolute(), url).upgrade()
    if as_json:
        print_json({"found": found, "version": SCHEMA_VERSION})
    else:
        typer.echo(f"schema version {found}, now {SCHEMA_VERSION}")


def _user() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in containers
        name = f"uid {os.getuid()}"
    return f"{name}@{socket.gethostname()}"
