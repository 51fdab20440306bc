"""Which version a reference stands for; what is unknown is answered with what exists."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, NoReturn

from rlhf.registry.artifact import LATEST, Artifact, Ref
from sft.core.errors import UsageError

if TYPE_CHECKING:
    from rlhf.registry.catalogue import Catalogue

_SHOWN_NAMES = 20


def resolve(catalogue: "Catalogue", ref: Ref) -> Artifact:
    """Return the version that a reference stands for. Raises UsageError where it is unknown or was removed."""
    last = catalogue.last_version(ref.name)
    if not last:
        return no_such_name(catalogue, ref.name)
    if ref.alias is None or ref.alias == LATEST:
        version = ref.version or last
    else:
        aliases = catalogue.aliases(ref.name)
        if ref.alias not in aliases:
            shown = ", ".join(f"{alias} (version {number})" for alias, number in {**aliases, LATEST: last}.items())
            raise UsageError(f"{ref.name} has no alias {ref.alias!r}; it has: {shown}")
        version = aliases[ref.alias]
    found = catalogue.version(ref.name, version)
    if found is None:
        raise UsageError(f"{ref.name} has no version {version}; it has 1 to {last}")
    return found


def check_there(artifact: Artifact) -> Artifact:
    """Return the artifact. Raises UsageError where its folder was removed."""
    if artifact.removed_at is not None:
        raise UsageError(
            f"{artifact.ref} was removed at {artifact.removed_at}: its lineage is known "
            f"(rlhf models lineage {artifact.ref}), its files are gone; `rlhf models list {artifact.name}` shows what "
            "is there"
        )
    return artifact


def check_tagged(artifact: Artifact, keys: Iterable[str]) -> None:
    """Raise UsageError where an artifact has no tag with one of the keys."""
    missing = sorted(set(keys) - {tag.key for tag in artifact.tags})
    if missing:
        has = f"it has: {', '.join(map(str, artifact.tags))}" if artifact.tags else "it has none"
        raise UsageError(f"{artifact.ref} has no tag {' and no tag '.join(map(repr, missing))}; {has}")


def no_such_name(catalogue: "Catalogue", name: str) -> NoReturn:
    """Raise UsageError that names what is registered instead."""
    names = catalogue.names()
    close = get_close_matches(name, names)
    guess = f"; did you mean {' or '.join(close)}?" if close else ";"
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    holds = f"holds {', '.join(names[:_SHOWN_NAMES])}{more}" if names else "is empty"
    raise UsageError(f"nothing is registered as {name!r}{guess} the registry {holds}")
