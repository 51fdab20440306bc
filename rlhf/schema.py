"""Trees of plain values <-> the configuration dataclasses. Imports no torch and no Hydra.

The dataclasses are the schema and hold the defaults; YAML files and command lines give trees. `build` turns a tree
into an `ExperimentConfig` and reports everything that is wrong with it, not the first thing.
"""

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, fields, is_dataclass
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from rlhf.config import ExperimentConfig
from sft.core.config import raise_problems
from sft.core.errors import ConfigError, ConfigProblem

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Section = TypeVar("Section", bound=DataclassInstance)

UNKNOWN = "is unknown"
"""How the rule of every unknown name begins."""
_ALL_NAMES = "all names: `rlhf run --cfg job`"
_SHOWN_NAMES = 3
_PLAIN_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def key_of(field: "Field[object]") -> str:
    """Return the name under which a field stands in YAML: its own, or `metadata["key"]`."""
    return str(field.metadata.get("key", field.name))


def to_tree(config: "DataclassInstance") -> dict[str, object]:
    """Return a configuration as plain mappings, lists, texts and numbers."""
    return {key_of(field): _plain(vars(config)[field.name]) for field in fields(config)}


def defaults() -> dict[str, object]:
    """Return the tree of `ExperimentConfig()`."""
    return to_tree(ExperimentConfig())


def build(tree: Mapping[str, object]) -> ExperimentConfig:
    """Return the configuration that a tree describes; what it leaves out takes its default.

    Types are strict: a whole number is not a text and not true, a float field takes whole numbers. In a mapping with
    free keys (`bias.groups`) an entry with null is left out, so that a YAML file can remove a default entry.

    Raises:
        ConfigError: every unknown key, wrong type, unknown choice, value out of range and broken rule between fields,
            each under its dotted name.
    """
    config, found = read(tree)
    raise_problems(found)
    return config


def read(tree: Mapping[str, object]) -> tuple[ExperimentConfig, list[ConfigProblem]]:
    """Return what `build` returns and the problems that `build` raises.

    With problems, the configuration is good for further checks only: a value of wrong type stands at its default.
    """
    found: list[ConfigProblem] = []
    config = _section(ExperimentConfig, tree, "", found)
    return config, found


def unknown_keys(tree: Mapping[str, object]) -> list[ConfigProblem]:
    """Return a problem for each key of a tree that no dataclass knows."""
    return list(_unknown_below(ExperimentConfig, tree, ""))


class Leaf(NamedTuple):
    """One setting that is no section: its dotted name in YAML, its section's class and its field's name there."""

    name: str
    section: type
    attribute: str


@cache
def _kinds(section: type) -> dict[str, object]:
    """The types of a dataclass' fields; looking them up takes longer than all the rest."""
    return get_type_hints(section)


@cache
def leaves() -> tuple[Leaf, ...]:
    """Return every setting of ExperimentConfig, in the order of the dataclasses."""
    return tuple(_leaves(ExperimentConfig, ""))


def is_free_mapping(name: str) -> bool:
    """Return whether a dotted name is a mapping whose keys are the user's, such as `bias.groups`."""
    return any(leaf.name == name and get_origin(_kinds(leaf.section)[leaf.attribute]) is dict for leaf in leaves())


def unknown_key(name: str, value: object, others: Sequence[str] = ()) -> ConfigProblem:
    """Return the problem of a dotted name that does not exist, with the nearest names that do.

    Args:
        name: what was written.
        value: what it was set to.
        others: names beside those of ExperimentConfig that may have been meant, such as groups of files.
    """
    section, _, key = name.rpartition(".")
    if key == "_target_":
        rule = f"{UNKNOWN}: it would name code to import, which no setting of an experiment does"
        return ConfigProblem(name, value, rule, f"remove it; {_ALL_NAMES}")
    known = _section_class(section)
    near = _nearest(name, others)
    where = f"section {section}" if section else "the configuration"
    rule = f"{UNKNOWN}: there is no section {section!r}" if known is None else f"{UNKNOWN}: {where} has no {key!r}"
    listed = f"{'the configuration' if known is None else section or 'it'} has: {', '.join(_siblings(section))}"
    meant = f"did you mean {' or '.join(near)}?" if near else f"{listed};"
    return ConfigProblem(name, value, rule, f"{meant} {_ALL_NAMES}")


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return to_tree(value)
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _leaves(section: type, prefix: str) -> Iterator[Leaf]:
    kinds = _kinds(section)
    for field in fields(section):
        name, kind = prefix + key_of(field), kinds[field.name]
        if isinstance(kind, type) and is_dataclass(kind):
            yield from _leaves(kind, f"{name}.")
        else:
            yield Leaf(name, section, field.name)


def _section_class(name: str) -> type | None:
    """Return the dataclass of a dotted section name; "" is the top."""
    section: type = ExperimentConfig
    for part in name.split(".") if name else []:
        kinds = _kinds(section)
        match = [kinds[field.name] for field in fields(section) if key_of(field) == part]
        if not match or not isinstance(match[0], type) or not is_dataclass(match[0]):
            return None
        section = match[0]
    return section


def _siblings(section: str) -> list[str]:
    known = _section_class(section) or ExperimentConfig
    return [key_of(field) for field in fields(known)]


def _nearest(name: str, others: Sequence[str]) -> list[str]:
    """The nearest names in the same section; else those of the same last part; else the nearest anywhere."""
    section, _, key = name.rpartition(".")
    here = [*_siblings(section), *(others if not section else ())] if _section_class(section) else []
    alike = difflib.get_close_matches(key, here, n=_SHOWN_NAMES)
    alike = [*alike, *(known for known in here if _initials(known) == key)]
    alike += [known for known in here if _bare(key) in _bare(known)]
    if alike:
        return [f"{section}.{known}" if section else known for known in list(dict.fromkeys(alike))[:_SHOWN_NAMES]]
    names = [leaf.name for leaf in leaves()]
    same_key = [known for known in names if known.rpartition(".")[2] == key]
    return same_key[:_SHOWN_NAMES] or difflib.get_close_matches(name, [*names, *others], n=_SHOWN_NAMES, cutoff=0.8)


def _initials(key: str) -> str:
    return "".join(part[:1] for part in key.split("_"))


def _bare(key: str) -> str:
    return key.replace("_", "").lower()


def _unknown_below(section: type, tree: Mapping[str, object], prefix: str) -> Iterator[ConfigProblem]:
    kinds = _kinds(section)
    known = {key_of(field): kinds[field.name] for field in fields(section)}
    for key, value in tree.items():
        if key not in known:
            yield unknown_key(f"{prefix}{key}", value)
        elif is_dataclass(known[key]) and isinstance(value, Mapping):
            kind = known[key]
            assert isinstance(kind, type)
            yield from _unknown_below(kind, value, f"{prefix}{key}.")


def _section(
    section: "type[Section]", tree: Mapping[str, object], prefix: str, found: list[ConfigProblem]
) -> "Section":
    """Read one dataclass; add its problems, and fall back to defaults only so that the rest can be checked."""
    own: list[ConfigProblem] = []
    kinds = _kinds(section)
    known = {key_of(field): field for field in fields(section)}
    values: dict[str, object] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if key not in known:
            own.append(unknown_key(name, value))
            continue
        kind = kinds[known[key].name]
        if is_dataclass(kind) and isinstance(kind, type) and isinstance(value, Mapping):
            values[known[key].name] = _section(kind, value, f"{name}.", own)
            continue
        try:
            values[known[key].name] = _read(kind, value, name)
        except ConfigError as error:
            own.extend(error.problems)
    reported = {problem.field for problem in own}
    config, broken = _construct(section, values)
    rules = [problem.under(prefix[:-1]) if prefix else problem for problem in broken]
    found.extend(own)
    found.extend(problem for problem in rules if problem.field not in reported)
    return config


def _construct(section: "type[Section]", values: dict[str, object]) -> "tuple[Section, list[ConfigProblem]]":
    """Return an instance and the rules that its values break; it holds the values even where they break rules."""
    try:
        return section(**values), []
    except ConfigError as error:
        config = section()
        vars(config).update(values)
        return config, error.problems


def _wrong(name: str, value: object, wanted: str, remedy: str) -> ConfigError:
    return ConfigError([ConfigProblem(name, value, f"must be {wanted}, not {_described(value)}", remedy)])


def _described(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    for kind, name in ((str, "a text"), (int, "a whole number"), (float, "a fraction"), (Mapping, "a mapping")):
        if isinstance(value, kind):
            return name
    return "a list" if isinstance(value, Sequence) else type(value).__name__


def _read(kind: object, value: object, name: str) -> object:
    """Return `value` as the type `kind`. Raises ConfigError."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        (inner,) = (argument for argument in arguments if argument is not NoneType)
        return None if value is None else _read(inner, value, name)
    if origin is list:
        return _read_list(arguments[0], value, name)
    if origin is dict:
        return _read_mapping(arguments[1], value, name)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return _read_choice(kind, value, name)
    if isinstance(kind, type) and is_dataclass(kind):
        keys = ", ".join(key_of(field) for field in fields(kind))
        raise _wrong(name, value, "a section", f"set one of its fields, e.g. {name}.{keys.split(', ')[0]}=...")
    assert kind in _PLAIN_NAMES, f"rlhf.schema cannot read fields of type {kind}"
    assert isinstance(kind, type)
    return _read_plain(kind, value, name)


def _read_plain(kind: type, value: object, name: str) -> object:
    wanted = _PLAIN_NAMES[kind]
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        quoted = isinstance(value, bool | int | float) and kind is str
        example = {int: "4", float: "0.1", bool: "true", str: "text"}[kind]
        remedy = f"quote it: {name}=\\'{value}\\'" if quoted else f"give {wanted}, e.g. {name}={example}"
        raise _wrong(name, value, wanted, remedy)
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError([ConfigProblem(name, value, "must be finite", f"give a number, e.g. {name}=0.1")])
    return value


def _read_choice(kind: type[StrEnum], value: object, name: str) -> StrEnum:
    allowed = [member.value for member in kind]
    if isinstance(value, str) and value in allowed:
        return kind(value)
    near = difflib.get_close_matches(str(value), allowed, n=1)
    remedy = f"did you mean {name}={near[0]}?" if near else f"use e.g. {name}={allowed[0]}"
    raise ConfigError([ConfigProblem(name, value, f"must be one of {', '.join(allowed)}", remedy)])


def _read_list(kind: object, value: object, name: str) -> list[object]:
    if not isinstance(value, list | tuple):
        raise _wrong(name, value, "a list", f"write {name}=[a,b]")
    return [_read(kind, item, f"{name}[{index}]") for index, item in enumerate(value)]


def _read_mapping(kind: object, value: object, name: str) -> dict[str, object]:
    if not isinstance(value, Mapping):
        raise _wrong(name, value, "a mapping", f"write +{name}.KEY=... or a YAML file")
    found: list[ConfigProblem] = []
    entries: dict[str, object] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            found += _wrong(f"{name}.{key}", key, "a text as key", "quote the key").problems
        elif item is not None:
            try:
                entries[key] = _read(kind, item, f"{name}.{key}")
            except ConfigError as error:
                found += error.problems
    raise_problems(found)
    return entries
