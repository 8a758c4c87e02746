"""affect pack mouse: recognises which of three forms a folder of mice has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from affect.shards.errors import InputError
from affect.shards.sample import Source
from affect.shards.sources.frames import EndS, Fps, Frames, StartS, chosen
from affect.shards.sources.mouse import MouseSource
from affect.shards.sources.mouse_folders import MouseFolders
from affect.shards.sources.mouse_table import table_path
from affect.shards.sources.mouse_trials import TRIALS, TrialsSource
from affect.shards.sources.pack_command import Argument, Option, pack_command, words


@pack_command("mouse", quality=95, parts=True)
def mouse_source(
    root: Annotated[
        Path,
        Argument(
            "a folder with labels.csv, a row a trial; with dataset_df and fold0, ...; or with CLASS/ANIMAL/VIDEO",
            metavar="FOLDER",
        ),
    ],
    high: Annotated[int, Option("of trials: level from which a trial is stress, against 0", min=1)] = 3,
    images: Annotated[Path | None, Option("of dataset_df: folder that its paths start from; default: its own")] = None,
    external: Annotated[
        list[str] | None,
        Option("another folder of the same form, all of it split test; not of labels.csv; repeat", metavar="[COHORT=]FOLDER"),
    ] = None,
    test_cohort: Annotated[list[str] | None, Option("of dataset_df: a value of its column cohort; repeat")] = None,
    classes: Annotated[str, Option("classes of the labels 0 and 1 of dataset_df, or the folders' names")] = "baseline,stress",
    frames: Frames = 0,
    start_s: StartS = None,
    end_s: EndS = None,
    fps: Fps = None,
    val: Annotated[float, Option("of trials: share of animals that becomes val", min=0, max=1)] = 0,
) -> Source:
    """Mice: a clip a trial or a video, all its frames; stress, and levels where there are some."""
    clip = chosen(frames, 0, not frames, start_s, end_s)
    cohorts, names = _cohorts(external or []), words(classes)
    if len(set(names)) != 2:
        raise InputError(f"--classes {classes}: expected two names, first without stress, then with it: baseline,stress")
    if (root / TRIALS).is_file():
        if cohorts or test_cohort:
            raise InputError(f"--external, --test-cohort: {root / TRIALS} has its own columns split and source")
        return TrialsSource(root, root / TRIALS, clip, high=high, fps=fps, val=val)
    if table_path(root):
        return MouseSource(root, clip, images=images, external=cohorts, test_cohorts=test_cohort or [], classes=names, fps=fps)
    if any((root / name).is_dir() for name in names):
        return MouseFolders(root, clip, external=cohorts, classes=names, fps=fps)
    raise InputError(
        f"{root}: found no {TRIALS}, no dataset_df.csv, .json or .pkl, and no folder {' or '.join(names)}; expected one of "
        "them, or other names of the folders: --classes NONE,STRESS"
    )


def _cohorts(texts: list[str]) -> dict[str, Path]:
    """Parse `COHORT=FOLDER`, or a folder whose name is the cohort's."""
    cohorts: dict[str, Path] = {}
    for text in texts:
        name, equals, place = text.partition("=")
        folder = Path(place if equals else text)
        name = name if equals else folder.resolve().name
        if not name or not folder.is_dir() or name in cohorts:
            why = f"{name} is given twice" if name in cohorts else f"{folder} is no folder"
            raise InputError(f"--external {text}: {why}; expected COHORT=FOLDER, each cohort once")
        cohorts[name] = folder
    return cohorts
