"""`affect report`: a run and its figures, from its files alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from affect.engine.config.sweep import VAL
from affect.engine.report.render import NONE, Table, markdown
from affect.engine.report.run_figures import (
    CHOSEN_MARK,
    KEYS,
    Figures,
    chosen_on,
    external,
    is_run,
    mark,
    read_config,
    read_json,
    shown,
    switches,
    validation,
)
from affect.engine.runs.files import CONFIG, FINGERPRINT, HISTORY, RELIABILITY
from affect.shards.errors import InputError

HONESTY = (("NLL", "nll"), ("ECE", "ece"), ("Brier", "brier"))


def report(folder: Path) -> str:
    """Describe a run in several lines of text. Raises InputError where the folder is not a run."""
    if not is_run(folder):
        raise InputError(f"{folder}: not a run: it has no {CONFIG}; name the folder of a run")
    return "\n".join([f"{shown(folder)}: {_what(folder)}", *_figures(folder), "", *_across(folder), *_made_from(folder), ""])


def _what(folder: Path) -> str:
    config = read_config(folder)
    model, optim = config["model"], config["optim"]
    history = read_json(folder / HISTORY) if (folder / HISTORY).is_file() else []
    terms = [f"{name} {config['loss'][name]['weight']:g}" for name in switches(folder)]
    return (
        f"{config['task']}, {model['backbone']} at {model['image_size']} px, {len(history)} of {optim['epochs']} epochs, "
        f"seed {config['seed']}"
        + (f", cross-entropy {config['loss']['cross_entropy']:g} + " + " + ".join(terms) if terms else "")
    )


def _figures(folder: Path) -> Iterator[str]:
    """Yield the raw and the calibrated figures, as the run wrote them when it ended."""
    if not (folder / RELIABILITY).is_file():
        yield f"  no figures yet: has no {RELIABILITY}; write it: affect calibrate {folder}"
        return
    reliability = read_json(folder / RELIABILITY)
    raw, scaled = reliability["raw"], reliability["temperature_scaled"]
    yield (
        f"  {reliability['split']}: {reliability['rows']:,} rows, {reliability['label_protocol']} labels, "
        f"epoch {reliability['epoch']}: accuracy "
        f"{raw['accuracy']:.4f}, macro-F1 {raw['macro_f1']:.4f}, bACC {raw['bacc']:.4f}"
    )
    yield f"  raw: {_honesty(raw)}"
    if scaled:
        yield f"  with T {', '.join(f'{t:.3g}' for t in scaled['temperature'])}: {_honesty(scaled)}"
    else:
        yield "  not calibrated"


def _honesty(part: dict[str, Any]) -> str:
    return ", ".join(f"{name} {part[key]:.4f}" for name, key in HONESTY)


def _across(folder: Path) -> Iterator[str]:
    """Yield a table of each set beside validation, and how far it falls below: present-only, in points."""
    validated, others = validation(folder), external(folder)
    if not validated and not others:
        return
    chosen = chosen_on(folder)
    sets = ({VAL: validated} if validated else {}) | others
    marks = {name: mark(name, figures, chosen) for name, figures in sets.items()}
    cells = [[name + marks[name], *_row(figures, validated if name != VAL else None)] for name, figures in sets.items()]
    way = next(iter(sets.values())).classes
    header = ["set", "rows", "classes", "acc.", "macro-F1", "bACC", "acc.", "macro-F1", "bACC", "acc.", "macro-F1"]
    groups = [("", 3), (f"{way}-way", 3), ("present-only", 3), ("drop", 2)]
    caption = [
        f"drop: points of present-only accuracy and macro-F1 below {VAL}."
        if validated
        else f"No figures of {VAL} to compare with.",
        *([f"{CHOSEN_MARK}: used to choose the settings."] if CHOSEN_MARK in marks.values() else []),
        *(["‡: used to choose the epoch."] if "‡" in marks.values() else []),
    ]
    yield markdown(Table(header, cells, set(), caption, groups=groups))


def _row(figures: Figures, validated: Figures | None) -> list[str]:
    numbers = [f"{part[key]:.4f}" for part in (figures.way, figures.present) for key in KEYS]
    drops = [NONE if validated is None else f"{100 * (validated.present[key] - figures.present[key]):+.2f}" for key in KEYS[:2]]
    return [NONE if figures.rows is None else f"{figures.rows:,}", str(len(figures.names) or NONE), *numbers, *drops]


def _made_from(folder: Path) -> Iterator[str]:
    path = folder / FINGERPRINT
    values = read_json(path) if path.is_file() else {}
    yield "made from: " + (", ".join(f"{key} {value[:12]}" for key, value in values.items()) or f"no {FINGERPRINT}")
