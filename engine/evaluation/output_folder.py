"""The folder of an evaluation's figures, and the figures of the run's validation, which stand beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from affect.engine.config.run import RunConfig
from affect.engine.data.selection import val_selection
from affect.engine.runs.files import CONFIG, EVALUATED, METRICS
from affect.engine.system.log import say
from affect.shards.selection import Selection

WHAT = ("model", "dataset", "split", "class_map", "label_protocol")  # of metrics.json: equal where the evaluation is the same


def is_validation(run: Path, data: Path | str, split: str) -> bool:
    """Whether these are the rows on which the run was validated, all of them and no others."""
    settings = RunConfig.model_validate(yaml.safe_load((run / CONFIG).read_text())).data
    datasets = settings.dataset if isinstance(settings.dataset, list) else [settings.dataset]
    same = [Path(path).resolve() for path in datasets] == [Path(data).resolve()]
    return same and val_selection(settings) == Selection(split)


def default_out(model: Path, what: dict[str, Any]) -> Path:
    """The run itself where its validation is evaluated; RUN/evaluated/SET for other sets; ./evaluation for other models.

    what: these of WHAT as they will stand in metrics.json. The figures of something else are not written over.
    """
    name = Path("evaluation")
    if (model / CONFIG).is_file():
        data, split = Path(what["dataset"]), what["split"]
        if split and is_validation(model, data, split):
            return model
        name = model / EVALUATED / (f"{data.name}-{split}" if data.is_dir() else data.stem)
    number, out = 1, name
    while not _free(out / METRICS, what):
        number += 1
        out = name.with_name(f"{name.name}-{number}")
    return out


def _free(path: Path, what: dict[str, Any]) -> bool:
    if not path.is_file():
        return True
    try:
        written = json.loads(path.read_text())
        return all(written.get(key) == value for key, value in what.items())
    except (ValueError, AttributeError):
        return False


def beside_validation(run: Path, metrics: dict[str, Any]) -> dict[str, Any] | None:
    """The run's validation, both present-only, and how far this set falls below it, in points; None where it is not known."""
    path = run / METRICS
    try:
        validation = json.loads(path.read_text())
        of, split = validation.get("dataset"), validation["split"]
        if of is not None and not is_validation(run, of, split):  # `complete` names none, it has one only
            raise ValueError(f"is of {of}, {split}")
        figures, here = validation["present_only"], metrics["present_only"]
        about = {key: validation[key] for key in ("rows", "split", "label_protocol")}
        drop = {name: 100 * (figures[key] - here[key]) for name, key in (("accuracy", "acc"), ("macro_f1", "macro_f1"))}
        return about | {
            "accuracy": figures["acc"],
            "macro_f1": figures["macro_f1"],
            "present_names": figures["present_names"],
            "drop_points": drop,
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        say(f"no figures of the run's validation to compare with: {path}: {error}; write them: affect calibrate {run}")
        return None
