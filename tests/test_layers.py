"""Data flows one way; an import that points against the flow is named."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {  # folder or file -> what it must not import
    "shards": ("affect.engine", "affect.kernels", "torch"),
    "kernels": ("affect.engine", "affect.shards"),
    "engine/runtime": ("torch", "timm", "nvidia", "affect.engine.training", "affect.engine.models", "affect.engine.evaluation"),
    "engine/package": ("torch", "timm", "nvidia", "affect.engine.runtime", "affect.engine.training"),
    "engine/training": ("affect.engine.evaluation", "affect.engine.export", "affect.engine.runtime"),
    "engine/data": ("affect.engine.models", "affect.engine.losses", "affect.engine.training", "affect.engine.runtime"),
    "engine/models": ("affect.engine.losses", "affect.engine.training", "affect.engine.runtime"),
}


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("place", FORBIDDEN)
def test_imports_follow_the_flow(place):
    paths = [ROOT / place] if place.endswith(".py") else sorted((ROOT / place).rglob("*.py"))
    wrong = [
        f"{path.relative_to(ROOT)} -> {module}"
        for path in paths
        for module in imports_of(path)
        for name in FORBIDDEN[place]
        if module == name or module.startswith(f"{name}.")
    ]
    assert paths and not wrong


def test_train_knows_no_task_by_name():
    text = (ROOT / "engine/training/trainer.py").read_text()
    names = [path.stem for path in (ROOT / "engine/tasks").glob("*.py") if path.stem != "__init__"]
    assert not [name for name in names if name in text]


def test_every_folder_with_code_is_installed():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    tops = ("engine", "kernels", "shards", "bench", "configs")
    found = {
        f"affect.{path.parent.relative_to(ROOT).as_posix().replace('/', '.')}"
        for top in tops
        for path in (ROOT / top).rglob("*.py")
    }
    assert listed == found
