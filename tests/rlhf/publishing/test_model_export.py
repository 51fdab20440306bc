import json
import os
import shutil
import signal
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from labels_and_registry import TEXT
from peft import PeftModel, get_peft_model
from published import SECRET, Published, publish, register
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from reward.adapter import save_adapter
from rlhf.labelling.erasure import erase_annotator
from rlhf.publishing.export import content_of, export_model
from rlhf.publishing.importing import import_model
from rlhf.registry import Registry
from sft.core.durable import broken_files, file_digest
from sft.core.errors import DataError, UsageError
from sft.core.lora import lora_config

LOAD = """
import sys
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
for folder, auto in (("policy", AutoModelForCausalLM), ("reward", AutoModelForSequenceClassification)):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "hello ?"}], return_tensors="pt")
    model, report = auto.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    print(model(ids["input_ids"]).logits.shape[-1], "rlhf" in sys.modules)
"""
"""A program of somebody who has transformers and nothing of ours."""


def test_transformers_alone_load_an_export(published: Published, tmp_path: Path):
    for kind in ("policy", "reward"):
        export_model(published.place.registry, kind, tmp_path / kind)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    words = [sys.executable, "-c", LOAD]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    vocabulary = json.loads((tmp_path / "policy" / "config.json").read_text())["vocab_size"]
    assert done.stdout.split() == [str(vocabulary), "False", "1", "False"]


def test_what_lies_in_an_export(published: Published, tmp_path: Path):
    policy = published.policy
    made = export_model(published.place.registry, "policy", tmp_path / "deep" / "out", licence="apache-2.0")
    names = {path.name for path in made.folder.iterdir()}
    assert names == {*made.files, "README.md", "rlhf-lineage.json", "MANIFEST.json"}
    assert "stage.json" not in names
    assert broken_files(made.folder) == []
    assert made.files == {name: file_digest(policy.path / name) for name in made.files}
    assert oct((made.folder / "model.safetensors").stat().st_mode & 0o777) != oct(0o600)
    assert [path.name for path in made.folder.parent.iterdir()] == ["out"]


def test_the_lineage_file_pins_everything_and_names_nobody(published: Published, tmp_path: Path):
    made = export_model(published.place.registry, "policy", tmp_path / "out")
    lineage = json.loads((made.folder / "rlhf-lineage.json").read_text())
    assert (lineage["ref"], lineage["sha256"], lineage["content_sha256"]) == (
        "policy:1",
        published.policy.sha256,
        made.content,
    )
    assert lineage["artifacts"]["labels-p:1"] == {"kind": "dataset", "sha256": published.dataset.sha256}
    assert {"child_ref": "policy:1", "role": "reward", "parent_ref": "reward:1"} in lineage["ancestors"]
    verdicts = {report["kind"]: report["passed"] for report in lineage["reports"]}
    assert verdicts == {"evaluation": True, "bias": False}
    by_ref = {source["ref"]: source for source in lineage["labels"]}
    assert by_ref["labels-p:1"]["licences"] == {"unknown": 5, "cc-by-4.0": 1}
    assert by_ref["labels:1"]["people"] == {"person 1": 2, "person 2": 1}
    for path in (path for path in made.folder.iterdir() if path.suffix in (".md", ".json")):
        text = path.read_text()
        for word in (SECRET, "Ottokar", "Leopoldine", TEXT, "a secret prompt", str(published.place.folder)):
            assert word not in text, f"{path.name}: {word}"


def test_export_import_export_gives_the_same_model(published: Published, tmp_path: Path):
    first = export_model(published.place.registry, "policy", tmp_path / "first")
    other = Registry(tmp_path / "other")
    imported = import_model(other, first.folder, name="theirs")
    second = export_model(other, imported.artifact.ref, tmp_path / "second")
    assert first.content == imported.content == second.content
    assert first.files == second.files == content_of(imported.artifact.path)
    before = json.loads((second.folder / "rlhf-lineage.json").read_text())["before"]
    assert before == json.loads((first.folder / "rlhf-lineage.json").read_text())
    card = (second.folder / "README.md").read_text()
    assert "What the folder said of it, unchecked: ref policy:1, kind policy" in card
    assert "A model that was imported as policy." in card
    assert "PPO" not in card, "which nobody here knows"


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_what_exists_is_left_alone(published: Published, tmp_path: Path, make):
    make(tmp_path / "out")
    with pytest.raises(UsageError, match="exists; give a folder that does not exist yet"):
        export_model(published.place.registry, "policy", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("ref", ["labels-p", "comparisons", "evaluation"])
def test_what_is_no_model_is_refused(published: Published, tmp_path: Path, ref: str):
    with pytest.raises(UsageError, match=f"{ref}:1 is no model with weights"):
        export_model(published.place.registry, ref, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("licence", ["", "MIT\nauthor: me", "</script>"])
def test_a_licence_is_a_word(published: Published, tmp_path: Path, licence: str):
    with pytest.raises(UsageError, match="give its identifier in lower case"):
        export_model(published.place.registry, "policy", tmp_path / "out", licence=licence)


def test_damage_and_erasure(tmp_path: Path, sft_folder: Path, reward_folder: Path):
    own = publish(tmp_path, sft_folder, reward_folder)
    erase_annotator(own.place.store, own.place.registry, "p", SECRET)
    made = export_model(own.place.registry, "policy", tmp_path / "out")
    said = "`labels-p:1` holds labels of a person who has been erased since; train again without them"
    assert said in (made.folder / "README.md").read_text()
    weights = own.policy.path / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(DataError, match=r"policy:1 is not exported: .*model.safetensors: changed since"):
        export_model(own.place.registry, "policy", tmp_path / "damaged")
    assert not (tmp_path / "damaged").exists()


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory, sft_folder: Path, reward_folder: Path) -> tuple[Published, Path]:
    """Return a registry in which the newest reward model kept its adapters, and that model's folder."""
    own = publish(tmp_path_factory.mktemp("adapted"), sft_folder, reward_folder)
    scorer = AutoModelForSequenceClassification.from_pretrained(
        sft_folder, num_labels=1, use_safetensors=True, trust_remote_code=False
    )
    torch.manual_seed(3)
    model = get_peft_model(scorer, lora_config(scorer, r=2, alpha=8.0, task="SEQ_CLS"))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name or "score.modules_to_save" in name:
                weight.normal_()
    folder = own.place.folder / "adapted"
    shutil.copytree(reward_folder, folder)
    save_adapter(folder, model, base=sft_folder, r=2, alpha=8.0)
    merged = model.merge_and_unload()
    merged.config.pad_token_id = 0
    merged.save_pretrained(folder)
    register(own.place, "reward", folder, parents=[("sft", own.sft)])
    return own, folder


def test_kept_adapters_leave_in_pefts_form(adapted, tmp_path: Path, sft_folder: Path):
    own, folder = adapted
    made = export_model(own.place.registry, "reward", tmp_path / "out")
    assert (made.adapter_of, "model.safetensors" in made.files) == ("sft:1", False)
    config = json.loads((made.folder / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["r"], config["task_type"]) == ("sft:1", 2, "SEQ_CLS")
    base = AutoModelForSequenceClassification.from_pretrained(
        sft_folder, num_labels=1, use_safetensors=True, trust_remote_code=False
    )
    model = PeftModel.from_pretrained(base, str(made.folder)).eval()
    whole = AutoModelForSequenceClassification.from_pretrained(folder, use_safetensors=True, trust_remote_code=False)
    ids = torch.arange(5, 25).reshape(2, 10)
    for model_ in (model, whole.eval()):
        model_.config.pad_token_id = 0
    torch.testing.assert_close(model(ids).logits, whole(ids).logits, rtol=1e-4, atol=1e-4)
    assert "LoRA adapters and a head on `sft:1`" in (made.folder / "README.md").read_text()


def test_merged_on_request(adapted, tmp_path: Path):
    own, folder = adapted
    made = export_model(own.place.registry, "reward", tmp_path / "out", merge_adapters=True)
    assert made.adapter_of is None
    assert load_file(made.folder / "model.safetensors").keys() == load_file(folder / "model.safetensors").keys()
    assert not (made.folder / "adapter").exists()
    assert import_model(Registry(tmp_path / "r"), made.folder, name="reward").artifact.kind == "reward"


@pytest.mark.parametrize("moment", ["fsync", "rename"])
def test_a_kill_leaves_no_folder(published: Published, tmp_path: Path, moment: str):
    root, out = published.place.registry.root, tmp_path / "out"

    def killed() -> None:
        registry = Registry(root)

        def kill(*_: object) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(os, moment, kill)
        export_model(registry, "policy", out)

    child = get_context("fork").Process(target=killed)
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert not out.exists()
    assert [path.name.startswith(".out.") for path in tmp_path.iterdir()] == [True]
    assert broken_files(export_model(published.place.registry, "policy", out).folder) == []


def test_a_full_disk_leaves_nothing(published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", refuse)
    with pytest.raises(OSError, match="No space left") as caught:
        export_model(published.place.registry, "policy", tmp_path / "out")
    assert caught.value.exit_code == 74
    assert list(tmp_path.iterdir()) == []
