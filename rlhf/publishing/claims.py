"""What folders claimed of the models that came from them: shown as claims, since nothing here can check them."""

from collections.abc import Mapping
from typing import NamedTuple

from rlhf.model_folders import read_json
from rlhf.publishing.checked import recorded_file
from rlhf.registry import Lineage, Registry
from rlhf.registry.copies import LINEAGE_FILE, came_in, copies
from sft.core.values import Json, items, mapping, number, plain, text
from sft.core.visible import visible

_SAID = ("ref", "kind", "sha256", "created_at")
_MOST_LETTERS = 128
_SHOWN = 12


class Claim(NamedTuple):
    """What a folder said of its model; only `same_files` is known."""

    ref: str
    """The version that was made of the folder."""
    said: dict[str, str]
    """What its `rlhf-lineage.json` calls the model; empty: there was none."""
    made_from: list[str]
    labels: list[str]
    """One sentence for each version that is said to hold label events."""
    same_files: list[str]
    """Versions of this registry that hold every file of the model, bit for bit."""

    def sentences(self) -> list[str]:
        """Return the claim, and what is known, in words."""
        parts = [", ".join(f"{name} {value}" for name, value in self.said.items()) or "nothing"]
        parts += [f"made from {_listed(self.made_from)}"] if self.made_from else []
        parts += [f"labelled by {_listed(self.labels)}"] if self.labels else []
        told = f"{self.ref} came from a folder, which claims (not checked): {'; '.join(parts)}"
        same = " and ".join(self.same_files)
        more = f"; its lineage is known: rlhf models lineage {self.same_files[0]}" if self.same_files else ""
        return [told, *([f"{self.ref} has the same files as {same}{more}"] if same else [])]


def claims(registry: Registry, lineage: Lineage) -> list[Claim]:
    """Return what folders claimed of a version and of models that it was made from, nearest first.

    Raises:
        StorageError: a manifest, or a folder's `rlhf-lineage.json`, is not the one that was registered.
    """
    behind = dict.fromkeys([lineage.ref, *(edge.parent_ref for edge in lineage.ancestors)])
    found = [artifact for ref in behind if came_in(artifact := registry.get(ref, removed=True))]
    same = copies(registry.artifacts()) if found else {}
    made = []
    for artifact in found:
        path = None if artifact.removed_at is not None else recorded_file(artifact, LINEAGE_FILE)
        file = {} if path is None else mapping(read_json(path))
        kept = mapping(mapping(artifact.metadata.get("imported")).get("said"))
        made.append(
            Claim(
                artifact.ref,
                said_in(file or kept),
                [_cut(ref) for ref in mapping(file.get("artifacts"))],
                [_labelled(source) for source in items(file.get("labels"))],
                same.get(artifact.ref, []),
            )
        )
    return made


def said_in(lineage: Json) -> dict[str, str]:
    """Return what a folder's lineage file calls the model, unchecked."""
    return {part: _cut(text(lineage[part])) for part in _SAID if part in lineage}


def _labelled(source: Json) -> str:
    events, people = number(source.get("labels")), source.get("people")
    of = f" of {len(people)} people" if isinstance(people, Mapping) else ""
    return f"{_cut(text(source.get('ref')))}: {'?' if events is None else plain(events)} label events{of}"


def _listed(words: list[str]) -> str:
    more = len(words) - _SHOWN
    return ", ".join(words[:_SHOWN]) + (f" and {more} more (--json)" if more > 0 else "")


def _cut(word: str) -> str:
    """Return a stranger's word on one line, its hidden characters written out."""
    return visible(word[:_MOST_LETTERS]).replace("\n", "⟨U+000A⟩")
