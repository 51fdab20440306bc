"""A model that comes from a folder brings claims along: they are told as such, and what is known beside them."""

import json
import shutil
from pathlib import Path

import pytest
from published import Published, publish
from typer.testing import CliRunner

from rlhf.cli import models_app
from rlhf.publishing.claims import Claim, claims
from rlhf.publishing.export import export_model
from rlhf.publishing.graph import lineage_graph
from rlhf.publishing.importing import import_model
from rlhf.publishing.page import render
from rlhf.registry import Registry
from sft.core.durable import seal
from sft.core.errors import StorageError


def claims_of(registry: Registry, ref: str) -> list[Claim]:
    return claims(registry, registry.lineage(ref))


def output(registry: Registry, *words: str) -> str:
    result = CliRunner().invoke(models_app, [*words, "--registry", str(registry.root)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


@pytest.fixture(scope="module")
def folder(published: Published, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the policy as it left the registry."""
    return export_model(published.place.registry, "policy", tmp_path_factory.mktemp("left") / "out").folder


@pytest.fixture
def registry(folder: Path, tmp_path: Path) -> Registry:
    """Return another registry that holds the policy as `theirs`."""
    registry = Registry(tmp_path / "other")
    import_model(registry, folder, name="theirs")
    return registry


def test_what_a_folder_claimed(registry: Registry, published: Published):
    (claim,) = claims_of(registry, "theirs")
    policy = published.policy
    said = {"ref": "policy:1", "kind": "policy", "sha256": policy.sha256, "created_at": policy.created_at}
    assert (claim.ref, claim.said, claim.same_files) == ("theirs:1", said, [])
    assert set(claim.made_from) == {"reward:1", "sft:1", "base:1", "comparisons:1", "labels-p:1", "labels:1"}
    assert claim.labels == ["labels-p:1: 6 label events of 3 people", "labels:1: 4 label events of 2 people"]
    (words,) = claim.sentences()
    assert words.startswith(
        "theirs:1 came from a folder, which claims (not checked): ref policy:1, kind policy, sha256"
    )
    assert words.endswith("labelled by labels-p:1: 6 label events of 3 people, labels:1: 4 label events of 2 people")


def test_models_on_the_way_too_and_what_was_made_here_claims_nothing(registry: Registry, published: Published):
    with registry.workspace("f") as made:
        parents = [("sft", registry.get("theirs"))]
        registry.register(made, name="policy", kind="policy", fingerprint="f", metadata={}, parents=parents)
    assert [claim.ref for claim in claims_of(registry, "policy")] == ["theirs:1"]
    assert claims_of(published.place.registry, "policy") == []


def test_the_registry_that_it_left_knows_the_files(tmp_path: Path, folder: Path, sft_folder: Path, reward_folder: Path):
    own = publish(tmp_path, sft_folder, reward_folder).place.registry
    exported = export_model(own, "policy", tmp_path / "out").folder
    import_model(own, exported, name="theirs")
    (claim,) = claims_of(own, "theirs")
    assert "policy:1" in claim.same_files
    known = " and ".join(claim.same_files)
    wanted = f"theirs:1 has the same files as {known}; its lineage is known: rlhf models lineage {claim.same_files[0]}"
    assert claim.sentences()[1] == wanted
    assert wanted in output(own, "lineage", "theirs")
    assert json.loads(output(own, "lineage", "theirs", "--json"))["claims"] == [claim._asdict()]
    assert json.loads(output(own, "show", "theirs", "--json"))["same_files"] == claim.same_files
    shown = output(own, "show", "theirs")
    assert "a folder, which claims (not checked): ref policy:1, kind policy" in shown
    assert "same files" in shown
    assert "same files" not in output(own, "show", "policy")
    assert "theirs:1 (the same files as policy:1)" in output(own, "used-by", "Ottokar")


def test_on_the_page(registry: Registry):
    lineage = registry.lineage("theirs")
    graph = lineage_graph(registry, lineage, [])
    (node,) = graph.nodes
    assert "came from a folder" in node.lines
    text = render(graph, [], claims(registry, lineage))
    assert "claimed, not checked" in text
    assert "ref policy:1; kind policy" in text
    assert "labels:1: 4 label events of 2 people" in text
    assert "What folders claimed" not in render(graph, [], [])


@pytest.mark.parametrize(
    "lineage",
    [
        {"ref": 5, "artifacts": ["x"], "labels": [3, {"ref": ["a"], "labels": "many", "people": 4}]},
        {"ref": "x\n\x1b[31mpolicy:1 is yours\u202e" + "y" * 999, "labels": {}, "artifacts": {"a\nb": 0}},
        {"artifacts": {f"labels:{number}": 0 for number in range(99)}},
        [],
    ],
)
def test_whatever_a_stranger_claims(folder: Path, tmp_path: Path, lineage: object, sft_folder: Path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for path in sft_folder.iterdir():
        (theirs / path.name).write_bytes(path.read_bytes())
    (theirs / "rlhf-lineage.json").write_text(json.dumps(lineage))
    registry = Registry(tmp_path / "r")
    import_model(registry, theirs, name="theirs", kind="sft")
    (words,) = output(registry, "lineage", "theirs").splitlines()[5:]
    assert words.isprintable()
    assert len(words) < 600
    assert words.startswith("theirs:1 came from a folder, which claims (not checked): ")
    assert "\x1b" not in output(registry, "show", "theirs")


def test_a_damaged_claim_is_not_told(registry: Registry):
    file = registry.get("theirs").path / "rlhf-lineage.json"
    file.write_text(file.read_text().replace('"labels": 4', '"labels": 5'))
    with pytest.raises(StorageError, match=f"{file}: not the one that was registered; `rlhf models verify` names"):
        claims_of(registry, "theirs")
    seal(file.parent)
    with pytest.raises(StorageError, match=r"MANIFEST.json: not the one that was registered; see `rlhf models verify"):
        claims_of(registry, "theirs")


def test_of_a_removed_model_the_first_words_are_left(registry: Registry, folder: Path, tmp_path: Path):
    changed = shutil.copytree(folder, tmp_path / "changed", ignore=shutil.ignore_patterns("MANIFEST.json"))
    (changed / "generation_config.json").write_text("{}")
    import_model(registry, changed, name="theirs")
    assert "theirs:1" in {useless.what for useless in registry.sweep(remove=True).found}
    (claim,) = claims_of(registry, "theirs:1")
    assert (claim.said["ref"], claim.made_from, claim.same_files) == ("policy:1", [], [])
