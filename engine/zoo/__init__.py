"""Models that come along, each a package in a folder of its name: `Engine.load("emotion")`. README.md says what they are."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
EMOTION = "emotion"  # what is taken where nobody names a model


def names() -> list[str]:
    return sorted(path.parent.name for path in FOLDER.glob("*/manifest.json"))


def find(model: Path | str) -> Path:
    """The folder of a model that comes along, where `model` is its name; else the path itself.

    A package or a run of the caller's that is called so goes before.
    """
    path = Path(model)
    here = any((path / file).is_file() for file in ("manifest.json", "package/manifest.json", "config.yaml"))
    return path if here or str(model) not in names() else FOLDER / str(model)
