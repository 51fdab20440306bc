"""Every YAML file of conf/ composes, says what it is for, and holds only what differs from the defaults."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from omegaconf import OmegaConf

from rlhf import schema
from rlhf.preflight import check, conf_dir
from sft.core.errors import ConfigError

FILES = sorted(conf_dir().rglob("*.yaml"))
LEFT_TO_THE_USER = {"data.path", "model.path", "reward.judge_fraction"}
"""What a file may leave out because only the user knows it."""


def test_all_files_are_found():
    assert len(FILES) >= 18
    assert {path.parent.name for path in FILES} >= {"conf", "model", "data", "bias", "wandb", "runtime", "experiment"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(conf_dir())))
def test_composes(path: Path):
    group, option = path.parent, path.stem
    words = [] if group == conf_dir() else [f"{group.relative_to(conf_dir())}={option}"]
    missing = fields_in_error(words)
    assert missing <= LEFT_TO_THE_USER
    assert not missing or option not in ("quickstart", "config")


def fields_in_error(words: list[str]) -> set[str]:
    try:
        check(words)
    except ConfigError as error:
        return {problem.field for problem in error.problems}
    return set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(conf_dir())))
def test_says_what_it_is_for_and_names_no_code(path: Path):
    lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
    assert lines[0].startswith("# ")
    assert len(lines[0]) > 20
    assert "_target_" not in path.read_text()


def leaves(node: object, name: str) -> Iterator[tuple[str, object]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, f"{name}.{key}" if name else key)
    else:
        yield name, node


class Settings(NamedTuple):
    """What a file sets itself, and what the experiments that it builds on set."""

    own: dict[str, object]
    below: dict[str, object]


def settings(path: Path) -> Settings:
    tree = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(tree, dict)
    is_experiment = path.parent.name == "experiment"
    below: dict[str, object] = {}
    for word in tree.pop("defaults", []):
        if is_experiment and isinstance(word, str) and word != "_self_":
            base = settings(path.with_name(f"{word}.yaml"))
            below |= base.below | base.own
    tree.pop("hydra", None)
    is_whole = is_experiment or path.parent.name == "conf"
    return Settings(dict(leaves(tree, "" if is_whole else path.parent.name)), below)


def test_no_file_repeats_what_holds_without_it():
    defaults = dict(leaves(schema.defaults(), ""))
    compared = 0
    for path in FILES:
        found = settings(path)
        for name, value in found.own.items():
            compared += 1
            assert name.startswith("bias.groups.") or name in defaults, f"{path}: {name} is no field"
            assert value != {**defaults, **found.below}.get(name, object()), f"{path}: {name} repeats {value!r}"
    assert compared > 20


def test_groups_are_fields_of_the_configuration():
    groups = {path.parent.name for path in FILES} - {"conf", "experiment"}
    assert groups <= schema.defaults().keys()


def test_terms_of_the_simulated_people_correspond():
    (point,) = check(["experiment=quickstart"])
    groups = point.config.bias.groups
    assert list(groups) == ["women", "men", "nonbinary"]
    terms = [term for terms in groups.values() for term in terms]
    assert len(set(terms)) == len(terms) == 42
    assert all(term == term.lower() and term.isalpha() for term in terms)
    assert [group[-2:] for group in groups.values()] == [["she", "her"], ["he", "him"], ["they", "them"]]


def test_the_named_experiments_say_what_they_are():
    (point,) = check(["experiment=quickstart"])
    assert (point.experiment, point.config.data.source) == ("quickstart", "simulated")
    (point,) = check(["experiment=hh_harmless", f"data.path={FILES[0]}"])
    assert (point.config.data.source, point.config.data.format) == ("files", "hh")
    assert point.config.reward.judge_fraction == 0.35
    (point,) = check(["experiment=hh_qwen", f"data.path={FILES[0]}"])
    assert (point.config.model.kind, point.config.model.pad_token) == ("pretrained", "<|fim_pad|>")
    assert (point.config.runtime.device, point.config.runtime.dtype) == ("cuda", "bfloat16")
