"""`affect sweep`: the runs of a plan, each trained, evaluated on every set, and the best by the sets that may choose.

OUT/
  <point>/                 a run; with seeds <point>_seed<n>
  <point>/xval_<set>/      its figures on a set, and fingerprint.json: of which model and rows they are
  sweep.json               points, settings, figures, what was chosen and by which sets
  chosen.yaml              the chosen settings, to train longer: the sets that chose them stand in it and stay marked
  sweep.png  sweep.md  viz/
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from affect.engine.calibration.calibration import CALIBRATION
from affect.engine.config.data import AUTO
from affect.engine.config.run import RunConfig
from affect.engine.config.sweep import PRESENT_F1, VAL, SetConfig
from affect.engine.evaluation.evaluate import evaluate
from affect.engine.evaluation.unpacked import evaluate_csv, evaluate_npz
from affect.engine.pipeline import train
from affect.engine.report.criteria import value_at
from affect.engine.report.run_figures import switches
from affect.engine.runs.files import BEST, CHOSEN, CONFIG, FINGERPRINT, METRICS, SWEEP, XVAL
from affect.engine.runs.folder import same_config, state_of, write_json
from affect.engine.runs.provenance import named_files
from affect.engine.sweep.sweep_plan import Plan, PlannedRun, Point
from affect.engine.system.distributed import world_size
from affect.engine.system.log import say
from affect.engine.system.progress import Progress
from affect.engine.training.early_stopping import merit
from affect.shards.checksum import file_sha256
from affect.shards.class_maps import ClassMap
from affect.shards.errors import InputError, first
from affect.shards.schema import INDEX, DatasetInfo

SCORE = "mean present-only macro-F1 over select_on"  # of a sweep that names no other figure


def sweep(plan: Plan) -> dict[str, Any]:
    """Train what is not yet trained, evaluate what is not yet evaluated, choose; return what sweep.json holds.

    Raises: InputError before the first run where a file or dataset is not there, and at the end where a run failed.
    """
    check(plan)
    plan.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, Any]] = {}
    for i, planned in enumerate(plan.runs, 1):
        state = state_of(planned.folder)
        doing = {"new": "begins", "unfinished": "is resumed", "finished": "is there and finished: not trained again"}[state]
        say(f"sweep: {i} of {len(plan.runs)}: {planned.folder.name} {doing}")
        try:
            results[planned.folder.name] = _done(planned, plan, state)
        except InputError as error:  # one point that fails, as at too high a rate, does not end the others
            say(f"sweep: {planned.folder.name} failed: {error}")
            results[planned.folder.name] = {"seed": planned.run.seed, "error": str(error)}
        write_json(plan.out / SWEEP, summary(plan, results))
    result = summary(plan, results)
    if result["chosen"]:
        _write_chosen(plan, result["chosen"])
    return result


def check(plan: Plan) -> None:
    """All that can be known before the first run. Raises InputError with every problem."""
    if world_size() > 1:
        raise InputError("sweep: trains in one process; start it without torchrun, or train the points one by one")
    problems = list(dict.fromkeys(_problems(plan)))
    if problems:
        raise InputError(f"sweep {plan.name}: {len(problems)} problems; nothing was started:\n{first(problems, 20)}")


def _problems(plan: Plan) -> Iterator[str]:
    for name, target in plan.config.sets.items():
        try:
            if target.path:
                sha256_of(target)
            if target.class_map:
                ClassMap.load(target.class_map)
        except InputError as error:
            yield f"{name}: {error}"
    for planned in plan.runs:
        data = planned.run.data.dataset
        for key, path in named_files(planned.run).values():
            if not path.is_file():
                yield f"{key}: {path} is not there"
        try:
            for folder in data if isinstance(data, list) else [data]:
                DatasetInfo.read(folder)
            if (planned.folder / CONFIG).is_file():
                same_config(planned.folder / CONFIG, as_begun(planned.run, planned.folder))
                _same_inputs(planned)
        except InputError as error:
            yield str(error)


def as_begun(run: RunConfig, folder: Path) -> RunConfig:
    """Return the configuration with the batch size that `auto` has become in the run's folder."""
    if run.data.batch_size != AUTO:
        return run
    size = yaml.safe_load((folder / CONFIG).read_text())["data"]["batch_size"]
    return run.model_copy(update={"data": run.data.model_copy(update={"batch_size": size})})


def _same_inputs(planned: PlannedRun) -> None:
    path = planned.folder / FINGERPRINT
    before = json.loads(path.read_text()) if path.is_file() else {}
    for name, (key, file) in named_files(planned.run).items():
        if name in before and file.is_file() and before[name] != file_sha256(file):
            raise InputError(
                f"{planned.folder}: {key}: {file} is another file by now; put the old one back, or take another --out"
            )


def _done(planned: PlannedRun, plan: Plan, state: str) -> dict[str, Any]:
    """A run of sweep.json, trained and evaluated."""
    if state != "finished":
        train(planned.run, planned.folder, resume=state == "unfinished")
    mark_chosen(planned.folder, {name: target.place for name, target in plan.config.select_on.items()})
    sets = {VAL: SetConfig(), **plan.config.sets}
    figures = {name: figures_on(planned.folder, name, target) for name, target in sets.items()}
    score = float(np.mean([score_of(figures[name], plan.config.select_by, name) for name in plan.config.select_on]))
    digest = json.loads((planned.folder / FINGERPRINT).read_text())["config"]
    return {
        "seed": planned.run.seed, "config": digest, "best": file_sha256(planned.folder / BEST),
        "switches": switches(planned.folder), "score": score, "figures": figures,
    }  # fmt: skip


def score_of(figures: dict[str, Any], path: str, name: str) -> float:
    """The figure by which points are compared."""
    score = value_at(figures, path)
    if score is None:
        raise InputError(f"select_by: {path}: {name} has no such figure in its {METRICS}; it has: {', '.join(_paths(figures))}")
    return score


def _paths(value: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Return the paths of all numbers."""
    for key, part in value.items():
        if isinstance(part, dict):
            yield from _paths(part, f"{prefix}{key}.")
        elif isinstance(part, int | float):
            yield f"{prefix}{key}"


def mark_chosen(folder: Path, sets: dict[str, str]) -> None:
    """Record in a run's configuration that these sets have chosen it, before its figures on them are read."""
    value = yaml.safe_load((folder / CONFIG).read_text())
    marked = {**(value.get("chosen_on") or {}), **sets}
    if marked != value.get("chosen_on"):
        run = RunConfig.model_validate({**value, "chosen_on": marked})
        partial = folder / f".{CONFIG}.partial"
        partial.write_text(run.dump())
        partial.replace(folder / CONFIG)


def figures_on(folder: Path, name: str, target: SetConfig) -> dict[str, Any]:
    """Return the figures of a run on a set, from its metrics.json; that is written anew where it is of another model or set."""
    if target.path is None:
        return _figures(folder / METRICS)
    out = folder / f"{XVAL}{name}"
    of: dict[str, str | None] = {"model": file_sha256(folder / BEST), "calibration": file_sha256(folder / CALIBRATION)}
    of |= {"set": sha256_of(target), "split": target.split if target.packed else None, "class_map": target.class_map or None}
    recorded = json.loads((out / FINGERPRINT).read_text()) if (out / FINGERPRINT).is_file() else None
    if recorded != of or not (out / METRICS).is_file():
        (out / FINGERPRINT).unlink(missing_ok=True)
        _evaluate(folder, target, out, Progress(name, None, "images"))
        write_json(out / FINGERPRINT, of)
    return _figures(out / METRICS)


def _evaluate(folder: Path, target: SetConfig, out: Path, progress: Progress) -> None:
    assert target.path
    class_map = ClassMap.load(target.class_map) if target.class_map else None
    if target.packed:
        evaluate(folder, target.path, target.split, out, progress, class_map)
    elif target.path.suffix == ".csv":
        evaluate_csv(folder, target.path, out, progress, class_map=class_map)
    else:
        evaluate_npz(folder, target.path, out, progress, class_map=class_map)


def sha256_of(target: SetConfig) -> str:
    """Return the sha256 of a packed dataset's index, or of the file."""
    assert target.path
    if target.packed:
        return DatasetInfo.read(target.path).files[INDEX].sha256
    if not target.path.is_file():
        raise InputError(f"{target.path}: no such file; expected a packed dataset, a .csv or an .npz")
    return file_sha256(target.path)


def _figures(path: Path) -> dict[str, Any]:
    """The part of metrics.json that tables are made of: of classes where there are some, and of the other outputs."""
    value, figures = json.loads(path.read_text()), dict[str, Any]()
    way = next((key for key in value if key.endswith("way")), None)
    if way:
        present = {key: value["present_only"][key] for key in ("acc", "macro_f1", "bacc", "present_names")}
        figures = {way: value[way], "present_only": present}
    if value.get("outputs"):
        figures["outputs"] = value["outputs"]
    return figures | {key: value.get(key) for key in ("rows", "dataset", "split")}


def summary(plan: Plan, results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """sweep.json: chosen is the point with the best score, the first of equals, once all runs have ended."""
    points = [_summary(point, _folders(plan, point.name), results) for point in plan.points]
    whole = [point for point in points if point["score"] is not None] if len(results) == len(plan.runs) else []
    config = plan.config
    key = "_".join(config.select_by.split("."))
    best = max(whole, key=lambda point: merit(key, point["score"]), default=None)
    return {
        "sweep": plan.name, "base": config.base, "settings": plan.shared, "grid": config.grid, "seeds": config.seeds,
        "folds": config.folds, "select_by": config.select_by,
        "score": SCORE if config.select_by == PRESENT_F1 else f"mean {config.select_by} over select_on",
        "select_on": list(config.select_on), "report_on": list(config.report_on),
        "sets": {name: target.place for name, target in config.sets.items()},
        "points": points, "chosen": best["name"] if best else None,
    }  # fmt: skip


def _summary(point: Point, folders: list[str], results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """score: the mean over the seeds; with a run that failed or is still to come there is none."""
    runs = [{"folder": name} | results[name] for name in folders if name in results]
    scores = [run["score"] for run in runs if "score" in run]
    score = float(np.mean(scores)) if len(scores) == len(folders) else None
    deviation = float(np.std(scores, ddof=1)) if score is not None and len(scores) > 1 else None
    return {"name": point.name, "settings": point.settings, "score": score, "deviation": deviation, "runs": runs}


def _folders(plan: Plan, point: str) -> list[str]:
    return [planned.folder.name for planned in plan.runs if planned.point.name == point]


def _write_chosen(plan: Plan, name: str) -> None:
    run = next(planned.run for planned in plan.runs if planned.point.name == name)
    sets = {**run.chosen_on, **{name: target.place for name, target in plan.config.select_on.items()}}
    data = run.data.model_copy(update={"fold": None}) if plan.config.folds else run.data
    (plan.out / CHOSEN).write_text(run.model_copy(update={"chosen_on": sets, "name": "", "data": data}).dump())
