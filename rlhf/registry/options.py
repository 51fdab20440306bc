"""The options that all commands of `rlhf models` share, and how they open the registry and answer."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rlhf.registry.store import Registry

REGISTRY = Path("registry")

RegistryOption = Annotated[Path, typer.Option("--registry", metavar="DIR", help="Folder of the registry.")]
UrlOption = Annotated[
    str | None,
    typer.Option(
        "--registry-url",
        metavar="URL",
        help="postgresql://USER@HOST/NAME, where the registry's database is on a server; default: it is in its folder.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
RefArgument = Annotated[str, typer.Argument(metavar="REF", help="NAME (its latest version), NAME:VERSION, NAME@ALIAS.")]


def open_registry(root: Path, url: str | None) -> "Registry":
    """Open a registry that exists."""
    from rlhf.registry.store import Registry  # here: `rlhf --help` loads no SQLAlchemy

    return Registry(root, url=url, create=False)


def print_json(value: object) -> None:
    """Print one JSON document."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
