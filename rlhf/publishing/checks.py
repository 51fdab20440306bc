"""What keeps a folder from being imported: everything that a model need not bring is refused by name.

`rlhf.model_folders` says what keeps a folder from being loaded safely. An import asks for more: no link at all, no file
of a kind that is not known to be harmless, whole safetensors, an architecture that transformers has.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open

from rlhf.inputs import tokenizer_problems
from rlhf.model_folders import MAX_JSON_BYTES, folder_problems, read_json
from rlhf.publishing.facts import SCORERS
from sft.core.durable import MANIFEST, broken_files
from sft.core.values import Json, mapping, text
from sft.core.visible import visible

MAX_DEPTH = 64
"""Of a JSON file; those of models are below 12."""
_MODEL_SUFFIXES = (".safetensors", ".json", ".txt", ".model", ".jinja")
_BESIDE = re.compile(
    r"(readme|license|licence|notice|copying|changelog)([.-].*)?|.*\.md|\.gitattributes|\.gitignore", re.I
)
"""Files that may lie beside a model and are not taken over."""
_PATH_KEYS = re.compile(r".+_files?|transformers_weights|gguf_file")
"""Keys that name files which transformers would read."""
_HEAD = "score.weight"
_CAUSAL, _SCORER = "ForCausalLM", "ForSequenceClassification"


class Problem(NamedTuple):
    """What is wrong with one file, and what to do."""

    file: str
    rule: str
    remedy: str

    def __str__(self) -> str:
        """Return the problem as one line; a name of a stranger's file is shown with its hidden characters."""
        return visible(f"{self.file}: {self.rule}; {self.remedy}").replace("\n", "⟨U+000A⟩")


def import_problems(folder: Path, kind: str) -> list[Problem]:
    """Return everything that keeps a folder from being imported as a model of a kind; nothing of it is run.

    Where a link, a pipe or a folder stands for a file of the model, that alone is told: no file is opened then.

    Args:
        folder: an existing folder.
        kind: that it is to be registered as.
    """
    found = list(_entry_problems(folder))
    if any(problem.file.endswith(_MODEL_SUFFIXES) for problem in found):
        return found  # a file that would be opened may be anything
    links = tuple(f"{problem.file} is a link" for problem in found)
    general = (problem for problem in folder_problems(folder) if not problem.rule.startswith(links))
    found += [Problem(".", problem.rule, problem.remedy) for problem in general]
    for path in sorted(folder.rglob("*.json")):
        found += _json_problems(path, str(path.relative_to(folder)))
    found += _weight_problems(folder)
    found += _architecture_problems(folder, kind)
    found += [
        Problem("tokenizer", p.rule, "set it in its tokenizer_config.json") for p in tokenizer_problems(folder, None)
    ]
    if (folder / MANIFEST).is_file():
        damage = (line.removeprefix(f"{folder}/") for line in broken_files(folder))
        found += [Problem(MANIFEST, line, "copy the folder again") for line in damage]
    return list(dict.fromkeys(found))


def left_out(folder: Path, taken: set[str]) -> list[str]:
    """Return the names of the files of a folder that are not among those taken over."""
    every = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(set(every) - taken)


def _entry_problems(folder: Path) -> Iterator[Problem]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            yield Problem(name, "is a link", "put the file itself in its place (cp -rL)")
        elif path.is_dir():
            if name.endswith(_MODEL_SUFFIXES):
                yield Problem(name, "is a folder with a file's name", "remove it")
        elif not path.is_file():
            yield Problem(name, "is neither a file nor a folder", "remove it")
        elif path.stat().st_nlink > 1:
            yield Problem(name, "has a second name (a hard link)", "copy the folder")
        elif path.suffix not in _MODEL_SUFFIXES and not _BESIDE.fullmatch(path.name):
            yield Problem(
                name,
                "may hold code or pickled objects: a model is safetensors, JSON, vocabularies and templates",
                "convert it (save_pretrained) or remove it",
            )


def _json_problems(path: Path, name: str) -> Iterator[Problem]:
    if path.stat().st_size > MAX_JSON_BYTES:
        return  # told as a general problem
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        yield Problem(name, f"is no JSON, or nested deeper than {MAX_DEPTH}", "copy or download the model again")
        return
    settings: list[tuple[str, object]] = []
    for depth, level in enumerate(_levels(value), start=1):
        if depth > MAX_DEPTH:
            yield Problem(name, f"is nested deeper than {MAX_DEPTH}", "copy or download the model again")
            return
        settings += [item for node in level if isinstance(node, dict) for item in node.items()]
    if name in ("tokenizer.json", "vocab.json", "added_tokens.json"):
        return  # their keys are words
    for key, setting in settings:
        names = setting if isinstance(setting, list) else [setting]
        for read in (each for each in names if isinstance(each, str) and _PATH_KEYS.fullmatch(key)):
            if "/" in read or "\\" in read or ".." in read:
                yield Problem(name, f"`{key}` names a file elsewhere: {read!r}", "remove the key")


def _levels(value: object) -> Iterator[list[dict[str, object] | list[object]]]:
    """Yield the objects and lists of a JSON value that stand equally deep, the value itself first."""
    waiting = [value]
    while level := [node for node in waiting if isinstance(node, dict | list)]:
        yield level
        waiting = [inner for node in level for inner in (node.values() if isinstance(node, dict) else node)]


def _weight_problems(folder: Path) -> Iterator[Problem]:
    held: dict[str, set[str]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="np") as file:
                held[path.name] = set(file.keys())
        except (SafetensorError, OSError) as error:
            yield Problem(path.name, f"is no whole safetensors file ({error})", "copy or download it again")
    index = mapping(mapping(read_json(folder / "model.safetensors.index.json")).get("weight_map"))
    wrong = sorted(tensor for tensor, name in index.items() if text(name) in held and tensor not in held[text(name)])
    if wrong:
        rule = f"names {len(wrong)} tensors that their files do not hold, such as {wrong[0]}"
        yield Problem("model.safetensors.index.json", rule, "copy or download the model again")


def _architecture_problems(folder: Path, kind: str) -> Iterator[Problem]:
    config = mapping(read_json(folder / "config.json"))
    if not config:
        return  # told as a general problem
    found = architecture(config)
    wanted = _SCORER if kind in SCORERS else _CAUSAL
    known = known_architectures(text(config.get("model_type")), wanted)
    if found not in known:
        shown = ", ".join(known) or f"none of model_type {text(config.get('model_type'))!r}"
        rule = f"architecture {found!r} is none that transformers has for kind {kind}"
        yield Problem("config.json", rule, f"known: {shown}; give another --kind, or convert the model")
    elif wanted == _SCORER and not _holds_head(folder):
        yield Problem("weights", f"lack {_HEAD}, so the scores would be random", "give a trained reward model")


def architecture(config: Json) -> str:
    """Return the class that a config names, or nothing."""
    named = config.get("architectures")
    return str(named[0]) if isinstance(named, list) and len(named) == 1 else ""


def known_architectures(model_type: str, wanted: str) -> list[str]:
    """Return the classes of transformers for a type of model, of those that end in `wanted`."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    )

    table = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES if wanted == _SCORER else MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    names = table.get(model_type, ())
    return [names] if isinstance(names, str) else list(names)


def _holds_head(folder: Path) -> bool:
    for path in folder.glob("*.safetensors"):
        try:
            with safe_open(path, framework="np") as file:
                if _HEAD in file.keys():  # noqa: SIM118 (the file is no dict)
                    return True
        except (SafetensorError, OSError):
            return True  # told already
    return False
