"""A folder of a model from elsewhere as a version of the registry, after everything in it was checked."""

from pathlib import Path
from typing import NamedTuple

from rlhf.model_folders import read_json
from rlhf.publishing.checks import Problem, architecture, import_problems, left_out
from rlhf.publishing.claims import said_in
from rlhf.publishing.export import content_of
from rlhf.publishing.facts import SCORERS
from rlhf.registry import STAGE_FILE, Artifact, Registry
from rlhf.registry.artifact import check_name
from rlhf.registry.copies import LINEAGE_FILE
from rlhf.run import copy_model
from sft.core.durable import MANIFEST, json_digest, write_json
from sft.core.errors import DataError, UsageError
from sft.core.values import counted, mapping, text
from sft.core.visible import visible

KINDS = ("sft", "policy", "reward", "judge")
"""What may be imported."""


class FolderError(DataError):
    """A folder that is not imported, with every problem of it."""

    def __init__(self, folder: Path, problems: list[Problem]) -> None:
        self.folder, self.problems = folder, problems
        super().__init__(folder, problems)  # args stay picklable

    def __str__(self) -> str:
        """Return a heading and one line per problem."""
        heading = f"{self.folder} is not imported: {counted(len(self.problems), 'problem')}"
        return "\n".join([heading, *(f"  {problem}" for problem in self.problems)])

    def as_dict(self) -> dict[str, object]:
        """Return it as JSON values."""
        shown = [{name: visible(part) for name, part in problem._asdict().items()} for problem in self.problems]
        return {"error": str(self), "exit_code": self.exit_code, "problems": shown}


class Imported(NamedTuple):
    """A version that holds the model of a folder."""

    artifact: Artifact
    is_new: bool
    """False: the same files were imported before, and this is their version."""
    content: str
    """Digest of the model's files."""
    left_out: list[str]
    """Files of the folder that were not taken over."""

    def as_dict(self) -> dict[str, object]:
        """Return the fields as JSON values."""
        return {
            "ref": self.artifact.ref,
            "kind": self.artifact.kind,
            "new": self.is_new,
            "path": str(self.artifact.path),
            "content": self.content,
            "left_out": self.left_out,
        }


def import_model(registry: Registry, folder: Path, *, name: str, kind: str | None = None) -> Imported:
    """Check a folder, copy its model and register it; the same files are the same version of a name.

    Args:
        registry: gets the version.
        folder: as `save_pretrained` or `export_model` writes it.
        name: of the artifact.
        kind: what it is; None: "reward" where it scores answers, else what its `rlhf-lineage.json` says.

    Raises:
        UsageError: the folder is not there, the name is not allowed, or the kind is not known.
        FolderError: everything that keeps the folder from being imported; nothing was written.
        DataError: the folder changed while it was read.
        StorageError: the disk or the database refuses; the same command carries on.
    """
    check_name(name)
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; give one that save_pretrained or `rlhf models export` wrote")
    kind = _kind(folder) if kind is None else _checked(kind)
    check_folder(folder, kind)
    files = content_of(folder)
    fingerprint = json_digest({"import": files, "kind": kind, "name": name})
    found = registry.find(fingerprint)
    is_new = found is None
    if found is None:
        with registry.workspace(fingerprint) as workspace:
            found = registry.find(fingerprint) or _register(registry, folder, workspace, name, kind, fingerprint, files)
    return Imported(found, is_new, json_digest(files), left_out(folder, {*files, LINEAGE_FILE}))


def check_folder(folder: Path, kind: str) -> None:
    """Raise FolderError that names everything which keeps a folder from being imported."""
    problems = import_problems(folder, kind)
    if problems:
        raise FolderError(folder, problems)


def _checked(kind: str) -> str:
    if kind not in KINDS:
        raise UsageError(f"--kind {kind} is not known; use one of {', '.join(KINDS)}")
    return kind


def _kind(folder: Path) -> str:
    """Return what a folder says it is; nothing is guessed."""
    if "ForSequenceClassification" in architecture(mapping(read_json(folder / "config.json"))):
        return "reward"
    said = text(mapping(read_json(folder / LINEAGE_FILE)).get("kind"))
    if said in KINDS and said not in SCORERS:
        return said
    raise UsageError(f"{folder} does not say what it is; give --kind {' or --kind '.join(KINDS)}")


def _register(
    registry: Registry, folder: Path, workspace: Path, name: str, kind: str, fingerprint: str, files: dict[str, str]
) -> Artifact:
    copy_model(folder, workspace)
    (workspace / MANIFEST).unlink(missing_ok=True)  # theirs also names files that are not taken over
    if content_of(workspace) != files or import_problems(workspace, kind):
        raise DataError(f"{folder} changed while it was read; import it again once nobody writes there")
    write_json(workspace / STAGE_FILE, {"metrics": {}})
    about = {"content_sha256": json_digest(files), "said": said_in(mapping(read_json(folder / LINEAGE_FILE)))}
    return registry.register(
        workspace,
        name=name,
        kind=kind,
        fingerprint=fingerprint,
        metadata={"metrics": {}, "imported": about},
        parents=[],
    )
