"""A run's figures, read from its files; neither the dataset nor torch is needed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from affect.engine.config.sweep import VAL
from affect.engine.runs.files import ABLATION, CONFIG, METRICS, SWEEP, XVAL
from affect.shards.errors import InputError

CHOSEN_MARK, EPOCH_MARK = "†", "‡"
KEYS = ("acc", "macro_f1", "bacc")


@dataclass(frozen=True)
class Figures:
    """The figures of a metrics.json, ours or the reference recipe's. way, present: KEYS -> number. dataset: its path there."""

    way: dict[str, float]
    present: dict[str, float]
    classes: int
    names: tuple[str, ...]  # of the classes that occur
    rows: int | None = None
    dataset: str | None = None
    split: str | None = None

    @classmethod
    def of(cls, value: Mapping[str, Any], where: str) -> Figures:
        try:
            (key,) = (key for key in value if key.endswith("way"))
            way, present = ({name: float(part[name]) for name in KEYS} for part in (value[key], value["present_only"]))
            names = tuple(map(str, value["present_only"].get("present_names", ())))
            return cls(way, present, int(key[:-3]), names, *(value.get(name) for name in ("rows", "dataset", "split")))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{where}: not readable as {METRICS} ({error!r}); expected <C>way and present_only with {', '.join(KEYS)}"
            ) from error


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}); take a copy, or write it anew") from error


def read_figures(path: Path) -> Figures:
    return Figures.of(read_json(path), str(path))


def validation(run: Path) -> Figures | None:
    """Return the figures of the run's own validation rows; None where it has none, also where its file is of other rows."""
    if not (run / METRICS).is_file() or not any(key.endswith("way") for key in read_json(run / METRICS)):
        return None
    figures, data = read_figures(run / METRICS), read_config(run).get("data", {})
    ours = data.get("dataset", figures.dataset)
    same = figures.dataset is None or (isinstance(ours, str) and same_path(figures.dataset, ours))
    return figures if same and figures.split in (None, data.get("val_split", figures.split)) else None


def external(run: Path) -> dict[str, Figures]:
    """Return name of a set -> the run's figures there: of xval_NAME, and of evaluated/NAME as affect evaluate writes it."""
    files = {path.parent.name: path for path in run.glob(f"evaluated/*/{METRICS}")}
    files |= {path.parent.name.removeprefix(XVAL): path for path in run.glob(f"{XVAL}*/{METRICS}")}
    return {name: read_figures(path) for name, path in sorted(files.items())}


def read_config(run: Path) -> dict[str, Any]:
    """Read config.yaml as it is written; empty where there is none."""
    path = run / CONFIG
    if not path.is_file():
        return {}
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected the configuration of a run, found {type(value).__name__}")
    return value


def chosen_on(run: Path) -> dict[str, str]:
    """Return the sets by which the run's settings were chosen: name -> path, with #split for a packed dataset."""
    return {str(name): str(path) for name, path in (read_config(run).get("chosen_on") or {}).items()}


def mark(name: str, figures: Figures | None, chosen: Mapping[str, str]) -> str:
    """Return the mark of a set: it chose the settings, or at least the epoch, as every run's validation did."""
    if name in chosen:
        return CHOSEN_MARK
    if figures and any(_same_rows(figures, place) for place in chosen.values()):
        return CHOSEN_MARK  # under another name
    return EPOCH_MARK if name == VAL else ""


def _same_rows(figures: Figures, place: str) -> bool:
    path, _, split = place.partition("#")
    here = set((figures.split or "").split("+"))
    return bool(figures.dataset) and same_path(str(figures.dataset), path) and (not split or bool(here & set(split.split("+"))))


def same_path(one: str, other: str) -> bool:
    return Path(one).resolve() == Path(other).resolve()


def is_sweep(folder: Path) -> bool:
    return (folder / SWEEP).is_file()


def is_run(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def switches(run: Path) -> list[str]:
    """Return the distillation terms that are on."""
    path = run / ABLATION
    return [name for name, on in read_json(path)["switches"].items() if on] if path.is_file() else []


def shown(folder: Path) -> str:
    """Return the name of a run's folder; of a link also the link's."""
    name = folder.resolve().name
    return f"{folder.name} -> {name}" if folder.is_symlink() else name
