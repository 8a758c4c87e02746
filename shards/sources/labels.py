"""Maps the cells of a manifest's label columns to classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from affect.shards.class_maps import SYNONYMS, ClassMap, canonical
from affect.shards.errors import InputError, nearest
from affect.shards.sources.table import Row, as_number

MOST_CLASSES = 1000  # more are a sign of a wrong column, and would have to be in memory
LISTED = 10


class Labels:
    """Maps a cell to its class: an id by the class map, a name by the classes."""

    def __init__(self, class_map: ClassMap | None, classes: Sequence[str] | None, leave_out: bool = False) -> None:
        names = classes or (class_map.names if class_map else ())
        self.synonyms = class_map.synonyms if class_map else SYNONYMS
        self.by_id = {number: name for name, number in class_map.ids.items()} if class_map else {}
        self.origin = f"the class map {class_map.name!r}" if class_map and not classes else "the classes"
        self.classes = {name.casefold(): name for name in (canonical(label, self.synonyms) for label in names)}
        self.gathering = not names  # the rows define the classes
        self.leave_out = leave_out  # rows with other labels are left out
        self.uncovered = Counter[str]()  # label -> its rows
        self.negatives: dict[str, str] = {}  # neg_label -> its row, while the classes are gathered
        if len(self.classes) < len(names):
            raise InputError(f"--classes {','.join(names)}: two of these are one class; expected each once")

    def close(self, path: Path) -> tuple[str, ...]:
        """Return the classes in the dataset's order; from then on no class is added."""
        names = tuple(sorted(self.classes.values()) if self.gathering else self.classes.values())
        self.gathering = False
        if len(names) < 2:
            raise InputError(f"{path}: found {len(names)} class ({', '.join(names)}), expected at least 2")
        return names

    def of(self, row: Row) -> str:
        """Return the class of a row; where it has a name and an id, and there is a class map, the two must agree."""
        named, column = row.table.name, row.table.label
        meant = self._meant(row, named if named and row.cells[named] else column or named or "")
        number = _whole(row.cells[column]) if column else None
        if named and meant and self.by_id and number is not None:
            means = self.by_id.get(number, "nothing")
            if means.casefold() != meant.casefold():
                row.wrong.append(f"{named} is {meant}, but {column} is {number}, which means {means}; expected the same")
        return meant

    def negative(self, row: Row) -> str:
        return self._meant(row, "neg_label")

    def _meant(self, row: Row, column: str) -> str:
        text = row.cells[column]
        number = _whole(text)
        if number is not None and not self.by_id:
            row.wrong.append(f"{column}: found the id {text}, expected a name; what ids mean says --class-map NAME or FILE")
            return ""
        if not text or (number is None and as_number(text) is not None):
            row.wrong.append(f"{column}: found {text!r}, expected a name or an id, which is a whole number")
            return ""
        name = canonical(text, self.synonyms) if number is None else self.by_id.get(number, "")
        if self.gathering:
            self._gather(row, column, name)
        elif name.casefold() not in self.classes:
            if not self.leave_out:
                row.wrong.append(f"{column}: {self._unknown(text)}")
            elif column == "neg_label":
                return ""
            if text in self.uncovered or len(self.uncovered) < MOST_CLASSES:
                self.uncovered[text] += 1
        return self.classes.get(name.casefold(), "")

    def _gather(self, row: Row, column: str, name: str) -> None:
        names = self.negatives if column == "neg_label" else self.classes
        names.setdefault(name.casefold(), row.where if column == "neg_label" else name)
        if len(names) > MOST_CLASSES:
            raise InputError(
                f"{row.table.path}: column {column!r} holds more than {MOST_CLASSES} different names, expected classes"
            )

    def _unknown(self, text: str) -> str:
        if _whole(text) is not None:
            known = ", ".join(f"{number} {name}" for number, name in self.by_id.items())
            return f"found the id {text}, expected one of {known}"
        spoken = [*self.classes, *(word for word, name in self.synonyms.items() if name in self.classes)]
        return f"found {text!r}{nearest(text.casefold(), spoken)}; expected one of {', '.join(self.classes.values())}"

    def never_positive(self) -> list[str]:
        """Messages on neg_labels that no row has as its label, where the rows define the classes: likely typing errors."""
        return [f"{at}: neg_label: {self._unknown(name)}" for name, at in self.negatives.items() if name not in self.classes]

    def not_covered(self) -> str:
        labels = ", ".join(f"{label!r} ({count:,})" for label, count in self.uncovered.most_common(LISTED))
        more = f" and {len(self.uncovered) - LISTED} more" if len(self.uncovered) > LISTED else ""
        return f"labels not covered by {self.origin}, with their rows: {labels}{more}"


def _whole(text: str) -> int | None:
    value = as_number(text)
    return int(value) if value is not None and value.is_integer() else None
