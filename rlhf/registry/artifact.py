"""What the registry holds, and the words by which it is asked for. Imports no database."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sft.core.errors import UsageError

LATEST = "latest"
"""The alias that every name has: its highest version."""

DATABASE_FILE = "registry.db"
"""The database's file in the registry's folder; no name may begin like it."""

_WORD = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_FINGERPRINT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_REF = re.compile(r"([^:@]*)(?::([1-9][0-9]{0,8})|@([^:@]*))?")


class Parent(NamedTuple):
    """What an artifact was made from: `role` is what the parent was used as, `ref` is "NAME:VERSION"."""

    role: str
    ref: str


@dataclass(frozen=True)
class Artifact:
    """One registered version; its folder never changes."""

    name: str
    version: int
    """1, 2, 3, ... of this name, without gaps."""
    kind: str
    """What it is, such as "sft", "labels" or "evaluation"."""
    path: Path
    """Its folder, `ROOT/NAME/VERSION`."""
    sha256: str
    """Digest of the folder's manifest, hence of every file in it."""
    fingerprint: str
    """Digest of everything that decided its content; the same fingerprint is never made twice."""
    created_at: str
    """UTC, ISO 8601; for people: order is by version."""
    metadata: Mapping[str, object]
    """What the stage reported (JSON), its "metrics" among them."""
    aliases: tuple[str, ...] = ()
    """Names that point at this version now, sorted; the built-in "latest" is not among them."""
    parents: tuple[Parent, ...] = ()
    """What it was made from, in the order given when it was registered."""

    @property
    def ref(self) -> str:
        """The exact reference, "NAME:VERSION"."""
        return f"{self.name}:{self.version}"

    def as_dict(self) -> dict[str, object]:
        """Return all fields as JSON values, with `ref` added."""
        return {
            "ref": self.ref,
            "name": self.name,
            "version": self.version,
            "kind": self.kind,
            "path": str(self.path),
            "sha256": self.sha256,
            "fingerprint": self.fingerprint,
            "created_at": self.created_at,
            "aliases": list(self.aliases),
            "parents": [parent._asdict() for parent in self.parents],
            "metadata": dict(self.metadata),
        }


class Ref(NamedTuple):
    """A reference taken apart: `version` and `alias` are never both given; neither means the latest version."""

    name: str
    version: int | None = None
    alias: str | None = None


def parse_ref(text: str) -> Ref:
    """Take NAME, NAME:VERSION or NAME@ALIAS apart. Raises UsageError; does not look whether it exists."""
    match = _REF.fullmatch(text)
    words = (match[1], match[3] or match[1]) if match else ()
    if match is None or match[3] == "" or not all(_WORD.fullmatch(word) for word in words):
        raise UsageError(
            f"{text!r} is not a reference: write NAME, NAME:VERSION (1, 2, ...) or NAME@ALIAS, such as policy@champion"
        )
    return Ref(match[1], int(match[2]) if match[2] else None, match[3])


def check_word(what: str, word: str) -> None:
    """Raise UsageError unless `word` may be a name, a kind, a role or an alias; `what` says which of them."""
    if not _WORD.fullmatch(word):
        raise UsageError(
            f"{what} {word!r} is not allowed: use 1 to 64 of a-z, 0-9, '.', '_', '-', a letter or digit first"
        )


def check_name(name: str) -> None:
    """Raise UsageError unless `name` may be the name of an artifact, hence of a folder in the registry."""
    check_word("name", name)
    if name.startswith(DATABASE_FILE):
        raise UsageError(
            f"name {name!r} is not allowed: {DATABASE_FILE} is the registry's own file; choose another name"
        )


def check_fingerprint(fingerprint: str) -> None:
    """Raise UsageError unless `fingerprint` is safe as the name of a folder."""
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise UsageError(f"fingerprint {fingerprint!r} is not allowed: use 1 to 128 letters, digits, '_' or '-'")
