import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from rlhf.cli import models_app as app
from rlhf.registry import Registry
from sft.core.errors import UsageError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """labels -> comparisons -> reward -> policy; base -> sft -> reward, policy; reports of policy."""
    registry = Registry(tmp_path_factory.mktemp("commands") / "registry")
    plan = {
        "base": [],
        "labels": [],
        "comparisons": ["labels"],
        "sft": ["base"],
        "reward": ["comparisons", "sft"],
        "policy": ["sft", "reward"],
        "evaluation": ["policy"],
        "bias": ["policy", "reward"],
    }
    made = {}
    for name, parents in plan.items():
        with registry.workspace(name) as folder:
            (folder / "content").write_text(name)
            metadata = {"metrics": {"kl": 3.123456789, "[bold]n": 3}} if name == "policy" else {}
            given = {"name": name, "kind": name, "fingerprint": name, "metadata": metadata}
            made[name] = registry.register(folder, **given, parents=[(parent, made[parent]) for parent in parents])
    registry.set_alias(made["policy"], "candidate")
    return registry.root


def invoke(root: Path, *args: str) -> Result:
    return CliRunner().invoke(app, [*args, "--registry", str(root)])


def test_list(root):
    result = invoke(root, "list")
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ["name", "version", "kind", "aliases", "tags", "created", "made", "from"]
    assert [line[0] for line in lines[1:]] == sorted(
        ["base", "bias", "comparisons", "evaluation", "labels", "policy", "reward", "sft"]
    )
    policy = next(line for line in lines if line[0] == "policy")
    assert policy[1:4] == ["1", "policy", "candidate"]
    assert policy[5:] == ["sft:1,", "reward:1"]
    assert "\x1b" not in result.stdout


def test_list_of_one_name_as_json(root):
    result = invoke(root, "list", "policy", "--json")
    (row,) = json.loads(result.stdout)
    assert (row["name"], row["version"], row["aliases"]) == ("policy", 1, ["candidate"])


def test_list_of_an_empty_registry(tmp_path):
    Registry(tmp_path)
    result = invoke(tmp_path, "list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "is empty" in result.stderr
    assert json.loads(invoke(tmp_path, "list", "--json").stdout) == []


def test_show_as_json(root):
    shown = json.loads(invoke(root, "show", "policy@candidate", "--json").stdout)
    artifact = Registry(root).get("policy:1")
    assert shown == {
        "ref": "policy:1",
        "name": "policy",
        "version": 1,
        "kind": "policy",
        "path": str(root / "policy" / "1"),
        "sha256": artifact.sha256,
        "fingerprint": "policy",
        "created_at": artifact.created_at,
        "aliases": ["candidate"],
        "tags": [],
        "removed_at": None,
        "promotions": [],
        "parents": [{"role": "sft", "ref": "sft:1"}, {"role": "reward", "ref": "reward:1"}],
        "metadata": {"metrics": {"kl": 3.123456789, "[bold]n": 3}},
        "reports": ["evaluation:1", "bias:1"],
    }


def test_show_as_text(root):
    text = invoke(root, "show", "policy").stdout
    for expected in (str(root / "policy" / "1"), "sft:1 (sft)", "evaluation:1", "candidate", "3.12346", "[bold]n"):
        assert expected in text


def test_only_reports_about_the_very_artifact_are_shown(root):
    assert json.loads(invoke(root, "show", "reward", "--json").stdout)["reports"] == ["bias:1"]
    assert json.loads(invoke(root, "show", "sft", "--json").stdout)["reports"] == []


def test_lineage_as_text(root):
    lines = [line.strip(" │├└─") for line in invoke(root, "lineage", "policy").stdout.splitlines()]
    assert lines == [
        "policy:1 [policy]",
        "made from",
        "base:1 -> sft:1 -> policy:1",
        "labels:1 -> comparisons:1 -> reward:1 -> policy:1",
        "base:1 -> sft:1 -> reward:1 -> policy:1",
        "led to",
        "evaluation:1 [evaluation], used as policy",
        "bias:1 [bias], used as policy",
        "labelled by: labels:1: people not recorded",
    ]


def test_lineage_of_the_first_label_reaches_every_report_and_expands_a_diamond_once(root):
    text = invoke(root, "lineage", "labels").stdout
    assert "nothing that is registered" in text
    assert "evaluation:1 [evaluation], used as policy" in text
    below_sft = invoke(root, "lineage", "sft").stdout
    assert below_sft.count("evaluation:1") == 1
    assert below_sft.count("stands at its other line") == 1


def test_lineage_as_json(root):
    lineage = json.loads(invoke(root, "lineage", "policy", "--json").stdout)
    assert lineage["ref"] == "policy:1"
    assert {"child_ref": "comparisons:1", "role": "labels", "parent_ref": "labels:1"} in lineage["ancestors"]
    assert lineage["kinds"]["labels:1"] == "labels"


@pytest.mark.parametrize(
    "command", [["list", "polcy"], ["show", "polcy"], ["lineage", "polcy"], ["show", "polcy", "--json"]]
)
def test_errors_are_ours_and_print_nothing(root, command):
    result = invoke(root, *command)
    assert isinstance(result.exception, UsageError)
    assert "did you mean policy?" in str(result.exception)
    assert result.stdout == ""


@pytest.mark.parametrize("command", [["list"], ["show", "policy"], ["lineage", "policy"]])
def test_a_missing_registry_is_explained_and_not_made(tmp_path, command):
    result = invoke(tmp_path / "nothing", *command)
    assert isinstance(result.exception, UsageError)
    assert "no registry in" in str(result.exception)
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("command", [[], ["list"], ["show"], ["lineage"]])
def test_every_command_has_help(command):
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert "registry" in result.output.lower() or command == []


def test_loading_the_commands_loads_no_database():
    code = "import sys, rlhf.registry.commands; print([m for m in sys.modules if m.startswith('sqlalchemy')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
