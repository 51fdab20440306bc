"""What a composed configuration may make Hydra do: which code it imports, which resolvers it calls.

Hydra imports whatever `_target_` names under `hydra`, and logging whatever `class` and `()` name; a resolver such as
`oc.env` writes secrets into every saved configuration, as does a password in a URL, wherever it stands.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from sft.core.config import no_password
from sft.core.errors import ConfigProblem

_TARGETS = {
    "hydra.launcher._target_": (
        "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
        "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
        "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
        "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
    ),
    "hydra.sweeper._target_": (
        "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
        "hydra_plugins.rlhf.OptunaSweeper",
    ),
}
"""All that a configuration may make Hydra import, by place."""
_LOGGING_NAMES = ("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler", "logging.Formatter")
_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
_PLAIN_REFERENCE = re.compile(r"\$\{[A-Za-z_.][\w.]*\}")
_HYDRA_REFERENCE = re.compile(r"\$\{(now|hydra|python_version):[^${}]*\}")


def hydra_problems(hydra: Mapping[str, object]) -> list[ConfigProblem]:
    """Return whatever under `hydra` would import or run something, write a secret, or move the current folder."""
    node = {key: value for key, value in hydra.items() if key not in ("overrides", "runtime")}  # bookkeeping
    found = _passwords(node, "hydra")
    found += [problem for name, text in _texts(node, "hydra") for problem in _hydra_text_problems(name, text)]
    job = node.get("job")
    assert isinstance(job, dict)
    key = "env_copy" if job.get("env_copy") else "env_set"  # Hydra has copied the former into the latter
    if job.get(key):
        rule = "would write environment variables into saved files"
        found.append(ConfigProblem(f"hydra.job.{key}", list(job[key]), rule, "set them in the shell"))
    if job.get("chdir"):
        rule = "must stay false: relative paths start at the folder of the launch"
        found.append(ConfigProblem("hydra.job.chdir", True, rule, "leave it out"))
    if node.get("searchpath"):
        rule = "adds folders that are not checked"
        found.append(ConfigProblem("hydra.searchpath", node["searchpath"], rule, "use --config-dir DIR"))
    return found


def _hydra_text_problems(name: str, text: str) -> list[ConfigProblem]:
    key = name.rpartition(".")[2]
    if key == "_target_" and text not in _TARGETS.get(name, ()):
        allowed = ", ".join(_TARGETS.get(name, ())) or "nothing"
        rule = f"would import and run code; allowed here: {allowed}"
        return [ConfigProblem(name, text, rule, "remove it")]
    if key in ("class", "()") and text not in _LOGGING_NAMES:
        rule = f"would import and run code; allowed: {', '.join(_LOGGING_NAMES)}"
        return [ConfigProblem(name, text, rule, "remove it")]
    if text.startswith(("ext://", "cfg://")) and text not in _STREAMS:
        return [ConfigProblem(name, text, f"would import code; allowed: {', '.join(_STREAMS)}", "remove it")]
    if "${" in _HYDRA_REFERENCE.sub("", _PLAIN_REFERENCE.sub("", text)):
        rule = "calls a resolver that is not allowed; allowed: now, hydra"
        return [ConfigProblem(name, text, rule, "write the value")]
    return []


def reference_problems(tree: Mapping[str, object]) -> list[ConfigProblem]:
    """Return what must not stand in an experiment's configuration: missing values, calls of resolvers, passwords."""
    found = _passwords(tree, "")
    for name, text in _texts(tree, ""):
        if text == "???":
            found.append(ConfigProblem(name, text, "is required", f"set it: {name}=..."))
        elif "${" in _PLAIN_REFERENCE.sub("", text):
            rule = "calls a resolver, whose result (a secret, say) would be written into every saved configuration"
            found.append(ConfigProblem(name, text, rule, "write the value; secrets belong into the environment"))
    return found


def word_problems(words: Sequence[str]) -> list[ConfigProblem]:
    """Return a problem for each override that holds a password in a URL: Hydra would save the word as it is."""
    pairs = (word.partition("=") for word in words)
    return [problem for key, _, value in pairs for problem in no_password(**{key.lstrip("+~") or "=": value or key})]


def _passwords(tree: Mapping[str, object], name: str) -> list[ConfigProblem]:
    texts = [*_texts(tree, name), *((place, key) for place, key in _keys(tree, name))]
    return [problem for place, text in texts for problem in no_password(**{place: text})]


def _keys(node: object, name: str) -> Iterator[tuple[str, str]]:
    """Return (dotted name of the mapping, key) of every key of a tree."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield name, str(key)
            yield from _keys(value, f"{name}.{key}" if name else str(key))


def _texts(node: object, name: str) -> Iterator[tuple[str, str]]:
    """Return (dotted name, text) of every text in a tree."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _texts(value, f"{name}.{key}" if name else str(key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _texts(value, f"{name}[{index}]")
    elif isinstance(node, str):
        yield name, node
