"""What a stranger's configuration may not do: run code, read the environment, store a password, exhaust memory."""

import ast
import json
import time
from pathlib import Path

import pytest

from rlhf import schema
from rlhf.hydra_limits import hydra_problems, reference_problems, word_problems
from rlhf.preflight import check, conf_dir
from rlhf.yaml_limits import check_yaml
from sft.core.errors import ConfigError, ConfigProblem

ROOT = conf_dir().parent

PAYLOADS = [
    "torch.load",
    "joblib.load",
    "pandas.read_pickle",
    "numpy.load",
    "hydra.utils.get_class",
    "evilmod.x",
    "builtins.open",
    "pathlib.Path.write_text",
    "shutil.copy",
    "urllib.request.urlretrieve",
    "os.system",
    "subprocess.run",
    "builtins.eval",
    "logging.os.system",  # an alias past Hydra's own list, GHSA-37p2-j732-x8pj
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher",  # allowed for the launcher, and nowhere else
]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET", "s3cret")


def problems(*argv: str) -> list[ConfigProblem]:
    with pytest.raises(ConfigError) as caught:
        check(argv)
    assert "s3cret" not in str(caught.value) + repr(caught.value)
    return caught.value.problems


def of_file(text: str, *words: str) -> list[ConfigProblem]:
    """Return the problems of an experiment of the user's."""
    path = Path("user/experiment/mine.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"# @package _global_\n{text}")
    return problems("--config-dir=user", "experiment=mine", *words)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_target_is_accepted_at_any_place_under_hydra(payload: str):
    made: dict[str, object] = {"_target_": payload, "_partial_": True, "_args_": ["x"]}
    node = {
        "job": {},
        "sweeper": made,
        "launcher": {"_target_": PAYLOADS[-1], "inner": made},
        "callbacks": {"a": made, "b": [{"c": [made]}]},
        "job_logging": {
            "handlers": {"x": {"class": payload}},
            "filters": {"x": {"()": payload}},
            "formatters": {"x": {"format": f"ext://{payload}"}},
        },
    }
    found = hydra_problems(node)
    assert {problem.field for problem in found} == {
        "hydra.sweeper._target_",
        "hydra.launcher.inner._target_",
        "hydra.callbacks.a._target_",
        "hydra.callbacks.b[0].c[0]._target_",
        "hydra.job_logging.handlers.x.class",
        "hydra.job_logging.filters.x.()",
        "hydra.job_logging.formatters.x.format",
    }
    assert all("would import" in problem.rule for problem in found)


def test_no_target_is_accepted_on_a_command_line():
    words = {
        "+hydra.callbacks.a._target_=torch.load": "hydra.callbacks.a._target_",
        "+hydra.job_logging.handlers.x.class=evilmod.x": "hydra.job_logging.handlers.x.class",
        "hydra.sweeper._target_=joblib.load": "hydra.sweeper._target_",
        "+hydra.launcher.inner={_target_: logging.os.system, _partial_: true}": "hydra.launcher.inner._target_",
        "+hydra.callbacks.b=[{_target_: os.system}]": "hydra.callbacks.b[0]._target_",
        "+ppo._target_=builtins.eval": "ppo._target_",
    }
    assert {problem.field for problem in problems(*words)} == set(words.values())


def test_no_target_is_accepted_in_a_file():
    text = """
_target_: evilmod.x
ppo:
  _target_: evilmod.x
  nested: {_target_: evilmod.x, _partial_: true, _args_: [x]}
bias: {groups: {women: [{_target_: evilmod.x}]}}
hydra:
  callbacks: {x: {_target_: evilmod.x}}
  launcher: {_target_: evilmod.x}
  job_logging: {filters: {x: {(): evilmod.x}}}
"""
    assert {problem.field for problem in of_file(text)} == {
        "_target_",
        "ppo._target_",
        "ppo.nested",
        "bias.groups.women[0]",
        "hydra.callbacks.x._target_",
        "hydra.launcher._target_",
        "hydra.job_logging.filters.x.()",
    }


def test_a_target_in_a_stored_configuration_is_only_data():
    """Nothing of ours makes objects by name (names that ruff bans); what was stored comes back through `build`."""
    with pytest.raises(ConfigError) as caught:
        schema.build({"ppo": {"_target_": "evilmod.x"}})
    assert [problem.field for problem in caught.value.problems] == ["ppo._target_"]


def test_a_file_of_hydra_s_own_group_is_read_with_the_same_limits():
    Path("user/hydra/launcher").mkdir(parents=True)
    Path("user/hydra/launcher/mine.yaml").write_text("_target_: evilmod.X\n")
    (found,) = problems("--config-dir=user", "hydra/launcher=mine")
    assert (found.field, found.value) == ("hydra.launcher._target_", "evilmod.X")


RESOLVERS = [
    "${oc.env:SECRET}",
    "${ oc.env:SECRET}",
    "${oc.env:SECRET,x}",
    "${oc.decode:'${oc.env:SECRET}'}",
    "${oc.create:{a: 1}}",
    "${oc.select:ppo.gamma}",
    "${oc.dict.values:ppo}",
    "${eval:1+1}",
    "${oc.env:${name}}",
    "${ppo.${oc.env:SECRET}}",
    "\\${oc.env:SECRET}",
    "a ${seed} b ${oc.env:SECRET}",
    "${hydra:${oc.env:SECRET}}",
]


@pytest.mark.parametrize("text", RESOLVERS)
def test_no_resolver_is_accepted_anywhere(text: str):
    (found,) = reference_problems({"a": [{"b": text}]})
    assert (found.field, found.value) == ("a[0].b", text)
    assert "would be written into every saved configuration" in found.rule
    (found,) = hydra_problems({"job": {}, "run": {"dir": f"{text}/x"}})
    assert (found.field, found.value) == ("hydra.run.dir", f"{text}/x")


def test_no_resolver_is_accepted_in_a_file():
    lines = [f"  path: {json.dumps(text)}" for text in RESOLVERS]
    for line in (lines[0], lines[4], lines[8]):
        assert [problem.field for problem in of_file(f"data:\n{line}\n")] == ["data.path"]


@pytest.mark.parametrize(
    ("word", "field"),
    [
        ("wandb.project='${oc.env:SECRET}'", "wandb.project"),
        ("wandb.project=${oc.env:SECRET}", "wandb.project"),
        ("+bias.groups.a=['${oc.env:SECRET}',b]", "bias.groups.a[0]"),
        ("hydra.run.dir=${oc.env:SECRET}/x", "hydra.run.dir"),
        ("hydra.sweep.dir=${oc.env:SECRET}/x", "hydra.sweep.dir"),
        ("hydra.sweep.subdir=${oc.env:SECRET}", "hydra.sweep.subdir"),
        ("hydra.job.name=${oc.env:SECRET}", "hydra.job.name"),
        ("hydra.job_logging.formatters.simple.format=${oc.env:SECRET}", "hydra.job_logging.formatters.simple.format"),
        ("+hydra.sweeper.params={seed: '${oc.env:SECRET}'}", "hydra.sweeper.params"),
    ],
)
def test_no_word_reads_the_environment(word: str, field: str):
    assert field in {problem.field for problem in problems(word)}


def test_a_new_name_with_a_resolver_is_not_resolved_either():
    (found,) = problems("+a=${oc.env:SECRET}")
    assert found.rule.startswith("is unknown")


def test_files_of_hydra_s_groups_may_not_read_the_environment():
    Path("user/hydra/job_logging").mkdir(parents=True)
    Path("user/hydra/job_logging/mine.yaml").write_text("version: 1\nroot: {level: '${oc.env:SECRET}'}\n")
    found = problems("--config-dir=user", "hydra/job_logging=mine")
    assert "hydra.job_logging.root.level" in {problem.field for problem in found}


URL = "postgresql://ann:s3cret@host/db"


@pytest.mark.parametrize(
    ("word", "field"),
    [
        (f"+x={URL}", "x"),
        (f"registry.url={URL}", "registry.url"),
        (f"labels.database_url='{URL}'", "labels.database_url"),
        (f"hydra.sweeper.storage={URL}", "hydra.sweeper.storage"),
        ("wandb.entity=https://ann:s3cret@host", "wandb.entity"),
        ("data.path='https://host/x?password=s3cret'", "data.path"),
        (f"hydra.run.dir={URL}", "hydra.run.dir"),
        (f"+bias.groups.a=[b,'{URL}']", "bias.groups.a"),
        (f"+ppo={{a: '{URL}'}}", "ppo"),
        (f"ppo.gamma=0.9,{URL}", "ppo.gamma"),
        (f"experiment={URL}", "experiment"),
        (f"hydra/launcher={URL}", "hydra/launcher"),
    ],
)
def test_a_password_in_a_url_is_refused_in_any_word_and_never_repeated(word: str, field: str):
    (found,) = word_problems([word])
    assert found.field == field
    assert "***" in str(found.value)
    assert "PGPASSFILE" in found.remedy


@pytest.mark.parametrize("options", [[], ["-m"], ["--cfg", "job"], ["--info", "config"]])
def test_words_with_a_password_go_no_further(options: list[str]):
    words = [f"+x={URL}", f"hydra.sweeper.storage={URL}", f"wandb.entity={URL}", f"ppo.gamma=0.9,{URL}"]
    fields = [problem.field for problem in problems(*options, *words)]
    assert fields == ["x", "hydra.sweeper.storage", "wandb.entity", "ppo.gamma"]


def test_nor_is_one_in_an_option_repeated():
    assert len(problems(f"--config-dir={URL}", f"--config-path={URL}", f"--foo={URL}", f"~{URL}")) == 4


def test_a_password_in_a_file_is_refused_and_never_repeated():
    text = f"""
wandb: {{project: '{URL}'}}
bias: {{groups: {{'{URL}': [a], b: [c, '{URL}']}}}}
new: {{deep: [{{url: '{URL}'}}]}}
hydra:
  run: {{dir: '{URL}'}}
  sweeper: {{params: {{seed: '{URL}'}}}}
"""
    found = [problem.field for problem in of_file(text) if "holds a password" in problem.rule]
    assert set(found) == {
        "wandb.project",
        "bias.groups",
        "bias.groups.b[1]",
        "new.deep[0].url",
        "hydra.run.dir",
        "hydra.sweeper.params.seed",
    }


def test_what_looks_like_a_password_and_is_none():
    assert word_problems(["registry.url=postgresql://ann@host:5432/x", "data.path=a:b@c", "model.path=org/name"]) == []


def bomb(levels: int, width: int) -> str:
    lines = [f"a0: &a0 [{', '.join('x' * width)}]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels + 1)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        bomb(5, 8),
        bomb(200, 10),
        "a: &a {b: *a}\n",
        "a: &a [1]\nb: {<<: [" + ", ".join(["*a"] * 5500) + "]}\n" + "c: [" + "*a, " * 5500 + "*a]",
        "{a: " * 30 + "1" + "}" * 30,
        "a: !!python/object/apply:os.system [ls]",
        "a: !!python/name:os.system",
        "a: !!python/object/new:os.system [ls]",
        "!!python/module:os",
    ],
)
def test_yaml_that_grows_or_makes_objects_is_refused_in_100_ms(tmp_path: Path, text: str):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    start = time.process_time()
    with pytest.raises(ConfigError):
        check_yaml(path)
    spent = time.process_time() - start
    assert spent < 0.1


def test_no_source_file_of_ours_trusts_remote_code_or_makes_objects_by_name():
    """Pickles, `eval`, shells and unsafe YAML are ruff's to find (`S` rules and banned names in pyproject.toml)."""
    files = [path for package in ("sft", "reward", "rlhf", "experiments") for path in (ROOT / package).rglob("*.py")]
    assert len(files) > 200
    trusting = [
        f"{path.relative_to(ROOT)}:{node.value.lineno}"
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.keyword)
        and node.arg in ("trust_remote_code", "allow_pickle")
        and not (isinstance(node.value, ast.Constant) and node.value.value is False)
    ]
    assert trusting == []
