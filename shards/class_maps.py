"""Class maps: which class a number in a label column means, and which names mean the same class.

A map is a JSON file, {name: id}, {id: name} or a list of names; the known datasets' are in `configs/class_maps`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from affect.shards.errors import InputError, nearest

FORMS = '{"happy": 3}, {"3": "happy"} or ["angry", "happy"]'
SYNONYMS = {  # any spelling, in small letters -> FER+'s name
    "neutral": "neutral", "neutrality": "neutral",
    "happiness": "happiness", "happy": "happiness", "joy": "happiness",
    "surprise": "surprise", "surprised": "surprise",
    "sadness": "sadness", "sad": "sadness",
    "anger": "anger", "angry": "anger",
    "disgust": "disgust", "disgusted": "disgust",
    "fear": "fear", "fearful": "fear", "afraid": "fear", "scared": "fear",
    "contempt": "contempt", "contemptuous": "contempt",
}  # fmt: skip


def canonical(label: str, synonyms: Mapping[str, str] = SYNONYMS) -> str:
    """Return FER+'s name of an emotion in any spelling, and every other label as it is, without spaces around it."""
    return synonyms.get(label.strip().casefold(), label.strip())


def columns_by_name(wanted: Sequence[str], names: Sequence[str]) -> list[int] | None:
    """Return the position in `names` of each of `wanted`, in any spelling; None unless both hold the same classes, each once."""
    ours, theirs = [canonical(name) for name in wanted], [canonical(name) for name in names]
    if set(ours) != set(theirs) or len(set(ours)) < max(len(ours), len(theirs)):
        return None
    return [theirs.index(name) for name in ours]


@dataclass(frozen=True)
class ClassMap:
    """Ids of a dataset's classes. The names are canonical, so maps and labels of different spellings agree."""

    name: str
    names: tuple[str, ...]  # in the order of the ids, which may have gaps
    ids: dict[str, int]
    synonyms: Mapping[str, str] = field(default_factory=lambda: SYNONYMS)

    def canonical(self, label: str) -> str:
        """Return the class that `label` names, in any spelling. Raises InputError where the map has no such class."""
        wanted = canonical(label, self.synonyms)
        for name in self.names:
            if name.casefold() == wanted.casefold():
                return name
        close = nearest(wanted.casefold(), [*self.names, *(word for word, name in self.synonyms.items() if name in self.ids)])
        raise InputError(f"class map {self.name}: has no class {label!r}{close}; it has: {', '.join(self.names)}")

    @classmethod
    def read(cls, path: Path) -> ClassMap:
        try:
            value = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_without_repeats)
        except OSError as error:
            raise InputError(f"{path}: not readable: {error.strerror}; expected a class map as JSON") from error
        except ValueError as error:
            raise InputError(f"{path}: not a class map ({error}); expected {FORMS}") from error
        ids: dict[str, int] = {}
        for label, number in _pairs(path, value):
            name = canonical(label)
            if ids.setdefault(name, number) != number:
                raise InputError(f"{path}: {label!r} has the ids {ids[name]} and {number}; expected one id a class")
        taken: dict[int, str] = {}
        for name, number in ids.items():
            if taken.setdefault(number, name) != name:
                raise InputError(f"{path}: id {number} is {taken[number]!r} and {name!r}; expected one class an id")
        names = tuple(sorted(ids, key=ids.__getitem__))
        return cls(path.stem, names, {name: ids[name] for name in names})

    @classmethod
    def load(cls, name: str | Path) -> ClassMap:
        """Read a JSON file by its path, or one of the installed class maps by its name: `affectnet`."""
        if Path(name).is_file():
            return cls.read(Path(name))
        folder = Path(str(resources.files("affect.configs"))) / "class_maps"
        known = {path.stem: path for path in sorted(folder.glob("*.json"))}
        if str(name) in known:
            return cls.read(known[str(name)])
        raise InputError(f"{name}: no such file or class map{nearest(str(name), known)}; class maps: {', '.join(known)}")


def _pairs(path: Path, value: Any) -> list[tuple[str, int]]:
    """Return (name, id) pairs of a map in any of the three forms."""
    if isinstance(value, list):
        value = {str(i): name for i, name in enumerate(value)}
    if not isinstance(value, dict) or not value:
        raise InputError(f"{path}: found {json.dumps(value)[:40]}, expected {FORMS}")
    if all(isinstance(name, str) for name in value.values()):
        value = {int(number) if number.isdecimal() else number: name for number, name in value.items()}
        pairs = [(name, number) for number, name in value.items()]
    else:
        pairs = list(value.items())
    for name, number in pairs:
        if not isinstance(name, str) or not name.strip() or type(number) is not int or number < 0:
            raise InputError(f"{path}: found {name!r} with id {number!r}, expected {FORMS}")
    return pairs


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse equal keys: json would keep the last of them without an error."""
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} stands there twice")
    return value
