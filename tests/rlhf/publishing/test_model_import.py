import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from published import Published
from safetensors.torch import save_file

from rlhf.publishing import importing
from rlhf.publishing.checks import MAX_DEPTH, import_problems
from rlhf.publishing.export import export_model
from rlhf.publishing.importing import import_model
from rlhf.registry import Registry
from sft.core.durable import broken_files
from sft.core.errors import DataError, UsageError

Attack = Callable[[Path], object]


@pytest.fixture
def folder(sft_folder: Path, tmp_path: Path) -> Path:
    """Return a copy of a harmless model, for one test to spoil."""
    return shutil.copytree(sft_folder, tmp_path / "theirs")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def said_in(name: str, **settings: object) -> Attack:
    """Add keys to a JSON file of the folder."""

    def attack(folder: Path) -> None:
        path = folder / name
        known = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps({**known, **settings}))

    return attack


def written(name: str, content: bytes | str) -> Attack:
    """Put a file into the folder."""

    def attack(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return attack


def header_claims(size: int) -> Attack:
    """Let the weights' header say that it is so long."""

    def attack(folder: Path) -> None:
        content = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", size) + content[8:])

    return attack


def cut(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-1])


def linked_weights(folder: Path) -> None:
    target = shutil.move(folder / "model.safetensors", folder.parent / "elsewhere.safetensors")
    (folder / "model.safetensors").symlink_to(target)


def pipe(folder: Path) -> None:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


def linked_to_zeros(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/dev/zero")


def index(*files: str) -> Attack:
    places = {f"tensor{number}": name for number, name in enumerate(files)}
    return said_in("model.safetensors.index.json", metadata={}, weight_map=places)


HOSTILE: dict[str, tuple[Attack, str, str]] = {
    "pickle": (written("pytorch_model.bin", b"\x80\x04"), "pytorch_model.bin", "may hold code or pickled objects"),
    "pickle of torch": (written("model.pt", b"\x80"), "model.pt", "may hold code or pickled objects"),
    "pickle below": (written("a/b/model.pkl", b"\x80"), "a/b/model.pkl", "may hold code or pickled objects"),
    "training arguments": (written("training_args.bin", b""), "training_args.bin", "may hold code"),
    "code": (written("modeling_llama.py", "import os"), "modeling_llama.py", "may hold code"),
    "library": (written("kernel.so", b"\x7fELF"), "kernel.so", "may hold code"),
    "upper case": (written("MODEL.PT", b"\x80"), "MODEL.PT", "may hold code"),
    "no suffix": (written("weights", b"\x80"), "weights", "may hold code"),
    "a name that hides": (written("x\u202etxt.py\n", ""), "x⟨U+202E⟩txt.py⟨U+000A⟩", "may hold code"),
    "auto_map": (said_in("config.json", auto_map={"AutoModel": "evil.Model"}), "config.json", "auto_map"),
    "auto_map below": (said_in("config.json", text_config={"a": [{"auto_map": {}}]}), "config.json", "auto_map"),
    "tokenizer code": (said_in("tokenizer_config.json", auto_map={"AutoTokenizer": ["e.T", None]}), ".", "auto_map"),
    "kernel": (said_in("config.json", _attn_implementation="evil/kernel"), "config.json", "_attn_implementation"),
    "kernel inside": (said_in("config.json", x={"_attn_implementation_internal": "e/k"}), ".", "_attn_implementation"),
    "pipelines": (said_in("config.json", custom_pipelines={"x": {"impl": "e.P"}}), ".", "custom_pipelines"),
    "an adapter": (written("adapter_config.json", '{"base_model_name_or_path": "e/m"}'), ".", "makes it an adapter"),
    "a file elsewhere": (
        said_in("tokenizer_config.json", vocab_file="/etc/passwd"),
        "tokenizer_config.json",
        "vocab_file",
    ),
    "weights elsewhere": (said_in("config.json", transformers_weights="../x.safetensors"), "config.json", "elsewhere"),
    "shard elsewhere": (index("../../secret.safetensors"), "index.json", "../../secret.safetensors"),
    "shard missing": (index("model-00001.safetensors"), "index.json", "model-00001.safetensors"),
    "tensor missing": (
        index("model.safetensors"),
        "index.json",
        "tensors that their files do not hold, such as tensor0",
    ),
    "link": (linked_weights, "model.safetensors", "is a link"),
    "link to a folder": (lambda folder: (folder / "sub").symlink_to("/"), "sub", "is a link"),
    "hard link": (lambda folder: os.link(folder / "config.json", folder.parent / "own"), "config.json", "second name"),
    "pipe": (lambda folder: os.mkfifo(folder / "config.txt"), "config.txt", "neither a file nor a folder"),
    "pipe for a file": (pipe, "config.json", "neither a file nor a folder"),
    "folder for a file": (lambda folder: (folder / "x.json").mkdir(), "x.json", "is a folder with a file's name"),
    "link to endless zeros": (linked_to_zeros, "config.json", "is a link"),
    "deep": (written("deep.json", "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)), "deep.json", "nested deeper"),
    "endless": (written("deep.json", "[" * 100_000), "deep.json", "no JSON, or nested deeper"),
    "no JSON": (written("config.json", "{"), "config.json", "JSON"),
    "long template": (written("chat_template.jinja", "{# #}" * 100_000), "chat_template.jinja", "chat template of"),
    "cut weights": (cut, "model.safetensors", "is no whole safetensors file"),
    "huge header": (header_claims(2**62), "model.safetensors", "is no whole safetensors file"),
    "no header": (written("model.safetensors", b"\x80\x04pickle"), "model.safetensors", "no whole safetensors file"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), ".", "lacks weights"),
    "no architecture": (
        said_in("config.json", architectures=["EvilForCausalLM"]),
        "config.json",
        "none that transformers",
    ),
    "no model type": (said_in("config.json", model_type="evil"), "config.json", "none of model_type 'evil'"),
    "no pad": (said_in("tokenizer_config.json", pad_token="<|eos|>"), "tokenizer", "pads with its EOS"),
    "a changed file": (
        written("MANIFEST.json", json.dumps({"files": {"config.json": {"sha256": "0" * 64, "size": 1}}})),
        "MANIFEST.json",
        "config.json: changed since",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_each_hostile_folder_is_refused_by_name(registry: Registry, folder: Path, name: str):
    attack, file, words = HOSTILE[name]
    attack(folder)
    with pytest.raises(DataError) as caught:
        import_model(registry, folder, name="theirs", kind="sft")
    lines = [line for line in str(caught.value).splitlines()[1:] if words in line]
    assert lines, caught.value
    assert any(file in line for line in lines), lines
    assert registry.artifacts() == []
    assert list((registry.root / ".work").iterdir()) == []


def test_all_problems_are_told_at_once(registry: Registry, folder: Path):
    for name in ("pickle", "code", "link to a folder", "auto_map", "shard elsewhere", "long template"):
        HOSTILE[name][0](folder)
    with pytest.raises(DataError) as caught:
        import_model(registry, folder, name="theirs", kind="sft")
    heading, *lines = str(caught.value).splitlines()
    assert heading.endswith(f"is not imported: {len(lines)} problems")
    for words in (
        "pytorch_model.bin",
        "modeling_llama.py",
        "sub: is a link",
        "auto_map",
        "../../secret",
        "template of",
    ):
        assert any(words in line for line in lines), words


def test_a_harmless_folder_has_no_problems(folder: Path, reward_folder: Path):
    assert import_problems(folder, "sft") == []
    assert import_problems(reward_folder, "reward") == []
    said_in("config.json", _attn_implementation="sdpa")(folder)
    said_in("tokenizer_config.json", tokenizer_file=None)(folder)
    written("README.md", "# theirs")(folder)
    written("LICENSE", "free")(folder)
    assert import_problems(folder, "sft") == []


def test_words_of_a_vocabulary_are_no_settings(folder: Path):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] |= {"auto_map": 9998, "vocab_file": 9999}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert import_problems(folder, "sft") == []


def test_what_is_imported(registry: Registry, folder: Path):
    written("LICENSE", "free")(folder)
    made = import_model(registry, folder, name="theirs", kind="sft")
    assert (made.artifact.ref, made.artifact.kind, made.is_new, made.left_out) == ("theirs:1", "sft", True, ["LICENSE"])
    assert broken_files(made.artifact.path) == []
    assert json.loads((made.artifact.path / "stage.json").read_text()) == {"metrics": {}}
    assert made.artifact.metadata["imported"] == {"content_sha256": made.content, "said": {}}


def test_the_same_files_are_the_same_version(registry: Registry, folder: Path):
    first = import_model(registry, folder, name="theirs", kind="sft")
    again = import_model(registry, shutil.copytree(folder, folder.with_name("copy")), name="theirs", kind="sft")
    assert (again.artifact.ref, again.is_new, again.content) == ("theirs:1", False, first.content)
    said_in("generation_config.json", temperature=0.7)(folder)
    changed = import_model(registry, folder, name="theirs", kind="sft")
    assert (changed.artifact.ref, changed.content != first.content) == ("theirs:2", True)
    assert import_model(registry, folder, name="mine", kind="policy").artifact.ref == "mine:1"


def test_the_kind_is_said_not_guessed(
    registry: Registry, folder: Path, reward_folder: Path, published: Published, tmp_path
):
    with pytest.raises(UsageError, match="does not say what it is; give --kind sft or --kind policy"):
        import_model(registry, folder, name="theirs")
    with pytest.raises(UsageError, match="--kind labels is not known; use one of sft, policy"):
        import_model(registry, folder, name="theirs", kind="labels")
    with pytest.raises(DataError, match="'LlamaForCausalLM' is none that transformers has for kind reward"):
        import_model(registry, folder, name="theirs", kind="reward")
    with pytest.raises(DataError, match="'LlamaForSequenceClassification' is none that transformers has for kind sft"):
        import_model(registry, reward_folder, name="theirs", kind="sft")
    assert import_model(registry, reward_folder, name="r").artifact.kind == "reward"
    said = export_model(published.place.registry, "policy", tmp_path / "said").folder
    assert import_model(registry, said, name="p").artifact.kind == "policy"


def test_a_scorer_without_a_head(registry: Registry, folder: Path):
    said_in("config.json", architectures=["LlamaForSequenceClassification"])(folder)
    with pytest.raises(DataError, match=r"lack score.weight, so the scores would be random"):
        import_model(registry, folder, name="r")
    save_file({"score.weight": torch.zeros(1, 32)}, folder / "head.safetensors")
    assert import_problems(folder, "reward") == []


def test_what_changes_while_it_is_read_is_not_registered(registry: Registry, folder: Path, monkeypatch):
    copy = shutil.copyfile

    def changing(source: Path, target: Path) -> None:
        written("config.json", "{}")(folder)
        copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", changing)
    with pytest.raises(DataError, match="changed while it was read"):
        import_model(registry, folder, name="theirs", kind="sft")
    assert registry.artifacts() == []


def test_what_is_swapped_in_after_the_check_is_not_registered(registry: Registry, folder: Path, monkeypatch):
    check = importing.check_folder

    def checking(checked: Path, kind: str) -> None:
        check(checked, kind)
        said_in("config.json", auto_map={"AutoModel": "evil.Model"})(folder)

    monkeypatch.setattr(importing, "check_folder", checking)
    with pytest.raises(DataError, match="changed while it was read"):
        import_model(registry, folder, name="theirs", kind="sft")
    assert registry.artifacts() == []


def test_a_name_that_is_no_text_can_be_printed(folder: Path):
    Path(os.fsdecode(bytes(folder) + b"/\xff.py")).touch()
    (problem,) = import_problems(folder, "sft")
    assert str(problem).encode().startswith("⟨U+DCFF⟩.py: may hold code".encode())


@pytest.mark.parametrize("name", ["../up", "A", "", "registry.db", "a/b"])
def test_names_that_are_not_allowed(registry: Registry, folder: Path, name: str):
    with pytest.raises(UsageError, match="is not allowed"):
        import_model(registry, folder, name=name, kind="sft")


def test_no_folder(registry: Registry, tmp_path: Path):
    with pytest.raises(UsageError, match="is no folder; give one that save_pretrained"):
        import_model(registry, tmp_path / "nowhere", name="x", kind="sft")
