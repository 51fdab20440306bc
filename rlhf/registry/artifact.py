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

WORK = ".work"
"""The part of the registry's folder where products are made."""

CHECKPOINTS = "checkpoints"
"""The part of a workspace that outlives a run that did not finish."""

ELSEWHERE_FILE = "registry.db.elsewhere"
"""The note in the folder of a registry whose database is on a server: which one."""

STAGE_FILE = "stage.json"
"""What a stage reports of its product, in the product's folder; a report holds its verdict there as "passed"."""

_WORD = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_FINGERPRINT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_TAG_VALUE_LENGTH = 200
_REF = re.compile(r"([^:@]*)(?::([1-9][0-9]{0,8})|@([^:@]*))?")


class Tag(NamedTuple):
    """A word that people put on a version, or a key with a value."""

    key: str
    value: str | None = None

    def __str__(self) -> str:
        """Return the tag as it is written: WORD or KEY=VALUE."""
        return self.key if self.value is None else f"{self.key}={self.value}"


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
    tags: tuple[Tag, ...] = ()
    """What people called it, sorted."""
    removed_at: str | None = None
    """When `rlhf models gc` or `discard` removed its folder; None: it is there."""

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
            "tags": [str(tag) for tag in self.tags],
            "parents": [parent._asdict() for parent in self.parents],
            "removed_at": self.removed_at,
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


def parse_tag(text: str) -> Tag:
    """Take WORD or KEY=VALUE apart. Raises UsageError."""
    key, equals, value = text.partition("=")
    check_word("tag", key)
    if equals and not (0 < len(value) <= _TAG_VALUE_LENGTH and value.isprintable()):
        raise UsageError(
            f"the value of tag {key}={value!r} is not allowed: use 1 to {_TAG_VALUE_LENGTH} printable characters"
        )
    return Tag(key, value if equals else None)


def check_word(what: str, word: str) -> None:
    """Raise UsageError unless `word` may be a name, a kind, a role or an alias; `what` says which of them."""
    if not _WORD.fullmatch(word):
        raise UsageError(
            f"{what} {word!r} is not allowed: use 1 to 64 of a-z, 0-9, '.', '_', '-', a letter or digit first"
        )


def check_alias(alias: str) -> None:
    """Raise UsageError unless `alias` may be set and dropped."""
    check_word("alias", alias)
    if alias == LATEST:
        raise UsageError(f"alias {LATEST!r} always means the highest version; choose another alias")


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
