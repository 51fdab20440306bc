"""Trees against the configuration dataclasses: every field, every kind of mistake."""

import copy
import re
from dataclasses import is_dataclass

import pytest

from rlhf import schema
from rlhf.config import ExperimentConfig, KLEstimator
from sft.core.errors import ConfigError, ConfigProblem


def tree_with(name: str, value: object) -> dict[str, object]:
    tree: dict[str, object] = {}
    node = tree
    *sections, key = name.split(".")
    for section in sections:
        node[section] = node = {}  # type: ignore[assignment]
    node[key] = value
    return tree


def problems(tree: dict[str, object]) -> list[ConfigProblem]:
    with pytest.raises(ConfigError) as caught:
        schema.build(tree)
    return caught.value.problems


def test_defaults_come_back_unchanged():
    tree = schema.defaults()
    before = copy.deepcopy(tree)
    assert schema.build(tree) == ExperimentConfig()
    assert tree == before
    assert schema.build({}) == ExperimentConfig()
    assert schema.to_tree(schema.build(tree)) == before


def test_from_stands_under_its_yaml_name():
    assert schema.defaults()["sft"]["from"] is None  # type: ignore[index]
    assert schema.build({"sft": {"from": "sft:3"}}).sft.from_ == "sft:3"
    assert "from_" not in str(schema.defaults())


def test_values_of_each_kind_are_read():
    tree = {
        "seed": 7,
        "data": {"path": None},
        "ppo": {"kl_coef": 1, "kl_estimator": "k3", "whiten_rewards": True, "cliprange_high": 0.3},
        "bias": {"groups": {"women": ["a"], "men": ["b"]}},
    }
    config = schema.build(tree)
    assert config.seed == 7
    assert config.ppo.kl_coef == 1.0
    assert type(config.ppo.kl_coef) is float
    assert config.ppo.kl_estimator is KLEstimator.K3
    assert config.ppo.whiten_rewards is True
    assert config.ppo.cliprange_high == 0.3
    assert config.bias.groups == {"women": ["a"], "men": ["b"]}


def test_null_removes_an_entry_of_a_free_mapping():
    config = schema.build(
        {
            "bias": {"groups": {"women": None, "men": None, "north": ["a"], "south": ["b"]}},
            "simulation": {"planted_group": "north"},
        }
    )
    assert list(config.bias.groups) == ["north", "south"]


def test_a_wrong_type_of_every_field_is_reported_under_its_dotted_name():
    tried = 0
    for leaf in schema.leaves():
        kind = str(schema._kinds(leaf.section)[leaf.attribute])
        text_field = "str" in kind
        for wrong in (
            4.5 if kind.startswith("list") else [1],
            object(),
            3 if text_field else "x",
            {"a": 1} if "dict" not in kind else 3,
        ):
            found = problems(tree_with(leaf.name, wrong))
            assert [problem.field for problem in found] == [leaf.name], (leaf.name, wrong, found)
            assert found[0].value is wrong
            assert found[0].rule.startswith("must be")
            tried += 1
    assert tried == 4 * len(schema.leaves())
    assert len(schema.leaves()) > 80


def test_a_section_that_is_no_mapping_is_reported():
    sections = [name for name, value in schema.defaults().items() if isinstance(value, dict)]
    for name in sections:
        (found,) = problems({name: 3})
        assert (found.field, found.value) == (name, 3)
        assert "section" in found.rule
    assert len(sections) == 14


def test_a_typo_of_every_key_names_the_right_key():
    tried = 0
    for leaf in schema.leaves():
        section, _, key = leaf.name.rpartition(".")
        typo = f"{section}.{key}x" if section else f"{key}x"
        (found,) = problems(tree_with(typo, 1))
        assert found.field == typo
        assert found.rule.startswith(schema.UNKNOWN)
        assert re.match(rf"did you mean {re.escape(leaf.name)}[ ?]", found.remedy)
        assert found.remedy.endswith("all names: `rlhf run --cfg job`")
        tried += 1
    assert tried == len(schema.leaves())


@pytest.mark.parametrize("wrong", [4.5, "4", True, None, float("nan")])
def test_whole_numbers_are_strict(wrong: object):
    (found,) = problems({"ppo": {"batch_size": wrong}})
    assert found.field == "ppo.batch_size"
    assert "whole number" in found.rule


@pytest.mark.parametrize(
    ("wrong", "rule"), [("0.1", "a number"), (True, "a number"), (float("nan"), "finite"), (float("inf"), "finite")]
)
def test_numbers_are_strict(wrong: object, rule: str):
    (found,) = problems({"ppo": {"kl_coef": wrong}})
    assert found.field == "ppo.kl_coef"
    assert rule in found.rule


def test_an_unknown_choice_lists_the_choices_and_the_nearest():
    (found,) = problems({"wandb": {"mode": "ofline"}})
    assert found.field == "wandb.mode"
    assert found.value == "ofline"
    assert found.rule == "must be one of auto, online, offline, disabled"
    assert "wandb.mode=offline" in found.remedy


def test_a_key_in_the_wrong_place_names_its_place():
    (found,) = problems({"kl_coef": 0.1})
    assert found.remedy.startswith("did you mean ppo.kl_coef? ")


def test_a_word_run_together_is_recognised():
    (found,) = problems({"sft": {"batchsize": 4}})
    assert found.remedy.startswith("did you mean sft.per_device_train_batch_size")


def test_an_abbreviation_names_up_to_three_that_may_be_meant():
    (found,) = problems({"ppo": {"lr": 3}})
    assert found.remedy.startswith("did you mean ppo.learning_rate or ppo.lora_r or ppo.lr_scheduler_type? ")


def test_an_unknown_section_is_said_to_be_unknown():
    found = schema.unknown_key("foo.bar", 3)
    assert found.rule == "is unknown: there is no section 'foo'"
    assert found.remedy.startswith("the configuration has: seed, model, ")


def test_a_target_is_refused_for_what_it_would_do():
    found = schema.unknown_key("foo._target_", "os.system")
    assert "would name code to import" in found.rule
    assert "foo has" not in found.remedy


def test_entries_of_lists_and_mappings_are_named():
    found = problems({"bias": {"groups": {"women": ["a", 1], "men": 3, 5: ["x"]}}})
    assert [problem.field for problem in found] == ["bias.groups.women[1]", "bias.groups.men", "bias.groups.5"]


def test_everything_is_reported_at_once_and_nothing_twice():
    found = problems(
        {
            "seed": "one",
            "modell": {},
            "model": {"max_position_embeddings": 100},
            "data": {"source": "files", "path": "x", "test_fraction": 0.9},
            "ppo": {"batch_size": 96, "num_mini_batches": 5, "kl_coeff": 0.1, "gamma": 2},
            "reward": {"judge_fraction": "a third"},
        }
    )
    assert sorted(problem.field for problem in found) == [
        "data.test_fraction",
        "model.max_position_embeddings",
        "modell",
        "ppo.batch_size",
        "ppo.gamma",
        "ppo.kl_coeff",
        "reward.judge_fraction",
        "seed",
    ]
    batch = next(problem for problem in found if problem.field == "ppo.batch_size")
    assert "ppo.num_mini_batches=5" in batch.rule
    assert batch.remedy == "use 95 or 100"


def test_unknown_keys_alone():
    tree = {"ppo": {"kl_coeff": 1, "gamma": "text"}, "x": {"y": 1}}
    assert [problem.field for problem in schema.unknown_keys(tree)] == ["ppo.kl_coeff", "x"]


def test_sections_are_dataclasses():
    assert is_dataclass(ExperimentConfig)
    assert schema.is_free_mapping("bias.groups")
    assert not schema.is_free_mapping("ppo.kl_coef")
