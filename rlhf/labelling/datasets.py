"""Exports of labels as dataset versions of the registry.

Locks are taken in one order, labels before registry, also by an erasure. An export is remembered among the labels
before its version is registered, and registered while nobody can be erased: whatever is killed, a version that is
listed is known to the labels, and the same command carries on.
"""

import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rlhf.labels.exporting.export import (
    DATASHEET,
    ExportedDataset,
    ExportRequest,
    keeping,
    read_facts,
    remember,
    write_export,
)
from rlhf.labels.exporting.export_rows import ExportFormat
from rlhf.labels.store import LabelStore
from rlhf.registry import Artifact, Registry
from rlhf.registry.artifact import check_name, parse_ref
from sft.core.durable import (
    MANIFEST,
    broken_files,
    file_digest,
    json_digest,
    make_folder,
    publish,
    seal,
    storage_errors,
)
from sft.core.errors import DataError, UsageError

DATASET, ERASURE = "dataset", "erasure"
"""Kinds of artifacts: an export of labels, and the mark that a person in it has been erased."""


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


class RegisteredExport(NamedTuple):
    """A dataset version, and what it holds."""

    dataset: Artifact
    exported: ExportedDataset
    is_new: bool
    """False: the same labels were registered before, and this is their version."""
    copy: Path | None

    def as_dict(self) -> dict[str, object]:
        """Return the fields as JSON values."""
        facts = self.exported.facts()
        return {
            "dataset": self.dataset.ref,
            "new": self.is_new,
            "path": str(self.dataset.path),
            "copy": None if self.copy is None else str(self.copy),
            "digest": self.exported.digest,
            **{name: facts[name] for name in ("project", "format", "attribute")},
            **self.exported.counts,
            "event_ids": facts["event_ids"],
        }


def register_export(
    store: LabelStore,
    registry: Registry,
    request: ExportRequest,
    *,
    name: str | None = None,
    output: Path | None = None,
) -> RegisteredExport:
    """Export labels as a dataset version; the same labels are the same version, under the name they first had.

    Args:
        store: of labels.
        registry: gets the version.
        request: which labels, and how.
        name: of the dataset; None: "labels-", the project and the attribute, so that a name stands for one question.
        output: a folder that does not exist yet and gets a copy; None: no copy.

    Raises:
        UsageError: the name is not allowed, the output holds something else, or the request names what is not there.
        DataError: there is nothing to export, or labels have been erased.
        StorageError: a disk or a database refuses; the same command carries on.
    """
    name = _checked_name(_usual_name(request) if name is None else name)
    if output is not None:
        _check_free(output)
    with registry.workspace(json_digest({"export": request, "name": name})) as folder:
        draft = folder / "export"
        exported = write_export(store, request, draft)
        remember(store, exported)
        with keeping(store, exported):
            known = registry.find(exported.digest)
            dataset = _register(registry, draft, name, exported) if known is None else known
    if output is not None:
        _copy(dataset, output)
    return RegisteredExport(dataset, exported, known is None, output)


def training_dataset(registry: Registry, ref: str, *, announce: Callable[[str], None] = _say) -> Artifact:
    """Return the dataset version that a reward model may be trained on, its files verified.

    Args:
        registry: that holds it.
        ref: NAME, of which the newest version of the format csv is taken; or NAME:VERSION, or NAME@ALIAS.
        announce: is told which newer versions were passed over, as of another format.

    Raises:
        UsageError: there is no such version, or it is not an export that names annotator and label in every row.
        DataError: somebody in it has been erased.
        StorageError: its files are not those that were registered.
    """
    dataset = _newest_csv(registry, ref, announce)
    if dataset.kind != DATASET:
        raise UsageError(
            f"{dataset.ref} is no export of labels but of kind {dataset.kind!r}; see `rlhf models list` for those of "
            f"kind {DATASET!r}, or make one: rlhf labels export --format csv"
        )
    registry.check(dataset)
    _check_format(registry, dataset)
    lineage = registry.lineage(dataset.ref)
    if any(lineage.kinds[edge.child_ref] == ERASURE for edge in lineage.descendants):
        raise DataError(
            f"{dataset.ref} holds labels of a person who has been erased; run `rlhf labels export` again and train on "
            "the new version"
        )
    return dataset


def _newest_csv(registry: Registry, ref: str, announce: Callable[[str], None]) -> Artifact:
    """Return what a reference names; a name alone is the newest version that can train, where there is one."""
    wanted = parse_ref(ref)
    versions = [] if wanted.version or wanted.alias else registry.artifacts(wanted.name)
    able = [number for number, version in enumerate(versions) if _is_csv(version)]
    if not able:
        return registry.get(ref)
    found, passed = versions[able[-1]], versions[able[-1] + 1 :]
    if passed:
        others = ", ".join(f"{version.ref} ({version.metadata.get('format', version.kind)})" for version in passed)
        announce(f"data.labels={ref}: takes {found.ref}, the newest version of format csv; passed over: {others}")
    return registry.get(found.ref)


def _check_format(registry: Registry, dataset: Artifact) -> None:
    exported = read_facts(dataset.path)
    if exported.format is ExportFormat.CSV:
        return
    others = [other.ref for other in registry.artifacts(dataset.name) if _is_csv(other)]
    there = f"there is {', '.join(others)}; or " if others else ""
    raise UsageError(
        f"{dataset.ref} was exported as {exported.format.value}, whose rows are not single labels of one question "
        f"with their annotators; {there}make a version of those: rlhf labels export --project {exported.project} "
        "--format csv"
    )


def _is_csv(dataset: Artifact) -> bool:
    return dataset.kind == DATASET and dataset.metadata.get("format") == ExportFormat.CSV


def _usual_name(request: ExportRequest) -> str:
    """Return the name of a dataset: of an attribute it has characters that names may have."""
    if request.attribute is None:
        return f"labels-{request.project}"
    return f"labels-{request.project}-{re.sub('[^a-z0-9._-]+', '-', request.attribute.lower())}"


def _checked_name(name: str) -> str:
    try:
        check_name(name)
    except UsageError as error:
        raise UsageError(f"{error}; name the dataset with --name") from error
    return name


def _register(registry: Registry, draft: Path, name: str, exported: ExportedDataset) -> Artifact:
    facts = exported.facts()
    metadata = {
        "metrics": facts.pop("counts"),
        **facts,
        "annotators": list(exported.annotators),
        "origins": {name: dict(counts) for name, counts in exported.origins.items()},
        "datasheet": DATASHEET,
    }
    return registry.register(draft, name=name, kind=DATASET, fingerprint=exported.digest, metadata=metadata, parents=[])


def _check_free(folder: Path) -> None:
    """Refuse a folder that holds anything but an export, which may be this very one, left by a killed command."""
    is_empty = not folder.exists() or (folder.is_dir() and next(folder.iterdir(), None) is None)
    if not is_empty and not (folder / MANIFEST).is_file():
        raise UsageError(f"{folder} is not empty; give --output a folder that does not exist yet")


def _copy(dataset: Artifact, folder: Path) -> None:
    if (folder / MANIFEST).is_file():
        if file_digest(folder / MANIFEST) == dataset.sha256 and not broken_files(folder):
            return
        raise UsageError(
            f"{dataset.ref} is registered, but {folder} holds something else; give --output a folder that does not "
            "exist yet"
        )
    with _draft(folder) as draft:
        with storage_errors(draft):
            shutil.copytree(dataset.path, draft, dirs_exist_ok=True)
        if seal(draft) != dataset.sha256:
            raise DataError(f"{dataset.ref} is damaged: {dataset.path} is not what was registered; restore it")
        publish(draft, folder)


@contextmanager
def _draft(folder: Path) -> Iterator[Path]:
    """Yield a folder beside `folder`, which is gone in the end unless it was moved into its place."""
    make_folder(folder.absolute().parent)
    with storage_errors(folder):
        draft = Path(tempfile.mkdtemp(dir=folder.absolute().parent, prefix=f".{folder.name}.draft-"))
        draft.chmod(0o755)
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)
