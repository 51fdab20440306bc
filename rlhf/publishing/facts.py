"""What the registry knows of a model: its data, its training, and the reports about this very version."""

from collections.abc import Sequence
from typing import NamedTuple

from rlhf.labelling.datasets import ERASURE
from rlhf.model_folders import read_json
from rlhf.publishing.checked import recorded_file
from rlhf.publishing.label_sources import LabelSource, label_sources
from rlhf.registry import STAGE_FILE, Artifact, Lineage, Registry
from rlhf.run import read_stage
from sft.core.errors import DataError
from sft.core.values import Json, mapping, text

MODELS = ("policy", "critic", "reward", "judge", "sft", "base")
SCORERS = ("reward", "judge", "critic")
_COMPARISONS = "comparisons"
_REPORTED_AS = {
    "policy": {"evaluation": "policy", "bias": "policy"},
    "reward": {"bias": "reward", "reward-report": "reward"},
    "judge": {"reward-report": "judge"},
}
"""Kind of a model -> kinds of the reports about it, with the role that it has in them."""


class Training(NamedTuple):
    """How one of the models behind a version was made."""

    artifact: Artifact
    settings: Json
    metrics: Json
    environment: Json


class Report(NamedTuple):
    """A report about a version."""

    artifact: Artifact
    stage: Json

    @property
    def passed(self) -> bool | None:
        """The report's own verdict; None: it holds none."""
        passed = self.stage.get("passed")
        return passed if isinstance(passed, bool) else None


class Base(NamedTuple):
    """The pretrained model that training began with."""

    hub_id: str | None
    """None: a folder, or not recorded."""
    sha256: str


class Facts(NamedTuple):
    """All that a card and a lineage file say of a version."""

    artifact: Artifact
    lineage: Lineage
    trainings: list[Training]
    """Of the version itself and of every model behind it, nearest first."""
    labels: list[LabelSource]
    comparisons: list[Artifact]
    reports: dict[str, Report]
    """The latest of each kind; a kind that is missing was not measured."""
    assessments: dict[str, Report]
    """Reward models and judges behind the version, with the latest report on each."""
    digests: dict[str, str]
    """Of everything that the version was made from."""
    erased: list[str]
    """Versions behind it that hold labels of people who have been erased since."""
    unknown_origin: list[str]
    """Models behind it, or itself, that came from a folder: what made them is not known here."""
    base: Base | None

    @property
    def ancestors(self) -> list[str]:
        """References of all that the version was made from, nearest first."""
        return list(dict.fromkeys(edge.parent_ref for edge in self.lineage.ancestors))


def gather(registry: Registry, artifact: Artifact) -> Facts:
    """Return what is known of a version. Raises DataError where a record behind it cannot be read."""
    lineage = registry.lineage(artifact.ref)
    refs = dict.fromkeys([artifact.ref, *(edge.parent_ref for edge in lineage.ancestors)])
    behind = [registry.get(ref, removed=True) for ref in refs]
    scorers = [found for found in behind if found.kind in ("reward", "judge") and found.ref != artifact.ref]
    assessed = {found.ref: reports_about(registry, found).get("reward-report") for found in scorers}
    labels = label_sources(registry, lineage)
    return Facts(
        artifact,
        lineage,
        [_training(found) for found in behind if found.kind in MODELS],
        labels,
        [found for found in behind if found.kind == _COMPARISONS],
        reports_about(registry, artifact),
        {ref: report for ref, report in assessed.items() if report is not None},
        {found.ref: found.sha256 for found in behind[1:]},
        [source.ref for source in labels if _is_marked(registry, source.ref)],
        [found.ref for found in behind if _came_from_a_folder(found)],
        _base(behind),
    )


def reports_about(registry: Registry, artifact: Artifact) -> dict[str, Report]:
    """Return the latest report of each kind that is about a very version."""
    roles = _REPORTED_AS.get(artifact.kind, {})
    lineage = registry.lineage(artifact.ref)
    own = (edge for edge in lineage.descendants if edge.parent_ref == artifact.ref)
    refs = dict.fromkeys(edge.child_ref for edge in own if roles.get(lineage.kinds[edge.child_ref]) == edge.role)
    made = [found for ref in refs if (found := registry.get(ref, removed=True)).removed_at is None]
    ordered = sorted(made, key=lambda report: (report.created_at, report.version))
    return {report.kind: Report(report, stage_of(report)) for report in ordered}


def stage_of(artifact: Artifact) -> Json:
    """Return what a stage said of its product. Raises DataError where it cannot be read, StorageError for damage."""
    recorded_file(artifact, STAGE_FILE)
    try:
        return read_stage(artifact.path)
    except (OSError, ValueError, AssertionError) as error:
        raise DataError(
            f"{artifact.path}: stage.json cannot be read; see `rlhf models verify {artifact.ref}`"
        ) from error


def _training(artifact: Artifact) -> Training:
    known = artifact.metadata
    parts = (mapping(known.get(name)) for name in ("settings", "metrics", "environment"))
    settings, metrics, environment = parts
    return Training(
        artifact, {**settings, "seed": known["seed"]} if "seed" in known else settings, metrics, environment
    )


def _came_from_a_folder(artifact: Artifact) -> bool:
    if artifact.kind not in MODELS or artifact.removed_at is not None:
        return "imported" in artifact.metadata
    return "imported" in artifact.metadata or "adopted_from" in stage_of(artifact)


def _is_marked(registry: Registry, ref: str) -> bool:
    lineage = registry.lineage(ref)
    return any(lineage.kinds[edge.child_ref] == ERASURE for edge in lineage.descendants if edge.parent_ref == ref)


def _base(behind: Sequence[Artifact]) -> Base | None:
    for artifact in behind:
        path = artifact.path / "source.json"
        if artifact.kind == "base" and path.is_file():
            said = read_json(path)
            if said is None or not isinstance(said.get("path"), str):
                raise DataError(f"{path} cannot be read; see `rlhf models verify {artifact.ref}`")
            return Base(text(said["path"]) if said.get("hub") is True else None, text(said.get("sha256")))
    return None
