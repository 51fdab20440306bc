"""A registered model as a folder that transformers and vLLM load, with its card and its lineage.

The folder is written beside its place, sealed, and renamed: it is there whole or not at all.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rlhf.model_folders import read_json
from rlhf.publishing.card import check_licence, model_card
from rlhf.publishing.facts import MODELS, SCORERS, Facts, gather
from rlhf.registry import STAGE_FILE, Artifact, Registry
from rlhf.registry.copies import LINEAGE_FILE
from rlhf.run import model_files
from sft.core.durable import (
    MANIFEST,
    file_digest,
    json_digest,
    make_folder,
    seal,
    storage_errors,
    sync_folder,
    write_json,
    write_text,
)
from sft.core.errors import DataError, UsageError
from sft.core.values import mapping

CARD = "README.md"
FORMAT = 1
"""Of the lineage file."""
_NOT_THE_MODEL = (MANIFEST, STAGE_FILE, LINEAGE_FILE)


class Export(NamedTuple):
    """A folder that was written."""

    ref: str
    kind: str
    folder: Path
    content: str
    """Digest of the model's files: an import of the folder finds the same one."""
    files: dict[str, str]
    """The model's files, with their sha256."""
    adapter_of: str | None
    """The version that the adapters stand on; None: the model is whole."""

    def as_dict(self) -> dict[str, object]:
        """Return the fields as JSON values."""
        return {**self._asdict(), "folder": str(self.folder)}


def export_model(
    registry: Registry, ref: str, folder: Path, *, merge_adapters: bool = False, licence: str | None = None
) -> Export:
    """Write a model, its card and its lineage to a folder.

    Args:
        registry: that holds the model.
        ref: NAME, NAME:VERSION or NAME@ALIAS.
        folder: where; it must not exist.
        merge_adapters: write a whole model, also where its adapters were kept; else those alone, as peft does.
        licence: for the card.

    Raises:
        UsageError: the folder exists, or what is named is no model.
        DataError: the version's files are not those that were registered.
        StorageError: the disk refuses; nothing is left at the folder's place.
    """
    check_licence(licence)
    _check_free(folder)
    with registry.in_use():
        artifact = registry.get(ref)
        _check_model(artifact)
        parts = _parts(registry, artifact, merge_adapters)
        _verify(registry, [artifact, *([] if parts.base is None else [parts.base])])
        facts = gather(registry, artifact)
        with _appearing(folder) as draft:
            parts.write(draft)
            files = content_of(draft)
            content = json_digest(files)
            adapter_of = None if parts.base is None else parts.base.ref
            write_json(draft / LINEAGE_FILE, lineage_file(facts, files, adapter_of))
            write_text(draft / CARD, model_card(facts, licence=licence, adapter_of=adapter_of, content=content))
            seal(draft)
    return Export(artifact.ref, artifact.kind, folder, content, files, adapter_of)


def content_of(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file of a model, without what a registry or an export put beside them."""
    return {path.name: file_digest(path) for path in model_files(folder) if path.name not in _NOT_THE_MODEL}


def lineage_file(facts: Facts, files: dict[str, str], adapter_of: str | None) -> dict[str, object]:
    """Return `rlhf-lineage.json`: what a model was made from, down to the counts of label events, and its reports.

    Of an imported model `before` is what its folder said, unchecked. Paths, names of people and single label events are
    not in it: the digests of the label versions pin those.
    """
    return {
        "format": FORMAT,
        "ref": facts.artifact.ref,
        "kind": facts.artifact.kind,
        "sha256": facts.artifact.sha256,
        "fingerprint": facts.artifact.fingerprint,
        "created_at": facts.artifact.created_at,
        "content_sha256": json_digest(files),
        "files": files,
        "adapter_of": adapter_of,
        "ancestors": [edge._asdict() for edge in facts.lineage.ancestors],
        "artifacts": {
            ref: {"kind": facts.lineage.kinds[ref], "sha256": digest} for ref, digest in facts.digests.items()
        },
        "labels": [source.as_dict(events=False) for source in facts.labels],
        "reports": [
            {"ref": r.artifact.ref, "kind": kind, "sha256": r.artifact.sha256, "passed": r.passed}
            for kind, r in facts.reports.items()
        ],
        "erased": facts.erased,
        "before": mapping(read_json(facts.artifact.path / LINEAGE_FILE)) or None,
    }


class _Parts(NamedTuple):
    """What an export writes of a model."""

    write: Callable[[Path], None]
    base: Artifact | None
    """What the adapters stand on; None: the model is written whole."""


def _parts(registry: Registry, artifact: Artifact, merge_adapters: bool) -> _Parts:
    whole = _Parts(lambda draft: _copy(artifact.path, draft), None)
    if merge_adapters or artifact.kind not in SCORERS:
        return whole
    from rlhf.publishing.adapters import keeps_adapters, write_adapters  # here: only these need torch

    if not keeps_adapters(artifact.path):
        return whole
    base = next((registry.get(parent.ref) for parent in artifact.parents if parent.role == "sft"), None)
    if base is None:
        raise UsageError(f"{artifact.ref} does not say which model its adapters stand on; add --merge-adapters")
    return _Parts(lambda draft: write_adapters(artifact, base, draft), base)


def _copy(source: Path, target: Path) -> None:
    for path in model_files(source):
        if path.name not in _NOT_THE_MODEL:
            shutil.copyfile(path, target / path.name)


def _check_free(folder: Path) -> None:
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder} exists; give a folder that does not exist yet")


def _check_model(artifact: Artifact) -> None:
    has_weights = any(artifact.path.glob("*.safetensors"))
    if artifact.kind not in MODELS or not has_weights or not (artifact.path / "config.json").is_file():
        raise UsageError(
            f"{artifact.ref} is no model with weights but of kind {artifact.kind!r}; `rlhf models list` shows models: "
            f"kinds {', '.join(MODELS)}"
        )


def _verify(registry: Registry, artifacts: list[Artifact]) -> None:
    problems = registry.verify(artifacts)
    if problems:
        raise DataError(f"{artifacts[0].ref} is not exported: {'; '.join(problems)}; restore these files from a copy")


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """Give a folder to write in that comes to its place after the block, or is removed."""
    folder = folder.absolute()
    make_folder(folder.parent)
    with storage_errors(folder):
        draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            draft.chmod(0o755)
            yield draft
            _check_free(folder)
            os.rename(draft, folder)
            sync_folder(folder.parent)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
