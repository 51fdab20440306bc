"""A setting that no code reads is a promise that nobody keeps: each must be read outside configuration and checks."""

import ast
from pathlib import Path

from rlhf import schema

ROOT = Path(schema.__file__).resolve().parent.parent
ONLY_DESCRIBE = {"config.py", "schema.py", "preflight.py", "inputs.py"}
"""Files that hold or check settings; a field must be used elsewhere."""


def attributes(tree: ast.AST) -> set[str]:
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}


def is_property(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef) and any(
        isinstance(decorator, ast.Name) and decorator.id == "property" for decorator in node.decorator_list
    )


def attributes_read() -> set[str]:
    """What code reads, and what the properties of the configuration that code reads are made of."""
    names: set[str] = set()
    derived: dict[str, set[str]] = {}
    for path in (path for package in ("sft", "reward", "rlhf") for path in (ROOT / package).rglob("*.py")):
        tree = ast.parse(path.read_text())
        if path.name not in ONLY_DESCRIBE:
            names |= attributes(tree)
        elif path.name == "config.py":
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef) and is_property(node):
                    derived[node.name] = attributes(node)
    return names.union(*(fields for name, fields in derived.items() if name in names))


def test_every_setting_is_read():
    read = attributes_read()
    leaves = schema.leaves()
    assert len(leaves) > 80
    unread = [leaf.name for leaf in leaves if leaf.attribute not in read]
    assert not unread, f"no code reads: {', '.join(unread)}"
