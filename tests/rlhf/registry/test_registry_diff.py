import json
from pathlib import Path

import pytest
from registries import add
from typer.testing import CliRunner

from rlhf.registry import Registry
from rlhf.registry.commands import app
from rlhf.registry.difference import Change, Metric, difference
from sft.core.durable import text_digest
from sft.core.errors import StorageError


def estimate(value: float, low: float, high: float, n: int = 200) -> dict[str, object]:
    return {"value": value, "ci": [low, high], "n": n}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(tmp_path / "registry")
    one, two = add(registry, "sft", "s1"), add(registry, "sft", "s2")
    metadata: dict[str, object] = {
        "seed": 0,
        "settings": {"lr": 1e-3, "groups": {"women": ["she"]}},
        "metrics": {
            "win_rate": estimate(0.6, 0.5, 0.7),
            "kl": 3.5,
            "same": 1,
            "judge": "gold",
            "reward": estimate(1, 0, 2),
        },
    }
    add(registry, "policy", "p1", kind="policy", metadata=metadata, parents=[("sft", one), ("reward", two)])
    changed = {
        "seed": 1,
        "settings": {"lr": 1e-3, "groups": {"women": ["she", "her"]}},
        "metrics": {"win_rate": estimate(0.8, 0.75, 0.85), "kl": 3.0, "same": 1, "reward": estimate(2, 1, 3)},
    }
    given = {"kind": "policy", "metadata": changed, "parents": [("sft", two), ("reward", two)]}
    add(registry, "policy", "p2", **given, stage={"more": True})
    return registry


def test_everything_that_differs_and_how_much_is_equal(registry):
    found = difference(registry.get("policy:1"), registry.get("policy:2"))
    assert found.facts == [Change("seed", 0, 1), Change("settings.groups.women", ["she"], ["she", "her"])]
    assert [(metric.name, metric.change, metric.overlap) for metric in found.metrics] == [
        ("judge", None, None),
        ("kl", -0.5, None),
        ("reward", 1.0, True),
        ("win_rate", pytest.approx(0.2), False),
    ]
    assert found.metrics[0] == Metric("judge", "gold", None, None, None)
    assert found.metrics[3].a == estimate(0.6, 0.5, 0.7)
    assert found.parents == [Change("sft", ["sft:1"], ["sft:2"])]
    names = [change.name for change in found.files]
    assert names == ["stage.json", "weights/model.safetensors"]
    assert found.files[0].a is None
    assert found.files[1] == Change("weights/model.safetensors", text_digest("p1"), text_digest("p2"))
    assert found.same == {"facts": 2, "metrics": 1, "parents": 1, "files": 0}


def test_a_version_does_not_differ_from_itself(registry):
    found = difference(registry.get("policy"), registry.get("policy:2"))
    assert (found.facts, found.metrics, found.parents, found.files) == ([], [], [], [])
    assert found.same == {"facts": 4, "metrics": 4, "parents": 2, "files": 2}


def test_the_command(registry):
    arguments = ["diff", "policy:1", "policy:2", "--registry", str(registry.root)]
    document = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert document["a"] == "policy:1"
    assert document["metrics"][3]["b"] == estimate(0.8, 0.75, 0.85)
    assert document["files"][1]["b"] == text_digest("p2")
    text = CliRunner().invoke(app, arguments).stdout
    for expected in ("0.6 [0.5, 0.7] n=200", "+0.2", "settings.groups.women", text_digest("p2")[:12], "1 parents"):
        assert expected in text


def test_a_manifest_that_is_not_the_registered_one_is_not_compared(registry):
    manifest = registry.get("policy:1").path / "MANIFEST.json"
    manifest.write_text(manifest.read_text().replace("1", "2", 1))
    with pytest.raises(StorageError, match="not the one that was registered; see `rlhf models verify policy:1`"):
        difference(registry.get("policy:1"), registry.get("policy:2"))
