"""Limits of a YAML file, checked before Hydra reads it: a few lines of aliases can cost OmegaConf minutes.

Only the parser's events are read, so that no node is built before its size is known.
"""

from pathlib import Path

import yaml

from sft.core.config import raise_problems
from sft.core.errors import ConfigProblem

MAX_BYTES = 256 * 1024
MAX_DEPTH = 20
MAX_NODES = 10_000
"""Nodes after every alias is written out."""


def check_yaml(path: Path) -> None:
    """Raise ConfigError when a YAML file cannot be read, is too large, or reaches for files outside its folder.

    The problem's field is `FILE:LINE` (or `FILE`).
    """
    raise_problems(_problems(path))


def _problems(path: Path) -> list[ConfigProblem]:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            return [ConfigProblem(str(path), size, f"is larger than {MAX_BYTES} bytes", "keep data out of YAML files")]
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        return [ConfigProblem(str(path), f"byte {error.start}", "is no UTF-8", "save the file as UTF-8")]
    except OSError as error:
        return [ConfigProblem(str(path), error.strerror, "cannot be read", "fix its permissions")]
    try:
        return _size_problems(path, text) or _content_problems(path, text)
    except yaml.MarkedYAMLError as error:
        return [_syntax_problem(path, text, error)]
    except (yaml.YAMLError, ValueError) as error:  # ValueError: dates and numbers that do not exist
        return [ConfigProblem(str(path), str(error), "is no valid YAML", "correct the file")]


def _syntax_problem(path: Path, text: str, error: yaml.MarkedYAMLError) -> ConfigProblem:
    line = error.problem_mark.line if error.problem_mark else 0
    lines = text.splitlines()
    shown = lines[line].strip() if line < len(lines) else "end of file"
    return ConfigProblem(f"{path}:{line + 1}", shown, f"is no valid YAML ({error.problem})", f"correct line {line + 1}")


def _size_problems(path: Path, text: str) -> list[ConfigProblem]:
    """Count nodes with every alias written out, without writing it out."""
    count = 0
    open_nodes: list[tuple[str | None, int]] = []
    sizes: dict[str, int] = {}
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, count))
            count += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, start = open_nodes.pop()
            if anchor:
                sizes[anchor] = count - start
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.AliasEvent):
            count += sizes.get(str(event.anchor), MAX_NODES + 1)  # an alias to a node around itself never ends
        if count > MAX_NODES or len(open_nodes) > MAX_DEPTH:
            line = event.start_mark.line + 1 if event.start_mark else 1
            rule = f"exceeds {MAX_NODES} values (aliases written out) or {MAX_DEPTH} levels"
            return [ConfigProblem(f"{path}:{line}", f"{count} values", rule, "write the file without nested aliases")]
    return []


def _content_problems(path: Path, text: str) -> list[ConfigProblem]:
    tree = yaml.safe_load(text)
    if tree is not None and not isinstance(tree, dict):
        shown = type(tree).__name__
        return [ConfigProblem(str(path), shown, "must hold `key: value` lines", "see the files in conf/")]
    found = []
    defaults = (tree or {}).get("defaults")
    for default in defaults if isinstance(defaults, list) else []:
        chosen = default.values() if isinstance(default, dict) else [default]
        if any(_leaves_folder(str(value)) for value in chosen):
            rule = "reaches for a file outside the configuration folders"
            found.append(ConfigProblem(f"{path}: defaults", default, rule, "name a file of conf/ or of --config-dir"))
    hydra = (tree or {}).get("hydra")
    if isinstance(hydra, dict) and hydra.get("searchpath"):
        rule = "adds folders that are not checked"
        found.append(ConfigProblem(f"{path}: hydra.searchpath", hydra["searchpath"], rule, "use --config-dir DIR"))
    return found


def _leaves_folder(name: str) -> bool:
    return ".." in name.split("/") or "//" in name or "${" in name
