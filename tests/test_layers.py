"""The house: every folder imports only what stands before it, no files import each other, and names say where a thing lives."""

import ast
import tomllib
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOPS = ("engine", "kernels", "shards", "bench")

# Lowest first; a folder imports only what stands before it. Folders of one row do not import each other.
ORDER = """
    kernels shards
    engine/system
    engine/tasks
    engine/config
    engine/data
    engine/metrics engine/models
    engine/calibration
    engine/package
    engine/runs
    engine/report
    engine/runtime
    engine/evaluation
    engine/losses
    engine/distill
    engine/training
    engine/export
    engine/pipeline.py
    engine/sweep
    engine/crossval
    engine/demo
    bench
    engine/cli
"""
LEVELS = {place: level for level, row in enumerate(ORDER.strip().splitlines()) for place in row.split()}
ANYWHERE = ("engine/__init__.py",)  # the public face alone may name later folders, lazily
DATA_ONLY = ("engine/zoo",)
WITHOUT = {  # what a folder does without, in any kind of import
    "shards": ("torch", "timm", "pydantic", "typer"),
    "engine/config": ("torch", "timm", "nvidia"),
    "engine/package": ("torch", "timm", "nvidia", "onnx"),
    "engine/runtime": ("torch", "timm", "nvidia"),
}
MAY = {"engine/runtime/backends/torch.py": ("torch",)}  # the backend that runs a run's own model


def sources():
    return [path for top in TOPS for path in sorted((ROOT / top).rglob("*.py"))]


def place_of(path):
    """The folder, or loose file, by which a source stands in ORDER."""
    parts = path.relative_to(ROOT).parts
    return "/".join(parts[:2]) if parts[0] == "engine" else parts[0]


def module_of(path):
    return "affect." + ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def imports_of(path):
    """(line, dotted name) of every import of a file: at its head, inside functions, under TYPE_CHECKING."""
    named = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            named += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: a relative import; write it whole"
            named += [(node.lineno, node.module), *((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)]
    return named


@cache
def graph():
    """path -> {path that it imports: line}; the public face aside."""
    modules = {module_of(path): path for path in sources()}
    edges = defaultdict(dict)
    for path in sources():
        if str(path.relative_to(ROOT)) in ANYWHERE:
            continue
        for line, name in imports_of(path):
            target = modules.get(name)
            if target and target != path and str(target.relative_to(ROOT)) not in ANYWHERE:
                edges[path].setdefault(target, line)
    return edges


@pytest.mark.parametrize("place", LEVELS)
def test_a_folder_imports_only_what_stands_before_it(place):
    arrows = [
        f"{path.relative_to(ROOT)}:{line} -> {target.relative_to(ROOT)}"
        for path, targets in graph().items()
        if place_of(path) == place
        for target, line in targets.items()
        if place_of(target) != place and LEVELS.get(place_of(target), 0) >= LEVELS[place]
    ]
    assert not arrows, "these imports point against the order:\n" + "\n".join(arrows)


def test_every_source_has_its_place():
    places = {place_of(path) for path in sources() if str(path.relative_to(ROOT)) not in ANYWHERE}
    assert places - set(DATA_ONLY) == set(LEVELS)
    assert not [
        node for place in DATA_ONLY for path in (ROOT / place).rglob("*.py") for node in ast.parse(path.read_text()).body[1:]
    ]


def test_no_files_import_each_other():
    assert not [f"circle: {' -> '.join(str(path.relative_to(ROOT)) for path in circle)}" for circle in circles(graph())]


def circles(edges):
    """Strongly connected components of more than one file (Tarjan)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in edges.get(node, ()):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            component = stack[stack.index(node) :]
            del stack[len(stack) - len(component) :]
            if len(component) > 1:
                found.append(component)

    for node in list(edges):
        if node not in index:
            visit(node)
    return found


def test_a_circle_is_found():
    assert circles({"a": ["b"], "b": ["c"], "c": ["b"]}) == [["b", "c"]]
    assert circles({"a": ["b"], "b": ["c"]}) == []


@pytest.mark.parametrize("place", WITHOUT)
def test_a_folder_does_without(place):
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sorted((ROOT / place).rglob("*.py"))
        for line, name in imports_of(path)
        for banned in WITHOUT[place]
        if (name == banned or name.startswith(f"{banned}.")) and banned not in MAY.get(str(path.relative_to(ROOT)), ())
    ]
    assert not wrong, wrong


def test_no_private_name_is_imported_from_another_module():
    private = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {alias.name}"
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("affect")
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    ]
    assert not private, private


def test_nothing_takes_a_name_from_the_public_face():
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sources()
        if place_of(path) not in ("engine/demo", "engine/cli", "bench") and str(path.relative_to(ROOT)) not in ANYWHERE
        for line, name in imports_of(path)
        if name == "affect.engine"
    ]
    assert not wrong, wrong


def test_few_modules_are_loose_and_few_names_are_used_twice():
    loose = [path.name for path in (ROOT / "engine").glob("*.py") if path.name != "__init__.py"]
    named = [path for path in sources() if path.name not in ("__init__.py", "reference.py", "fused.py")]
    names = Counter(path.name for path in named if place_of(path) not in ("engine/cli", "bench"))
    twice = sorted(name for name, count in names.items() if count > 1)
    assert len(loose) <= 3 and len(twice) <= 8, (loose, twice)


def test_files_and_functions_are_short():
    long = [f"{path.relative_to(ROOT)}: {lines}" for path in sources() if (lines := len(path.read_text().splitlines())) > 300]
    long += [
        f"{path.relative_to(ROOT)}: {lines}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if (lines := len(path.read_text().splitlines())) > 400
    ]
    functions = sorted(
        node.end_lineno - node.lineno + 1
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    assert not long and functions[int(0.9 * len(functions))] <= 20, long


PRIVATE_WORDS = {"said", "told", "taught", "kept", "held", "found"}


def test_public_names_are_words_of_the_field():
    wrong = [
        f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}: {name}"
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        for name in public_names(node)
        if name.lower() in PRIVATE_WORDS
    ]
    assert not wrong, wrong


def public_names(node):
    """Of functions and classes, their parameters, and what a class or module defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        return [node.name, *(one.arg for one in every if one)]
    if isinstance(node, ast.ClassDef | ast.Module):
        targets = [target for part in node.body for target in getattr(part, "targets", [getattr(part, "target", None)])]
        return [getattr(node, "name", ""), *(target.id for target in targets if isinstance(target, ast.Name))]
    return []


def test_train_knows_no_task_by_name():
    text = "".join(path.read_text() for path in sorted((ROOT / "engine/training").glob("*.py")))
    names = [path.stem for path in (ROOT / "engine/tasks").glob("*.py") if path.stem not in ("__init__", "spec")]
    assert names and not [name for name in names if f"tasks.{name}" in text]


def test_every_folder_with_code_is_installed():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    folders = {path.parent.relative_to(ROOT) for top in (*TOPS, "configs") for path in (ROOT / top).rglob("*.py")}
    assert listed == {f"affect.{folder.as_posix().replace('/', '.')}" for folder in folders}


def test_tests_mirror_the_tree():
    folders = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")} - {Path()}
    missing = [str(folder) for folder in folders if not (ROOT / folder).is_dir()]
    assert not missing, f"tests of folders that are not there: {missing}"
