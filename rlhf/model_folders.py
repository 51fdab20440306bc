"""What keeps a folder from being a Hugging Face model that is safe to load; read without importing transformers.

A model is data here: safetensors, JSON and a chat template. What would run code that came with it, read files elsewhere
or fill the memory is refused by name. Pickles beside safetensors are left alone, because nothing opens them.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from sft.core.errors import ConfigProblem
from sft.core.template_limits import MAX_TEMPLATE_BYTES

Json = Mapping[str, object]

MAX_JSON_BYTES = 64 * 1024 * 1024
"""Of a vocabulary or an index of shards; other files may have a quarter of it."""
MAX_ENTRIES = 10_000
"""Files and folders of a model, at most."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
_NEEDED_OBJECTS = ("config.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json")
_INDEX = "model.safetensors.index.json"
_WORD_LISTS = ("tokenizer.json", "vocab.json", "added_tokens.json", _INDEX)
"""Large files, whose keys are words and names of weights."""
_NOT_READ = ("trainer_state.json",)
"""What training leaves behind and no model needs."""
_ADAPTER = "adapter_config.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
_CODE_KEYS = ("auto_map", "auto_mapping", "custom_pipelines")
"""Keys under which a model names Python code of its own."""
_KERNEL_KEYS = (
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_internal",
    "_experts_implementation",
    "_experts_implementation_internal",
)
"""Keys whose value may name a kernel on the hub, which transformers would download and run."""
_FILE_KEYS = ("transformers_weights", "gguf_file")
"""Keys whose value names the file of weights to read, wherever it lies."""
_KERNELS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention", "paged_attention")
_HARMLESS = "use a model of an architecture in transformers, and remove the key"


def folder_problems(folder: Path, field: str = "model") -> list[ConfigProblem]:
    """Return everything that keeps a model's folder from being loaded; an empty list means that it is safe to load.

    It must hold `config.json`, a tokenizer and safetensors; no key that names code of the model's author, no adapter of
    another model, no link out of the folder (a download of the hub may link into its own `blobs`), no shard elsewhere,
    no huge JSON and no large chat template.

    Args:
        folder: an existing folder.
        field: under which name the problems are told, such as `model.path`.
    """
    found = [
        *_missing(folder),
        *_entry_rules(folder),
        *(rule for name in _json_names(folder) for rule in _json_rules(folder, name)),
        *_shard_rules(folder),
        *_template_rules(folder),
    ]
    return [ConfigProblem(field, str(folder), rule, remedy) for rule, remedy in found]


def read_json(path: Path) -> Json | None:
    """Return a JSON object, or None where there is none within the limits that can be read."""
    value = _parsed(path)
    return value if isinstance(value, dict) else None


Rules = Iterator[tuple[str, str]]
"""(rule, remedy) of each problem."""


def _most_bytes(name: str) -> int:
    return MAX_JSON_BYTES if name in _WORD_LISTS else MAX_JSON_BYTES // 4


def _parsed(path: Path) -> object:
    try:
        if not path.is_file() or path.stat().st_size > _most_bytes(path.name):
            return None  # opening a pipe would wait for ever
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _missing(folder: Path) -> Rules:
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        missing.append("a tokenizer (tokenizer.json)")
    if not any(folder.glob("*.safetensors")):
        missing.append("weights (*.safetensors)")
    if missing:
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
        told = f"; {', '.join(pickles)} may be a pickle, which runs code when read" if pickles else ""
        yield f"lacks {', '.join(missing)}{told}", "give a folder written by save_pretrained"


def _entry_rules(folder: Path) -> Rules:
    """Look at every entry, following no link, until there are too many."""
    inside = _allowed_targets(folder)
    count = 0
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            count += 1
            if count > MAX_ENTRIES:
                yield f"holds more than {MAX_ENTRIES} files", "give the folder of one model"
                return
            path = Path(parent, name)
            if path.is_symlink() and not any(path.resolve().is_relative_to(root) for root in inside):
                shown = path.relative_to(folder)
                yield f"{shown} is a link to a file outside of it", "put the file itself in its place"
            elif not (path.is_file() or path.is_dir()):
                yield f"{path.relative_to(folder)} is neither a file nor a folder", "remove it"


def _allowed_targets(folder: Path) -> list[Path]:
    """The folder itself; for `snapshots/REVISION` of the hub's cache also the `blobs` that its files are links to."""
    real = folder.resolve()
    return [real, real.parent.parent / "blobs"] if real.parent.name == "snapshots" else [real]


def _json_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.json") if path.name not in _NOT_READ)


def _json_rules(folder: Path, name: str) -> Rules:
    value = _parsed(folder / name)
    if value is None or (name in _NEEDED_OBJECTS and not isinstance(value, dict)):
        rule = f"holds files that are no JSON objects below {_most_bytes(name) >> 20} MiB: {name}"
        yield rule, "copy or download the model again"
    if name == _ADAPTER:
        rule = f"{name} makes it an adapter, in whose place another model, not checked, would be loaded"
        yield rule, "merge the adapter into its model and give that folder"
    if name not in _WORD_LISTS:
        yield from _key_rules(name, value)


def _key_rules(name: str, value: object) -> Rules:
    for key, setting in _settings(value):
        if key in _CODE_KEYS:
            yield f"{name} has `{key}`, which would run code that came with the model", _HARMLESS
        elif key == "trust_remote_code" and setting not in (False, None):
            yield f"{name} sets `{key}`, which would run code that came with the model", _HARMLESS
        elif key in _KERNEL_KEYS and setting is not None and setting not in _KERNELS:
            yield f"{name} has `{key}`, which would download and run a kernel", _HARMLESS
        elif key in _FILE_KEYS and setting is not None:
            yield f"{name} has `{key}`, which names another file of weights", "remove the key"


def _settings(value: object) -> Iterator[tuple[str, object]]:
    """Return every key of a JSON value with what it is set to, at any depth."""
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield from node.items()
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def _shard_rules(folder: Path) -> Rules:
    index = read_json(folder / _INDEX)
    if index is None:
        return
    places = index.get("weight_map")
    names = {str(name) for name in places.values()} if isinstance(places, Mapping) else {""}
    strange = sorted(name for name in names if Path(name).name != name or not name.endswith(".safetensors"))
    if strange:
        yield f"{_INDEX} names {strange[0]!r} as a file of weights", "name *.safetensors files of the same folder"
    absent = sorted(name for name in names.difference(strange) if not (folder / name).is_file())
    if absent:
        yield f"lacks {len(absent)} files of {_INDEX}, such as {absent[0]}", "copy or download the model again"


def _template_rules(folder: Path) -> Rules:
    sizes = {
        str(path.relative_to(folder)): path.stat().st_size
        for path in [*folder.glob("*.jinja"), *folder.glob("additional_chat_templates/*.jinja")]
        if path.is_file()
    }
    for name in ("tokenizer_config.json", "chat_template.json", "processor_config.json"):
        template = (read_json(folder / name) or {}).get("chat_template")
        sizes[name] = len(json.dumps(template)) if template is not None else 0
    for name, size in sizes.items():
        if size > MAX_TEMPLATE_BYTES:
            rule = f"{name} holds a chat template of {size} bytes; at most {MAX_TEMPLATE_BYTES} are read"
            yield rule, "use the template of the model's authors"
