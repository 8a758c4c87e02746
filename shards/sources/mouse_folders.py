"""Reads videos of mice in folders by label and animal: ROOT/<class>/<animal>/<video>, each a file or a folder of frames."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from affect.shards.errors import InputError, first, nearest
from affect.shards.sample import Sample
from affect.shards.schema import ClipFacts, Output, TargetLayout
from affect.shards.sources import frames
from affect.shards.sources.clips import recording
from affect.shards.sources.mouse import CLASSES


class MouseFolders:
    """A clip for each video, its class and animal from its folders' names; a file that is no video is rejected when it is read.

    external: cohort -> a folder of the same form, all of it split test. classes: the folders' names, none first, then stress.
    fps: of folders of frames. Raises InputError naming every folder or file that is elsewhere.
    """

    label_protocol = "hard"

    def __init__(
        self,
        root: Path,
        clip: ClipFacts,
        *,
        external: Mapping[str, Path] | None = None,
        classes: Sequence[str] = CLASSES,
        fps: float | None = None,
    ) -> None:
        self.root, self.clip, self.fps, self.filtered = root, clip, fps, Counter[str]()
        self.stress = Output("stress", "classes", tuple(classes))
        self.layout = TargetLayout((self.stress,))
        self.meta: dict[str, type] = dict(frames.META)
        self.cohorts = {root.resolve().name: root}
        for name, folder in (external or {}).items():
            if self.cohorts.setdefault(name, folder) is not folder:
                raise InputError(f"--external {name}={folder}: {self.cohorts[name]} has that name; expected one name a cohort")
        self.videos = {cohort: self._videos_of(folder) for cohort, folder in self.cohorts.items()}

    def samples(self) -> Iterator[Sample]:
        for cohort, videos in self.videos.items():
            for path in videos:
                name, animal = path.parts[-3:-1]
                at_home = cohort == self.root.resolve().name
                place = path.relative_to(self.cohorts[cohort]).as_posix()
                label = next(c for c in self.stress.names if c.casefold() == name.casefold())
                yield Sample(
                    recording(path, self.clip, self.fps),
                    place if at_home else f"{cohort}/{place}",
                    "train" if at_home else "test",
                    self.stress.one_hot(label),
                    cohort,
                    animal,
                )

    def fingerprint(self) -> dict[str, str]:
        """A digest of names and sizes: the pixels are in the index."""
        digest = hashlib.sha256(f"{self.fps}".encode())
        for cohort, videos in self.videos.items():
            for path in videos:
                size = path.stat().st_size if path.is_file() else sum(1 for _ in path.iterdir())
                digest.update(f"{cohort} {path.relative_to(self.cohorts[cohort]).as_posix()} {size}\n".encode())
        return {self.root.resolve().name: digest.hexdigest()}

    def _videos_of(self, root: Path) -> list[Path]:
        """The videos of both classes, ascending. Raises InputError."""
        form = f"{root}/<{' or '.join(self.stress.names)}>/<animal>/<video>"
        known, wrong, videos = [name.casefold() for name in self.stress.names], list[str](), list[Path]()
        for folder in _inside(root):
            if folder.name.casefold() not in known or not folder.is_dir():
                wrong.append(f"{folder}{nearest(folder.name, self.stress.names)}")
                continue
            for animal in _inside(folder):
                if animal.is_dir():
                    videos += _inside(animal)
                else:
                    wrong.append(f"{animal}: in no animal's folder")
        if wrong or not videos:
            problem = f"{len(wrong):,} have no place" if wrong else "no videos"
            remedy = "Name the classes after the folders: --classes NONE,STRESS"
            raise InputError(f"{root}: {problem}; expected {form}:\n{first(wrong or [root])}\n{remedy}")
        return videos


def _inside(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
