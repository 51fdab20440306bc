"""What an experiment reads from disk, checked before any compute and without importing transformers."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from rlhf.config import ExperimentConfig, LabelsConfig
from rlhf.model_folders import folder_problems, read_json
from sft.config import DataSource, ModelKind
from sft.core.errors import ConfigError, ConfigProblem, DataError, UsageError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_REFERENCE = re.compile(r"[a-z0-9][a-z0-9._-]*([:@][A-Za-z0-9][\w.-]*)?")


def file_problems(config: ExperimentConfig) -> list[ConfigProblem]:
    """Return what is wrong with the files and folders that a configuration names.

    Relative paths start at the current folder. Whether a registered model (`sft.from=NAME`) exists is not asked here,
    only whether it is written as one; a hub id (`org/name` with no such folder) is not looked up.
    """
    return [
        *_data_problems(config),
        *_model_problems(config),
        *_source_problems("sft.from", config.sft.from_),
        *_source_problems("reward.from", config.reward.from_),
        *(problem for source in config.ppo.reward_models for problem in _source_problems("ppo.reward_models", source)),
        *_registry_problems(config.registry.root),
        *_label_problems(config.labels),
    ]


def tokenizer_problems(folder: Path, pad_token: str | None) -> list[ConfigProblem]:
    """Return why the tokenizer in a folder cannot pad; an empty list means it can.

    With a pad token that is missing or equals the EOS, the EOS is masked out of the loss and a model never learns to
    stop. For a hub id, call this right after its download.

    Args:
        folder: holds `tokenizer_config.json`, `special_tokens_map.json`, `tokenizer.json`, `config.json`, as far as
            the model has them.
        pad_token: `model.pad_token`, an existing token to pad with, or None.
    """
    vocabulary = _vocabulary(folder)
    eos, pad = _special(folder, "eos", vocabulary), _special(folder, "pad", vocabulary)
    if eos is None:
        rule = "its tokenizer has no EOS token, so no answer could end"
        return [ConfigProblem("model.path", str(folder), rule, "set eos_token in its tokenizer_config.json")]
    remedy = _suggestion(vocabulary, eos)
    if pad_token is not None:
        if pad_token not in vocabulary:
            rule = f"is no token of the tokenizer in {folder}"
            return [ConfigProblem("model.pad_token", pad_token, rule, remedy)]
        rule = "is the EOS token, which padding would mask out of the loss"
        return [ConfigProblem("model.pad_token", pad_token, rule, remedy)] if pad_token == eos else []
    if pad is None:
        rule = f"is required: the tokenizer in {folder} has no pad token"
        return [ConfigProblem("model.pad_token", None, rule, remedy)]
    rule = f"is required: the tokenizer in {folder} pads with its EOS {eos!r}, which masks the EOS out of the loss"
    return [ConfigProblem("model.pad_token", None, rule, remedy)] if pad == eos else []


def _data_problems(config: ExperimentConfig) -> Iterator[ConfigProblem]:
    data = config.data
    paths = {
        "data.path": data.path,
        "data.sft_path": data.sft_path,
        "data.comparisons_path": data.comparisons_path,
        "data.prompts_path": data.prompts_path,
    }
    for field, path in paths.items():
        if path is None:
            continue
        if data.source is DataSource.SIMULATED:
            yield ConfigProblem(field, path, "is not read with data.source=simulated", "add data=files (or data=hh)")
        elif not Path(path).exists():
            yield ConfigProblem(field, path, f"does not exist (looked in {Path.cwd()})", "give an existing file")
        elif not Path(path).is_file():
            yield ConfigProblem(field, path, "is no file", "give a JSONL, JSONL.gz or CSV file")
        elif not os.access(path, os.R_OK):
            yield ConfigProblem(field, path, "cannot be read", "fix its permissions")


def _model_problems(config: ExperimentConfig) -> list[ConfigProblem]:
    model = config.model
    if model.path is None:
        return []
    if model.kind is ModelKind.TINY:
        return [ConfigProblem("model.path", model.path, "is not read with model.kind=tiny", "add model=pretrained")]
    folder = Path(model.path)
    if folder.is_dir():
        found = folder_problems(folder, "model.path")
        return found or tokenizer_problems(folder, model.pad_token)
    if folder.exists() or not _HUB_ID.fullmatch(model.path):
        rule = "is neither a folder nor a hub id (org/name)"
        remedy = "give an existing folder or e.g. model.path=Qwen/Qwen2.5-0.5B"
        return [ConfigProblem("model.path", model.path, rule, remedy)]
    return []


def names_folder(source: str) -> bool:
    """Tell a model folder from a registered name: it has a "/", begins with "." or "~", or holds a config.json."""
    return "/" in source or source.startswith((".", "~")) or (Path(source) / "config.json").is_file()


def _source_problems(field: str, value: str | None) -> list[ConfigProblem]:
    if value is None:
        return []
    if names_folder(value):
        folder = Path(value).expanduser()
        if folder.is_dir():
            return folder_problems(folder, field)
        return [ConfigProblem(field, value, "is no existing folder", "give a folder, or a registered NAME:VERSION")]
    if _REFERENCE.fullmatch(value):
        return []
    rule = "is neither a folder nor a registered model (NAME, NAME:VERSION, NAME@ALIAS)"
    return [ConfigProblem(field, value, rule, "see `rlhf models list`")]


def _registry_problems(root: str) -> list[ConfigProblem]:
    folder = Path(root).absolute()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not existing.is_dir():
        return [ConfigProblem("registry.root", root, f"{existing} is no folder", "choose another registry.root")]
    if not os.access(existing, os.W_OK | os.X_OK):
        rule = f"{existing} cannot be written"
        return [ConfigProblem("registry.root", root, rule, "fix its permissions or choose another registry.root")]
    return []


def _label_problems(labels: LabelsConfig) -> list[ConfigProblem]:
    """Return why people could not label: the names are checked, the database is not opened."""
    if not labels.asks_people:
        return []
    from rlhf.labels.database import Database  # here: SQLAlchemy is not needed to check anything else
    from rlhf.labels.store import check_project

    found = _study_problems(labels)
    try:
        check_project(labels.project or "default")
    except UsageError as error:
        found.append(ConfigProblem("labels.project", labels.project, str(error), "choose another name"))
    try:
        Database(labels.database_url or "sqlite:///labels.sqlite")
    except UsageError as error:
        found.append(ConfigProblem("labels.database_url", labels.database_url, str(error), "or leave it out"))
    return found


def _study_problems(labels: LabelsConfig) -> list[ConfigProblem]:
    from rlhf.labels.collection.study import Study, read_guidelines

    found = []
    try:
        Study(attributes=tuple(labels.attributes))
    except ConfigError as error:
        found += [problem.under("labels") for problem in error.problems]
    try:
        if labels.guidelines is not None:
            read_guidelines(Path(labels.guidelines))
    except DataError as error:
        remedy = f"or leave it out; relative paths start at {Path.cwd()}"
        found.append(ConfigProblem("labels.guidelines", labels.guidelines, str(error), remedy))
    return found


def _text_of(token: object) -> str | None:
    """A token is written as a text or as `{"content": text}`."""
    if isinstance(token, Mapping):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _vocabulary(folder: Path) -> dict[str, int | None]:
    """Return token -> id of all tokens that the folder's JSON names, those that were added first."""
    tokenizer = read_json(folder / "tokenizer.json") or {}
    settings = read_json(folder / "tokenizer_config.json") or {}
    known: dict[str, int | None] = {}
    added = tokenizer.get("added_tokens")
    for entry in added if isinstance(added, list) else []:
        if isinstance(entry, Mapping) and (text := _text_of(entry)) is not None:
            known[text] = _id(entry.get("id"))
    decoder = settings.get("added_tokens_decoder")
    for number, entry in (decoder if isinstance(decoder, Mapping) else {}).items():
        if (text := _text_of(entry)) is not None:
            known.setdefault(text, int(number) if number.isdecimal() else None)
    model = tokenizer.get("model")
    pieces = model.get("vocab") if isinstance(model, Mapping) else None
    for table in (read_json(folder / "added_tokens.json"), pieces, read_json(folder / "vocab.json")):
        if isinstance(table, Mapping):
            for text, number in table.items():
                known.setdefault(text, _id(number))
    if isinstance(pieces, list):  # unigram: [[token, score], ...], the position is the id
        for number, piece in enumerate(pieces):
            if isinstance(piece, list) and piece and isinstance(piece[0], str):
                known.setdefault(piece[0], number)
    return known


def _id(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _special(folder: Path, role: str, vocabulary: Mapping[str, int | None]) -> str | None:
    """Return the `eos` or `pad` token; the tokenizer's files go before the model's ids."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (text := _text_of((read_json(folder / name) or {}).get(f"{role}_token"))) is not None:
            return text
    number = (read_json(folder / "config.json") or {}).get(f"{role}_token_id")
    if isinstance(number, list) and number:
        number = number[0]
    return next((text for text, known in vocabulary.items() if known is not None and known == number), None)


def _suggestion(vocabulary: Mapping[str, int | None], eos: str) -> str:
    """Name an existing token that texts do not hold: one meant for padding, else a reserved one."""
    marked = [text for text in vocabulary if text != eos and text[:1] in "<[" and text[-1:] in ">]" and len(text) > 2]
    for word in ("pad", "reserved", "extra_id", "unused", "unk"):
        for text in marked:
            if word in text.lower():
                return f"use model.pad_token='{text}'"
    if marked:
        return f"use a token that your texts never hold, e.g. model.pad_token='{marked[-1]}'"
    return "set model.pad_token=TOKEN to an existing token that your texts never hold"
