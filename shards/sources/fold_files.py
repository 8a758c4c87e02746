"""Reads split files: test animals, and the folds of the others."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affect.shards.errors import InputError, first

FORM = '{"test_animals": [...], "cv_folds": [{"fold": 0, "train_animals": [...], "val_animals": [...]}, ...]}'


@dataclass(frozen=True)
class Folds:
    """A split file. fold_of: animal -> the fold in which it validates; an animal without a fold trains in all of them."""

    path: Path
    test: frozenset[str]
    train: dict[int, frozenset[str]]
    fold_of: dict[str, int]

    @classmethod
    def read(cls, path: Path) -> Folds:
        """Read a file. Raises InputError listing every animal that is held out twice, or held out and trained on."""
        value = read_json(path, FORM)
        wrong: list[str] = []
        test, train, fold_of = frozenset(_names(value.get("test_animals"))), dict[int, frozenset[str]](), dict[str, int]()
        entries = value.get("cv_folds")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise InputError(f"{path}: found no list 'cv_folds'; expected {FORM}")
        for number, entry in enumerate(entries):
            fold = entry.get("fold", number)
            if type(fold) is not int or fold in train:
                wrong.append(f"cv_folds: found fold {json.dumps(fold)} at {number}, expected whole numbers, each once")
                continue
            val, train[fold] = _names(entry.get("val_animals")), frozenset(_names(entry.get("train_animals")))
            wrong += [f"fold {fold}: {name} is in val_animals and in train_animals" for name in sorted(train[fold] & set(val))]
            wrong += [f"fold {fold}: {name} is one of test_animals, too" for name in sorted(test & (train[fold] | set(val)))]
            if not val:
                wrong.append(f"fold {fold}: no val_animals")
            for name in dict.fromkeys(val):
                if fold_of.setdefault(name, fold) != fold:
                    wrong.append(f"{name} is in val_animals of folds {fold_of[name]} and {fold}; expected one fold an animal")
        if wrong:
            raise InputError(f"{path}: wrong folds:\n{first(wrong, 20)}")
        return cls(path, test, train, fold_of)

    @property
    def animals(self) -> frozenset[str]:
        return self.test.union(self.fold_of, *self.train.values())

    def check(self, animals: set[str], labels: Path) -> None:
        """Raises InputError where an animal with sequences is in no list: it would silently train in every fold."""
        lacking = sorted(animals - self.animals)
        if lacking:
            raise InputError(f"{self.path}: {len(lacking)} animals of {labels.name} are in no list of it:\n{first(lacking, 20)}")
        if animals <= self.test:
            raise InputError(f"{self.path}: all animals of {labels.name} are test animals; nothing is left to train on")

    def notes(self, animals: set[str]) -> list[str]:
        """Lines on what is unusual but no error."""
        never = sorted((animals & self.animals) - self.test - set(self.fold_of))
        empty = sorted(self.animals - animals)
        left = [
            f"fold {fold}: {', '.join(missing)}"
            for fold, train in self.train.items()
            if (missing := sorted(name for name in animals - self.test - train if self.fold_of.get(name) != fold))
        ]
        notes = {
            f"{len(never)} animals validate in no fold, and train in all: {', '.join(never)}": never,
            f"{len(empty)} animals of {self.path.name} have no sequence: {', '.join(empty)}": empty,
            f"animals that train_animals leaves out train all the same, in\n{first(left)}": left,
        }
        return [note for note, there in notes.items() if there]


def read_json(path: Path, form: str) -> dict[str, Any]:
    """Read a JSON object from a file. Raises InputError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: not readable: {error.strerror}; expected {form}") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); expected {form}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: found {json.dumps(value)[:40]}, expected {form}")
    return value


def _names(value: Any) -> list[str]:
    """The names of animals, which may be text or numbers."""
    return [str(name).strip() for name in value] if isinstance(value, list) else []
