"""A label database and a registry in one folder, with tiny folders that stand for what training makes of an export."""

import json
from pathlib import Path
from typing import NamedTuple

from rlhf.labels.importing.imports import import_file
from rlhf.labels.store import LabelStore
from rlhf.registry import Artifact, Registry
from sft.core.durable import json_digest

NAME, TEXT = "Wilhelmina", "Leopoldine's note"
ROWS: list[dict[str, object]] = [
    {"prompt": "p1", "label": "a", "annotator": NAME, "strength": 2},
    {"prompt": "p1", "label": "b", "annotator": "Bo"},
    {"prompt": "p1", "label": "a", "annotator": "Cy"},
    {"prompt": "p2", "label": "b", "annotator": "Bo"},
    {"prompt": "=p3", "label": "both_bad", "annotator": "Cy"},
]


class Place(NamedTuple):
    """Where the labels and the registry are."""

    folder: Path
    store: LabelStore
    registry: Registry

    def add(self, *rows: dict[str, object], project: str = "p") -> None:
        """Import rows as one file."""
        path = self.folder / "rows.jsonl"
        path.write_text("".join(json.dumps({"response_a": "x", "response_b": "y", **row}) + "\n" for row in rows))
        import_file(self.store, project, path)
        path.unlink()

    def make(self, kind: str, **parents: Artifact) -> Artifact:
        """Register a folder that stands for a product made from others."""
        fingerprint = json_digest([kind, {role: parent.ref for role, parent in parents.items()}])
        with self.registry.workspace(fingerprint) as folder:
            (folder / "weights").write_text(fingerprint)
            return self.registry.register(
                folder, name=kind, kind=kind, fingerprint=fingerprint, metadata={}, parents=list(parents.items())
            )


def place_in(folder: Path) -> Place:
    """Return a project `p` with five labels of three people, and an empty registry."""
    store = LabelStore(f"sqlite:///{folder / 'labels.sqlite'}", create=True)
    place = Place(folder, store, Registry(folder / "registry"))
    place.add(*ROWS)
    return place
