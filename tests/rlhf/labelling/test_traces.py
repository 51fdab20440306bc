"""What was made from labels is followed through models that left the registry and came back."""

from pathlib import Path

from labels_and_registry import Place, place_in

from rlhf.labelling.traces import affected
from rlhf.registry import Artifact


def add(place: Place, name: str, kind: str, weights: str, **parents: Artifact) -> Artifact:
    with place.registry.workspace(name) as folder:
        (folder / "model.safetensors").write_text(weights)
        return place.registry.register(
            folder, name=name, kind=kind, fingerprint=name, metadata={}, parents=list(parents.items())
        )


def test_copies_of_what_was_made_from_copies(tmp_path: Path):
    place = place_in(tmp_path)
    labels = place.make("labels")
    add(place, "reward", "reward", "A", labels=labels)
    returned = add(place, "returned", "reward", "A")
    add(place, "policy", "policy", "B", reward=returned)
    add(place, "again", "sft", "B")
    add(place, "unrelated", "sft", "C")
    found = affected(place.registry, [labels])
    assert (found.datasets, found.reward_models) == (["labels:1"], ["reward:1", "returned:1"])
    assert (found.policies, found.others) == (["policy:1"], ["again:1"])
    assert found.same_files == {"returned:1": "reward:1", "again:1": "policy:1"}
    assert affected(place.registry, []) == ([], [], [], [], {})
