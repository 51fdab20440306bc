"""Who may import whom, and what may stand nowhere. Read from the syntax trees, so nothing is imported here."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = {
    path.relative_to(ROOT): ast.parse(path.read_text(encoding="utf-8"))
    for package in ("sft", "reward", "rlhf")
    for path in sorted((ROOT / package).rglob("*.py"))
}
ROOMS = ("ppo", "labels", "bias", "evaluation", "registry", "simulation", "report", "runs", "search")
HEAVY = {"torch", "transformers", "trl", "datasets", "accelerate", "peft", "wandb"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {"eval", "exec", "torch.load", "torch.save", "__import__", "numpy.load", "np.load"}


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted names that a file imports, also inside functions and type-checking blocks."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_import_time(tree: ast.Module) -> Iterator[str]:
    """Yield what importing the file imports: what stands outside functions and type-checking blocks."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imported(ast.Module([node], []))
        waiting += ast.iter_child_nodes(node)


def files_in(*folder: str) -> list[Path]:
    """Return the files below a folder."""
    return [path for path in FILES if path.parts[: len(folder)] == folder]


def test_enough_files_are_read():
    assert len(FILES) >= 70
    assert all(len(files_in(*parts)) >= 2 for parts in (("sft", "core"), ("reward",), *(("rlhf", r) for r in ROOMS)))


@pytest.mark.parametrize(("package", "above"), [("sft", {"reward", "rlhf"}), ("reward", {"rlhf"})])
def test_no_floor_imports_the_one_above(package: str, above: set[str]):
    wrong = [
        (path, name) for path in files_in(package) for name in imported(FILES[path]) if name.split(".")[0] in above
    ]
    assert wrong == []
    assert len(files_in(package)) >= 7


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_do_not_import_each_other(room: str):
    others = {f"rlhf.{other}" for other in ROOMS if other != room}
    wrong = [
        (path, name)
        for path in files_in("rlhf", room)
        for name in imported(FILES[path])
        if ".".join(name.split(".")[:2]) in others
    ]
    assert wrong == []


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_do_not_import_the_pipeline(room: str):
    above = {"rlhf.pipeline", "rlhf.cli", "rlhf.stages", "rlhf.run", "rlhf.sources", "rlhf.launch"}
    above |= {"rlhf.labelling", "rlhf.publishing"}
    wrong = [
        (path, name)
        for path in files_in("rlhf", room)
        for name in imported(FILES[path])
        if ".".join(name.split(".")[:2]) in above
    ]
    assert wrong == []


def test_settings_import_nothing_heavy():
    """Followed through our own modules: a config error must answer before torch is there."""
    starts = [path for path in FILES if path.name == "config.py"]
    assert len(starts) >= 4
    seen: set[Path] = set()
    waiting = list(starts)
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for name in at_import_time(FILES[path]):
            assert name.split(".")[0] not in HEAVY, f"{path} imports {name}"
            parts = name.split(".")
            for end in range(1, len(parts) + 1):
                module = Path(*parts[:end])
                waiting += [p for p in (module.with_suffix(".py"), module / "__init__.py") if p in FILES]
    assert len(seen) > len(starts)


def test_nothing_unpickles_or_runs_text():
    wrong: list[tuple[Path, int, str]] = []
    calls = 0
    for path, tree in FILES.items():
        wrong += [(path, 0, name) for name in imported(tree) if name.split(".")[0] in FORBIDDEN_MODULES]
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            calls += 1
            if ast.unparse(node.func) in FORBIDDEN_CALLS:
                wrong.append((path, node.lineno, ast.unparse(node.func)))
            for keyword in node.keywords:
                if keyword.arg == "trust_remote_code" and ast.unparse(keyword.value) != "False":
                    wrong.append((path, node.lineno, "trust_remote_code"))
                if keyword.arg == "weights_only" and ast.unparse(keyword.value) != "True":
                    wrong.append((path, node.lineno, "weights_only"))
    assert wrong == []
    assert calls > 1000


def test_every_model_is_loaded_from_safetensors_without_remote_code():
    loads = 0
    for path, tree in FILES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".from_pretrained"):
                loads += 1
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert given.get("trust_remote_code") == "False", f"{path}:{node.lineno}"
                is_tokenizer = "Tokenizer" in ast.unparse(node.func)
                assert is_tokenizer or given.get("use_safetensors") == "True", f"{path}:{node.lineno}"
    assert loads >= 4
