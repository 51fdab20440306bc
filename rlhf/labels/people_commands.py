"""`rlhf labels serve` and `rlhf labels users`: the label page, and who may use it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlhf.labels.commands import (
    REGISTRY,
    DatabaseOption,
    JsonOption,
    ProjectOption,
    RegistryOption,
    open_store,
    show,
)
from sft.core.errors import UsageError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from rlhf.labels.store import Project

users_app = typer.Typer(help="Who may use the label page.", no_args_is_help=True)

_NEEDED = ("fastapi", "uvicorn", "argon2", "python_multipart", "markdown_it", "nh3")
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Of the account.")]
AddressOption = Annotated[
    str, typer.Option("--address", metavar="URL", help="Where browsers find the page; the link begins with it.")
]
ADDRESS = "http://127.0.0.1:8000"


def serve_command(
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="To listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="To listen at; 0: any free one.")] = 8000,
    https_proxy: Annotated[
        bool, typer.Option("--https-proxy", help="Browsers come by https, through a proxy on this machine.")
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="Browsers may come by this name too; may be given again."),
    ] = None,
    database: DatabaseOption = None,
    project: ProjectOption = "default",
    registry: RegistryOption = REGISTRY,
) -> None:
    """Serve the label page until Ctrl-C; the first start shows the link by which its owner gets in."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(f"the label page needs {', '.join(missing)}: pip install 'rlhf[labels]'")
    from rlhf.labels.web.serve import serve  # here: nothing else needs the extra

    store = open_store(database, registry)
    serve(store, project, host=host, port=port, is_https=https_proxy, allow_hosts=allow_host or [])


@users_app.command("invite")
def invite_command(
    role: Annotated[str, typer.Option("--role", metavar="annotator|owner", help="Of the new account.")],
    days: Annotated[float, typer.Option("--days", help="How long the link is good.")] = 7.0,
    address: AddressOption = ADDRESS,
    database: DatabaseOption = None,
    project: ProjectOption = "default",
    as_json: JsonOption = False,
    registry: RegistryOption = REGISTRY,
) -> None:
    """Make a link that makes one account; the person behind it chooses name and password."""
    from rlhf.labels.accounts.users import Role, invite

    roles = [known.value for known in Role]
    if role not in roles:
        raise UsageError(f"--role {role} is not known; use one of {', '.join(roles)}")
    with _changing(database, registry, project) as (connection, known):
        now = time.time()
        token = invite(connection, known, Role(role), now, days)
    show({"role": role, **_link(address, token, now, days)}, as_json)


@users_app.command("reset")
def reset_command(
    name: NameArgument,
    days: Annotated[float, typer.Option("--days", help="How long the link is good.")] = 1.0,
    address: AddressOption = ADDRESS,
    database: DatabaseOption = None,
    project: ProjectOption = "default",
    as_json: JsonOption = False,
    registry: RegistryOption = REGISTRY,
) -> None:
    """Make a link by which somebody chooses a new password; until then the old one holds."""
    from rlhf.labels.accounts.users import invite_reset

    with _changing(database, registry, project) as (connection, known):
        now = time.time()
        token = invite_reset(connection, known, name, now, days)
    show({"name": name, **_link(address, token, now, days)}, as_json)


@users_app.command("list")
def list_command(
    database: DatabaseOption = None,
    project: ProjectOption = "default",
    as_json: JsonOption = False,
    registry: RegistryOption = REGISTRY,
) -> None:
    """List the accounts of a project."""
    from rlhf.labels.accounts.users import accounts

    with _changing(database, registry, project) as (connection, known):
        found = accounts(connection, known)
    people = [
        {
            "name": person.name,
            "role": person.role.value,
            "created_at": person.created_at,
            "paused_at": None if person.paused_at is None else _written(person.paused_at),
            "paused_reason": person.paused_reason,
            "disabled": person.is_disabled,
        }
        for person in found
    ]
    show({"project": project, "users": people}, as_json)


@users_app.command("pause")
def pause_command(
    name: NameArgument,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="They read it.")] = "paused by an owner",
    database: DatabaseOption = None,
    project: ProjectOption = "default",
    as_json: JsonOption = False,
    registry: RegistryOption = REGISTRY,
) -> None:
    """Give an annotator no more tasks until `resume`; what they did stays."""
    from rlhf.labels.accounts.users import pause

    with _changing(database, registry, project) as (connection, known):
        pause(connection, known, name, reason, time.time())
    show({"name": name, "paused": True, "reason": reason}, as_json)


@users_app.command("resume")
def resume_command(
    name: NameArgument,
    database: DatabaseOption = None,
    project: ProjectOption = "default",
    as_json: JsonOption = False,
    registry: RegistryOption = REGISTRY,
) -> None:
    """Let a paused annotator go on."""
    from rlhf.labels.accounts.users import resume

    with _changing(database, registry, project) as (connection, known):
        resume(connection, known, name)
    show({"name": name, "paused": False}, as_json)


@users_app.command("disable")
def disable_command(
    name: NameArgument,
    database: DatabaseOption = None,
    project: ProjectOption = "default",
    as_json: JsonOption = False,
    registry: RegistryOption = REGISTRY,
) -> None:
    """Log somebody out and keep them out; `reset` lets them in again. What they did stays."""
    from rlhf.labels.accounts.users import disable

    with _changing(database, registry, project) as (connection, known):
        disable(connection, known, name)
    show({"name": name, "disabled": True}, as_json)


@contextmanager
def _changing(database: str | None, registry: Path, project: str) -> Iterator[tuple["Connection", "Project"]]:
    """Open a write transaction of a project that is there. Raises UsageError where it is not."""
    store = open_store(database, registry)
    with store.reading(project):
        pass
    with store.changing(project) as opened:
        yield opened


def _link(address: str, token: str, now: float, days: float) -> dict[str, object]:
    found: dict[str, object] = {
        "link": f"{address.rstrip('/')}/invite/{token}",
        "good_until": _written(now + days * 86_400),
    }
    if address == ADDRESS:
        found["note"] = "the page is elsewhere? give --address URL, as `rlhf labels serve` shows it"
    return found


def _written(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds")
