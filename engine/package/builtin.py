"""The built-in models: each a package in a folder of its name in engine/zoo, `Engine.load("emotion")`."""

from __future__ import annotations

from pathlib import Path

ZOO = Path(__file__).parents[1] / "zoo"  # README.md there says what they are
DEFAULT_MODEL = "emotion"  # the default where no model is named


def builtin_names() -> list[str]:
    return sorted(path.parent.name for path in ZOO.glob("*/manifest.json"))


def model_path(model: Path | str) -> Path:
    """Return the folder of the built-in model that `model` names, else `model` itself as a path.

    A package or a run of the caller's with that name goes before the built-in one.
    """
    path = Path(model)
    here = any((path / file).is_file() for file in ("manifest.json", "package/manifest.json", "config.yaml"))
    return path if here or str(model) not in builtin_names() else ZOO / str(model)
