"""The door before Hydra: each kind of mistake, all at once, for every point of a sweep, and quickly."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlhf.inputs import file_problems, tokenizer_problems
from rlhf.preflight import MAX_POINTS, check, check_something_asked, conf_dir, parse
from rlhf.yaml_limits import MAX_BYTES, check_yaml
from sft.core.errors import ConfigError, ConfigProblem, UsageError

ROOT = conf_dir().parent


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def problems(*argv: str) -> list[ConfigProblem]:
    with pytest.raises(ConfigError) as caught:
        check(argv)
    return caught.value.problems


MISTAKES = [
    ("ppo.kl_coeff=0.1", "ppo.kl_coeff", 0.1, "is unknown", "did you mean ppo.kl_coef or "),
    ("+ppo.kl_coeff=0.1", "ppo.kl_coeff", 0.1, "is unknown", "did you mean ppo.kl_coef or "),
    ("++ppo.kl_coeff=0.1", "ppo.kl_coeff", 0.1, "is unknown", "did you mean ppo.kl_coef or "),
    ("~ppo.kl_coeff", "ppo.kl_coeff", None, "is unknown", "did you mean ppo.kl_coef or "),
    ("kl_coef=0.1", "kl_coef", 0.1, "is unknown", "ppo.kl_coef?"),
    ("experimnt=quickstart", "experimnt", "quickstart", "is unknown", "experiment?"),
    ("modl=tiny", "modl", "tiny", "is unknown", "model?"),
    ("modl/x=tiny", "modl/x", "tiny", "is unknown", "model"),
    ("+ppo.kl_coef=0.1", "ppo.kl_coef", 0.1, "'+' adds a new name", "write ppo.kl_coef=0.1"),
    ("+experiment=quickstart", "experiment", "+experiment=quickstart", "'+' adds", "write experiment=quickstart"),
    ("bias.groups.teens=[a]", "bias.groups.teens", ["a"], "is new", "+bias.groups.teens"),
    ("experiment=quikstart", "experiment", "quikstart", "no such file in conf/experiment", "did you mean quickstart?"),
    ("experiment=../config", "experiment", "../config", "no such file", "available: hh_harmless"),
    ("model=big", "model", "big", "no such file in conf/model", "available: pretrained, tiny"),
    ("ppo.batch_size=many", "ppo.batch_size", "many", "must be a whole number, not a text", "ppo.batch_size=4"),
    ("ppo.batch_size=4.5", "ppo.batch_size", 4.5, "not a fraction", "whole number"),
    ("ppo=3", "ppo", 3, "must be a section", "set one of its fields"),
    ("ppo={kl_coeff: 1}", "ppo.kl_coeff", 1, "is unknown", "did you mean ppo.kl_coef or "),
    ("wandb.mode=ofline", "wandb.mode", "ofline", "must be one of auto, online", "wandb.mode=offline"),
    ("ppo.gamma=1.5", "ppo.gamma", 1.5, "between 0 and 1", "[0, 1]"),
    ("ppo.num_mini_batches=5", "ppo.batch_size", 128, "not a multiple of ppo.num_mini_batches=5", "use 125 or 130"),
    ("model.max_position_embeddings=64", "model.max_position_embeddings", 64, "less than the longest", "192"),
    ("model=pretrained", "model.path", None, "is required by model.kind=pretrained", "hub id"),
    ("model.path=org/name", "model.path", "org/name", "not read with model.kind=tiny", "add model=pretrained"),
    ("data.path=x.jsonl", "data.path", "x.jsonl", "not read with data.source=simulated", "data=files"),
    ("sft.from=./models/sft", "sft.from", "./models/sft", "no existing folder", "NAME:VERSION"),
    ("reward.from='Bad Name'", "reward.from", "Bad Name", "nor a registered model", "rlhf models list"),
    ("ppo.kl_coef=[", "ppo.kl_coef", "[", "no override that Hydra can read", "quotes"),
    ("ppo.kl_coef=0.1,0.2", "ppo.kl_coef", "0.1,0.2", "several values to a single run", "add -m"),
    ("ppo.kl_coef='${oc.env:HOME}'", "ppo.kl_coef", "${oc.env:HOME}", "calls a resolver", "write the value"),
    ("data.path='???'", "data.path", "???", "is required", "set it: data.path"),
    ("ppo.lam='${ppo.nothing}'", "ppo.lam", "${...}", "cannot be composed", "correct it"),
    ("+hydra.callbacks.x._target_=os.system", "hydra.callbacks.x._target_", "os.system", "import and run", "remove"),
    ("+foo._target_=os.system", "foo._target_", "os.system", "would name code to import", "remove it"),
    ("hydra.launcher._target_=os.system", "hydra.launcher._target_", "os.system", "BasicLauncher", "remove"),
    (
        "hydra.job_logging.handlers.file.class=evil.X",
        "hydra.job_logging.handlers.file.class",
        "evil.X",
        "run",
        "remove",
    ),
    (
        "hydra.job_logging.handlers.console.stream=ext://os.x",
        "hydra.job_logging",
        "ext://os.x",
        "import code",
        "remove",
    ),
    ("hydra.run.dir='${oc.env:HOME}'", "hydra.run.dir", "${oc.env:HOME}", "resolver", "write the value"),
    ("hydra.searchpath=[/tmp]", "hydra.searchpath", ["/tmp"], "not checked", "--config-dir"),
    ("hydra.job.env_copy=[PATH]", "hydra.job.env_copy", ["PATH"], "environment", "shell"),
    ("hydra.job.chdir=true", "hydra.job.chdir", True, "relative paths", "leave it out"),
    ("hydra.nonsense=1", "hydra.nonsense", "1", "cannot be composed", "correct it"),
    ("hydra/launcher=nonsense", "hydra/launcher", "nonsense", "no such file", "available: basic"),
    ("--experimental-rerun=x.pkl", "--experimental-rerun", "x.pkl", "unpickles", "same overrides"),
    ("--config-path=/tmp", "--config-path", "/tmp", "replace the built-in", "--config-dir"),
    ("--config-dir=nowhere", "--config-dir", "nowhere", "no folder", "existing folder"),
    ("--config-name=other", "--config-name", "other", "no such file", "conf"),
    ("--multrun", "option", "--multrun", "is no option", "--multirun"),
]


@pytest.mark.parametrize(("word", "field", "value", "rule", "remedy"), MISTAKES, ids=[case[0] for case in MISTAKES])
def test_a_mistake_is_named_with_its_rule_and_remedy(word: str, field: str, value: object, rule: str, remedy: str):
    (found,) = problems(word)
    if word.startswith("hydra.job_logging"):
        assert found.field.startswith(field)
    else:
        assert found.field == field
    assert found.value == value
    assert rule in found.rule
    assert remedy in found.remedy


@pytest.mark.parametrize("words", [[], ["-m"], ["--config-dir", "mine"]])
def test_a_command_without_a_word_is_told_what_there_is_to_run(words: list[str]):
    Path("mine/experiment").mkdir(parents=True)
    Path("mine/experiment/ours.yaml").write_text("seed: 1\n")
    with pytest.raises(UsageError) as caught:
        check_something_asked(parse(words))
    own = ", ours" if "mine" in words else ""
    assert f"experiments: hh_harmless, hh_qwen, iterative{own}, quickstart" in str(caught.value)
    assert "try first: rlhf run experiment=quickstart" in str(caught.value)


@pytest.mark.parametrize(
    "words", [["seed=1"], ["experiment=quickstart"], ["--config-name", "other"], ["-m", "seed=1,2"]]
)
def test_one_word_is_enough(words: list[str]):
    check_something_asked(parse(words))


def test_all_mistakes_are_reported_at_once_and_each_once():
    found = problems(
        "-m",
        "experiment=quikstart",
        "ppo.kl_coeff=0.1,0.2",
        "+sft.batchsize=4",
        "ppo.batch_size=many",
        "ppo.gamma=1.0,1.5,2.5",
        "data=files",
        "data.path=missing.jsonl",
        "reward.judge_fraction=0.3",
        "seed=0,1",
        "--jsn",
    )
    assert [problem.field for problem in found] == [
        "option",
        "experiment",
        "ppo.kl_coeff",
        "sft.batchsize",
        "ppo.batch_size",
        "data.path",
        "ppo.gamma",
        "ppo.gamma",
    ]
    assert [problem.value for problem in found if problem.field == "ppo.gamma"] == [1.5, 2.5]


def test_points_of_a_sweep():
    points = check(["-m", "experiment=quickstart", "ppo.kl_coef=0.02,0.05", "seed=range(0,3)"])
    assert [(point.config.ppo.kl_coef, point.config.seed) for point in points] == [
        (kl_coef, seed) for kl_coef in (0.02, 0.05) for seed in (0, 1, 2)
    ]
    assert points[0].overrides == ["experiment=quickstart", "ppo.kl_coef=0.02", "seed=0"]
    assert {point.experiment for point in points} == {"quickstart"}


def test_options_may_stand_anywhere():
    assert len(check(["seed=0,1", "-m", "ppo.gamma=0.9,1.0"])) == 4
    assert parse(["a=1", "--multirun", "b=2"]).overrides == ["a=1", "b=2"]


def test_choices_and_globs_of_files_are_swept():
    points = check(["-m", "wandb=glob(*)", "runtime=choice(cpu,gpu)"])
    assert len(points) == 8
    assert {str(point.config.wandb.mode) for point in points} == {"auto", "offline", "online", "disabled"}


def test_a_mistake_in_one_point_of_swept_files():
    (found,) = problems("-m", "runtime=cpu,gpuu")
    assert (found.field, found.value, found.remedy[:17]) == ("runtime", "gpuu", "did you mean gpu?")


def test_what_a_sweep_cannot_do():
    (interval,) = problems("-m", "ppo.kl_coef=interval(0,1)")
    assert "interval" in interval.rule
    (hydra,) = problems("-m", "hydra.run.dir=a,b")
    assert "cannot be swept" in hydra.rule
    (many,) = problems("-m", f"seed=range(0,{MAX_POINTS})", "ppo.gamma=0.9,1")
    assert f"more than {MAX_POINTS}" in many.rule
    assert many.value == 2 * MAX_POINTS


def test_sweeps_that_files_ask_for(tmp_path: Path):
    write(tmp_path / "experiment" / "many.yaml", SWEEP)
    points = check(["--config-dir", str(tmp_path), "experiment=many"])
    assert [point.config.seed for point in points] == [1, 2]
    write(tmp_path / "experiment" / "many.yaml", SWEEP.replace("1,2", "1,x"))
    (found,) = problems("--config-dir", str(tmp_path), "experiment=many")
    assert (found.field, found.value) == ("seed", "x")


SWEEP = """# @package _global_
hydra:
  mode: MULTIRUN
  sweeper:
    params:
      seed: 1,2
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_files_of_the_user_are_found_and_offered(tmp_path: Path):
    write(tmp_path / "experiment" / "mine.yaml", "# @package _global_\nppo:\n  kl_coef: 0.3\n")
    (point,) = check(["--config-dir", str(tmp_path), "experiment=mine", "ppo.gamma=0.9"])
    assert (point.experiment, point.config.ppo.kl_coef, point.config.ppo.gamma) == ("mine", 0.3, 0.9)
    (found,) = problems("--config-dir", str(tmp_path), "experiment=mime")
    assert "did you mean mine?" in found.remedy
    assert "hh_harmless, hh_qwen, iterative, mine, quickstart" in found.remedy
    assert str(tmp_path / "experiment") in found.rule


def test_a_file_of_the_user_is_never_hidden_silently(tmp_path: Path):
    write(tmp_path / "experiment" / "quickstart.yaml", "# @package _global_\nseed: 3\n")
    (found,) = problems("--config-dir", str(tmp_path), "experiment=quickstart")
    assert found.field == "experiment"
    assert "hides" in found.rule
    assert "another name" in found.remedy


def test_mistakes_in_files_of_the_user(tmp_path: Path):
    text = "# @package _global_\nppo:\n  kl_coeff: 0.3\n  gamma: 2\nhydra:\n  callbacks:\n    x:\n      _target_: a.B\n"
    write(tmp_path / "experiment" / "mine.yaml", text)
    found = problems("--config-dir", str(tmp_path), "experiment=mine")
    assert {problem.field for problem in found} == {"ppo.kl_coeff", "ppo.gamma", "hydra.callbacks.x._target_"}


def test_broken_yaml_is_named_with_file_and_line(tmp_path: Path):
    path = write(tmp_path / "experiment" / "broken.yaml", "# @package _global_\nppo:\n  kl_coef: : 1\n")
    found = problems("--config-dir", str(tmp_path), "experiment=broken", "seed=x")
    assert [problem.field for problem in found] == [f"{path}:3", "seed"]
    assert found[0].value == "kl_coef: : 1"
    assert "no valid YAML" in found[0].rule
    assert "line 3" in found[0].remedy


def test_a_broken_file_that_is_not_chosen_does_no_harm(tmp_path: Path):
    write(tmp_path / "experiment" / "broken.yaml", "a: : 1\n")
    assert len(check(["--config-dir", str(tmp_path), "experiment=quickstart"])) == 1


def test_an_alias_bomb_is_refused_at_once(tmp_path: Path):
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 6)]
    path = write(tmp_path / "experiment" / "bomb.yaml", "\n".join(levels))
    start = time.perf_counter()
    (found,) = problems("--config-dir", str(tmp_path), "experiment=bomb")
    assert time.perf_counter() - start < 2
    assert found.field.startswith(str(path))
    assert "aliases" in found.rule


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("a: &a [*a]", "exceeds"),
        ("[" * 25 + "]" * 25, "levels"),
        ("x: '" + "y" * MAX_BYTES + "'", "larger than"),
        ("- a\n- b\n", "key: value"),
        ("defaults:\n  - /../../etc/x\n", "outside"),
        ("hydra:\n  searchpath: [/tmp]\n", "not checked"),
        ("a: !!python/object/apply:os.system [ls]\n", "no valid YAML"),
        ("a: 2024-13-45\n", "no valid YAML"),
    ],
)
def test_yaml_limits(tmp_path: Path, text: str, rule: str):
    with pytest.raises(ConfigError) as caught:
        check_yaml(write(tmp_path / "x.yaml", text))
    assert rule in caught.value.problems[0].rule


def test_yaml_in_another_encoding(tmp_path: Path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"a: \xff\xfe\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        check_yaml(path)


def test_every_yaml_of_ours_is_within_the_limits():
    files = list(conf_dir().rglob("*.yaml"))
    assert len(files) >= 18
    for path in files:
        check_yaml(path)


def test_looking_at_a_configuration_checks_names_only():
    assert check(["experiment=hh_harmless", "--cfg", "job"]) == []
    assert check(["--help"]) == check(["--version"]) == check(["--info", "config"]) == []
    (found,) = problems("--cfg", "job", "ppo.kl_coeff=1")
    assert found.field == "ppo.kl_coeff"


def test_a_plain_reference_is_written_out():
    (point,) = check(["ppo.critic_learning_rate='${ppo.learning_rate}'"])
    assert point.config.ppo.critic_learning_rate == point.config.ppo.learning_rate


def test_removing_a_setting_gives_its_default():
    (point,) = check(["experiment=quickstart", "~ppo.learning_rate", "~bias.groups.nonbinary"])
    assert point.config.ppo.learning_rate == 3e-6
    assert list(point.config.bias.groups) == ["women", "men"]


def test_groups_of_people_can_be_added():
    (point,) = check(["+bias.groups.teens=[a,b,c,d,e,f,g,h,i,j,k]"])
    assert list(point.config.bias.groups) == ["women", "men", "teens"]


def test_wrong_source_does_not_cause_a_second_error():
    (found,) = problems("data.source=fils", "data.path=nowhere.jsonl")
    assert found.field == "data.source"


def test_data_files(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    write(tmp_path / "good.jsonl", "{}")
    words = ["data=files", "reward.judge_fraction=0.3", "data.path=good.jsonl"]
    assert len(check(words)) == 1
    found = problems(*words, "data.sft_path=folder", "data.prompts_path=missing.csv")
    assert [(problem.field, problem.value) for problem in found] == [
        ("data.sft_path", "folder"),
        ("data.prompts_path", "missing.csv"),
    ]
    assert "is no file" in found[0].rule
    assert str(tmp_path) in found[1].rule


def test_a_broken_rule_does_not_hide_a_missing_file_of_the_same_section():
    found = problems("data=files", "data.path=missing.jsonl", "data.test_fraction=0.9", "reward.judge_fraction=0.3")
    assert [problem.field for problem in found] == ["data.test_fraction", "data.path"]


def test_registry_root(tmp_path: Path):
    write(tmp_path / "file", "")
    assert check(["registry.root=new/deep/folder"])[0].config.registry.root == "new/deep/folder"
    assert not (tmp_path / "new").exists()
    (found,) = problems("registry.root=file/registry")
    assert found.field == "registry.root"
    assert "is no folder" in found.rule


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_registry_root_without_permission(tmp_path: Path):
    (tmp_path / "locked").mkdir(mode=0o500)
    (found,) = problems("registry.root=locked/registry")
    assert "cannot be written" in found.rule


@pytest.mark.parametrize("reference", ["sft", "hh-sft:3", "sft:v3", "hh.sft_2@champion", "sft:latest"])
def test_references_to_registered_models(reference: str):
    assert check([f"sft.from='{reference}'"])[0].config.sft.from_ == reference


def model_folder(folder: Path, **files: object) -> Path:
    """Write a model's folder: `tokenizer_config={...}` becomes tokenizer_config.json."""
    contents: dict[str, object] = {
        "config": {"eos_token_id": 0, "pad_token_id": 1},
        "tokenizer": {
            "added_tokens": [{"id": 0, "content": "<end>"}, {"id": 1, "content": "<pad>"}, {"id": 2, "content": "<x>"}],
            "model": {"vocab": {"a": 3}},
        },
        "tokenizer_config": {"eos_token": "<end>", "pad_token": "<pad>"},
    } | files
    folder.mkdir()
    for name, value in contents.items():
        if value is not None:
            (folder / f"{name}.json").write_text(value if isinstance(value, str) else json.dumps(value))
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def test_a_good_model_folder(tmp_path: Path):
    model_folder(tmp_path / "model")
    assert len(check(["model=pretrained", "model.path=model"])) == 1
    assert len(check(["model=pretrained", "model.path=model", "model.pad_token='<x>'"])) == 1


@pytest.mark.parametrize(
    ("files", "rule"),
    [
        ({"tokenizer": None, "tokenizer_config": None}, "lacks a tokenizer"),
        ({"config": None}, "lacks config.json"),
        ({"config": {"auto_map": {"AutoModel": "evil.X"}}}, "`auto_map`"),
        ({"tokenizer_config": {"auto_map": {}}}, "`auto_map`"),
        ({"config": "{broken"}, "no JSON objects"),
    ],
)
def test_bad_model_folders(tmp_path: Path, files: dict[str, object], rule: str):
    model_folder(tmp_path / "model", **files)
    (found,) = problems("model=pretrained", "model.path=model")
    assert found.field == "model.path"
    assert rule in found.rule


def test_a_model_folder_without_safetensors(tmp_path: Path):
    folder = model_folder(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    (found,) = problems("model=pretrained", "model.path=model")
    assert "safetensors" in found.rule
    (found,) = problems("sft.from=model")
    assert found.field == "sft.from"


@pytest.mark.parametrize("path", ["nowhere", "./nowhere", "a/b/c", "/abs/model"])
def test_a_model_path_that_is_neither_folder_nor_hub_id(path: str):
    (found,) = problems("model=pretrained", f"model.path={path}")
    assert (found.field, found.value) == ("model.path", path)


PAD_IS_EOS: dict[str, object] = {"eos_token": "<end>", "pad_token": {"content": "<end>"}}


@pytest.mark.parametrize(
    ("files", "pad_token", "rule", "remedy"),
    [
        ({"tokenizer_config": PAD_IS_EOS}, None, "pads with its EOS '<end>'", "model.pad_token='<pad>'"),
        ({"tokenizer_config": {"eos_token": "<end>"}, "config": {}}, None, "has no pad token", "'<pad>'"),
        ({"tokenizer_config": {}, "config": {"eos_token_id": [0, 2], "pad_token_id": 0}}, None, "EOS '<end>'", "<pad>"),
        ({}, "<end>", "is the EOS token", "'<pad>'"),
        ({}, "<none>", "is no token of", "'<pad>'"),
        ({"tokenizer_config": {}, "config": {}}, None, "has no EOS", "eos_token"),
    ],
)
def test_tokenizers_that_cannot_pad(
    tmp_path: Path, files: dict[str, object], pad_token: str | None, rule: str, remedy: str
):
    (found,) = tokenizer_problems(model_folder(tmp_path / "model", **files), pad_token)
    assert rule in found.rule
    assert remedy in found.remedy


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"tokenizer_config": {}},  # ids of config.json
        {"tokenizer_config": {}, "config": {}, "special_tokens_map": {"eos_token": "<end>", "pad_token": "<x>"}},
        {
            "tokenizer": {"model": {"vocab": [["<end>", 0.0], ["<pad>", -1.0]]}},  # unigram
            "tokenizer_config": {},
        },
        {
            "tokenizer": None,
            "vocab": {"<end>": 0, "<pad>": 1},
            "tokenizer_config": {"eos_token": "<end>", "pad_token": "<pad>"},
        },
        {"tokenizer": {"added_tokens": "nonsense", "model": 3}},
    ],
)
def test_tokenizers_that_can_pad(tmp_path: Path, files: dict[str, object]):
    assert tokenizer_problems(model_folder(tmp_path / "model", **files), None) == []


def test_a_missing_pad_token_reaches_the_command_line(tmp_path: Path):
    model_folder(tmp_path / "model", tokenizer_config=PAD_IS_EOS)
    (found,) = problems("model=pretrained", "model.path=model")
    assert found.field == "model.pad_token"
    assert len(check(["model=pretrained", "model.path=model", "model.pad_token='<pad>'"])) == 1


def test_a_hub_id_is_not_looked_up():
    (point,) = check(["model=pretrained", "model.path=Qwen/Qwen2.5-0.5B"])
    assert file_problems(point.config) == []


def test_answers_quickly_and_without_torch():
    code = (
        "import sys; from rlhf.preflight import check; check(sys.argv[1:]);"
        "print(*(name for name in ('torch', 'transformers', 'sqlalchemy') if name in sys.modules))"
    )
    words = ["-m", "experiment=quickstart", "ppo.kl_coef=0.02,0.05,0.1"]
    start = time.perf_counter()
    run = subprocess.run(
        [sys.executable, "-c", code, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert time.perf_counter() - start < 3
    assert run.stdout.split() == []


def test_a_run_that_cannot_fit_is_refused_once_and_at_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rlhf.preflight.available_memory", lambda: 700 << 20)
    start = time.perf_counter()
    (found,) = problems("-m", "runtime=cpu", "seed=range(0,20)")
    assert time.perf_counter() - start < 3
    assert (found.field, found.value) == ("ppo.micro_batch_tokens", 4096)
    assert "734,003,200 (700.0 MiB) are available on this machine" in found.rule
    tokens, rows = (word.partition("=")[2] for word in found.remedy.removeprefix("use ").split())
    words = ["runtime=cpu", f"ppo.micro_batch_tokens={tokens}", f"ppo.generation_batch_size={rows}"]
    assert len(check(words)) == 1


def test_a_mistake_is_told_before_the_memory_is_planned(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rlhf.preflight.available_memory", lambda: 1)
    (found,) = problems("runtime=cpu", "ppo.gamma=1.5")
    assert found.field == "ppo.gamma"
