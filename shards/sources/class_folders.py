"""Reads pictures in a folder per class: ROOT/<class>/*.jpg, or ROOT/<split>/<class>/*.jpg."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from affect.shards.errors import InputError, nearest
from affect.shards.random_split import share_of
from affect.shards.sample import Sample
from affect.shards.schema import SPLITS, Output, TargetLayout
from affect.shards.sources.pack_command import Argument, Option, output_name, pack_command, words

SPLIT_FOLDERS = {**{s: s for s in SPLITS}, "valid": "val", "validation": "val", "training": "train"}


class FolderSource:
    """Class names are the folders' names, sorted, or `classes` in that order.

    val: where the root has no split folders, this share of the files, chosen by their names, becomes the split `val`.
    output: name of the output of these classes.
    """

    label_protocol = "hard"

    def __init__(self, root: Path, classes: Sequence[str] | None = None, val: float = 0.1, output: str = "emotion") -> None:
        if not root.is_dir():
            raise InputError(f"{root}: not a folder; expected ROOT/<class>/*.jpg or ROOT/<split>/<class>/*.jpg")
        self.root, self.val, self.filtered = root, val, Counter[str]()
        self.meta: dict[str, type] = {}
        self.splits = {SPLIT_FOLDERS[d.name.lower()]: d for d in _folders(root) if d.name.lower() in SPLIT_FOLDERS}
        stray = [d.name for d in _folders(root) if d.name.lower() not in SPLIT_FOLDERS] if self.splits else []
        if stray:
            raise InputError(f"{root}: {stray[0]!r} stands beside the split folders {', '.join(self.splits)}; move it out")
        roots = self.splits or {"train": root}
        folders = {split: [d.name for d in _folders(folder)] for split, folder in roots.items()}
        known = (
            tuple(classes) if classes else tuple(folders.get("train") or sorted({n for names in folders.values() for n in names}))
        )
        for split, names in folders.items():
            for name in names:
                if name not in known:
                    where = roots[split] / name
                    raise InputError(
                        f"{where}: unknown class {name!r}{nearest(name, known)}; the classes are: {', '.join(known)}"
                    )
        if len(known) < 2:
            raise InputError(f"{root}: found {len(known)} class folders, expected at least 2: ROOT/<class>/*.jpg")
        self.output = Output(output, "classes", known)
        self.layout = TargetLayout((self.output,))

    def samples(self) -> Iterator[Sample]:
        for split, folder in sorted((self.splits or {"": self.root}).items()):
            for name in self.output.names:
                for path in self._files(folder / name):
                    relative = path.relative_to(self.root).as_posix()
                    where = split or ("val" if share_of(relative) < self.val else "train")
                    yield Sample(path, relative, where, self.output.one_hot(name), source=self.root.name)

    @staticmethod
    def _files(folder: Path) -> list[Path]:
        """List every file below a folder except hidden ones; one that is no picture is rejected when it is read."""
        if not folder.is_dir():
            return []
        return sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))

    def fingerprint(self) -> dict[str, str]:
        """A digest of names and sizes: the pixels are in the index."""
        digest = hashlib.sha256()
        for path in self._files(self.root):
            digest.update(f"{path.relative_to(self.root).as_posix()} {path.stat().st_size}\n".encode())
        return {self.root.name: digest.hexdigest()}


def _folders(root: Path) -> list[Path]:
    return sorted(d for d in root.iterdir() if d.is_dir() and not d.name.startswith("."))


@pack_command("folder")
def folder_source(
    root: Annotated[Path, Argument("ROOT/<class>/*.jpg or ROOT/<split>/<class>/*.jpg")],
    classes: Annotated[str, Option("class names in order, separated by commas; empty: the folders' names, sorted")] = "",
    val: Annotated[float, Option("share that becomes val where the root has no split folders", min=0, max=1)] = 0.1,
    output: Annotated[str, Option("name of the output of these classes")] = "emotion",
) -> FolderSource:
    """Pictures in a folder per class."""
    return FolderSource(root, words(classes) or None, val, output_name(output))
