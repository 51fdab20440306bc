"""A registry as a run leaves it: real tiny models, labels of a database and of a file, reports; names that attack."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from labels_and_registry import Place, place_in

from rlhf.labelling.datasets import register_export
from rlhf.labels.exporting.export import ExportRequest
from rlhf.labels.exporting.export_rows import ExportFormat
from rlhf.labels.importing.imports import import_file
from rlhf.registry import Artifact
from sft.core.durable import json_digest, write_json, write_jsonl

ATTACK = "<img src=x onerror=alert(1)>|[click](javascript:alert(1))`<script>alert(2)</script>\u202e"
"""What a stranger writes as source, licence, check or note."""
SECRET = "Wilhelmina"
"""A person's name, which must not leave."""
FILE_PEOPLE = ("Ottokar", "Leopoldine", "Ottokar", None)
"""Who gave the labels of a file, in its order."""


class Published(NamedTuple):
    """What a run left."""

    place: Place
    dataset: Artifact
    """Three people's labels, exported from the database."""
    labels: Artifact
    """Labels of a file."""
    sft: Artifact
    reward: Artifact
    policy: Artifact
    evaluation: Artifact
    bias: Artifact


def estimate(value: float, n: int = 40) -> dict[str, object]:
    return {"value": value, "ci": [value - 0.125, value + 0.0625], "n": n}


EVALUATION = {
    "win_rate": estimate(0.7539),
    "kl": estimate(9.8761, 41),
    "policy_gold": estimate(-1.2345),
    "judge": ATTACK,
}
REWARD_REPORT = {
    "accuracy": {**estimate(0.8642, 77), "longer_wins": 0.5432, "longer_wins_ci": [0.4321, 0.6543], "ceiling": None},
    "ece": 0.03168,
    "temperature": 1.1965,
}
CHECKS: list[dict[str, object]] = [
    {"name": "swap_one", "group": "women", "effect": -0.2719, "ci": [-0.3561, -0.1877], "n": 368, "limit": 0.15}
    | {"passed": False, "note": ""},
    {"name": ATTACK, "group": ATTACK, "effect": 0.0123, "ci": [-0.5, 0.25], "n": 31, "limit": 0.35}
    | {"passed": True, "note": ATTACK},
]
SKIPPED = [{"name": "length", "group": "all", "n": 7, "reason": f"too few {ATTACK}"}]


def publish(folder: Path, sft_folder: Path, reward_folder: Path) -> Published:
    """Return labels -> comparisons -> reward -> policy with reports, in a registry and a database of labels."""
    place = place_in(folder)
    path = folder / "sourced.jsonl"
    path.write_text(json.dumps({"prompt": "p9", "response_a": "x", "response_b": "y", "label": "a", "annotator": "Bo"}))
    import_file(place.store, "p", path, source=ATTACK, licence="cc-by-4.0")
    path.unlink()
    dataset = register_export(place.store, place.registry, ExportRequest("p", ExportFormat.CSV)).dataset
    labels = register(place, "labels", labels_of_a_file(folder), metrics={"judgements": 4}, parents=[])
    parents = [("labels", dataset), ("labels", labels)]
    comparisons = register(
        place, "comparisons", {}, metrics={"comparisons": 17, "tie_rate": estimate(0.1919)}, parents=parents
    )
    base = register(place, "base", sft_folder, parents=[])
    sft = register(place, "sft", sft_folder, metrics={"eval_loss": 0.7201}, parents=[("base", base)])
    made_of = [("sft", sft), ("comparisons", comparisons)]
    settings = {"learning_rate": 0.00034, ATTACK: ATTACK}
    reward = register(place, "reward", reward_folder, metrics={"comparisons": 15}, settings=settings, parents=made_of)
    report = {"metrics": REWARD_REPORT}
    register(place, "reward-report", {"stage.json": report}, metrics=REWARD_REPORT, parents=[("reward", reward)])
    made_of = [("sft", sft), ("reward", reward)]
    policy = register(place, "policy", sft_folder, metrics={"objective/kl": 10.0416, "iterations": 40}, parents=made_of)
    parents = [("sft", sft), ("reward", reward), ("policy", policy)]
    stage: dict[str, object] = {"metrics": EVALUATION, "passed": True, "samples": [{"prompt": "a secret prompt"}]}
    evaluation = register(place, "evaluation", {"stage.json": stage}, metrics=EVALUATION, parents=parents)
    stage = {
        "metrics": {"checks": 2, "failed": 1},
        "passed": False,
        "suite": ATTACK,
        "checks": CHECKS,
        "skipped": SKIPPED,
    }
    bias = register(place, "bias", {"stage.json": stage}, metrics={"checks": 2, "failed": 1}, parents=parents)
    return Published(place, dataset, labels, sft, reward, policy, evaluation, bias)


def labels_of_a_file(folder: Path) -> Path:
    """Return a folder with the rows that stage `labels` registers."""
    made = folder / "rows"
    write_jsonl(
        made / "labels.jsonl", [{"annotator": name, "sha256": f"{n}" * 64} for n, name in enumerate(FILE_PEOPLE)]
    )
    return made


def register(
    place: Place,
    kind: str,
    content: Path | Mapping[str, object],
    *,
    metrics: Mapping[str, object] | None = None,
    settings: Mapping[str, object] | None = None,
    parents: Sequence[tuple[str, Artifact]],
) -> Artifact:
    """Register a copy of a folder, or JSON files, as the pipeline registers a product."""
    metadata = {"metrics": metrics or {}, "settings": settings or {}, "seed": 5, "environment": {"torch": "2.13.0"}}
    fingerprint = json_digest([kind, str(content), [(role, parent.ref) for role, parent in parents]])
    with place.registry.workspace(fingerprint) as workspace:
        write_json(workspace / "stage.json", {"metrics": metrics or {}})
        if isinstance(content, Path):
            shutil.copytree(content, workspace, dirs_exist_ok=True)
        else:
            for name, value in content.items():
                write_json(workspace / name, value)
        return place.registry.register(
            workspace, name=kind, kind=kind, fingerprint=fingerprint, metadata=metadata, parents=parents
        )
