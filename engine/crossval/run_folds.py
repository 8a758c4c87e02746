"""The runs of a cross-validation, one after another: a finished one is left alone, an interrupted one resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from affect.engine.crossval.plan import FINETUNE, STRATEGIES, CrossPlan, FoldRun
from affect.engine.pipeline import train
from affect.engine.runs.files import CONFIG, CROSSVAL
from affect.engine.runs.folder import same_config, state_of, write_json
from affect.engine.sweep.run_sweep import as_begun
from affect.engine.system.distributed import world_size
from affect.engine.system.log import say
from affect.shards.errors import InputError

DOING = {"new": "begins", "unfinished": "is resumed", "finished": "is there and finished: not trained again"}


def train_folds(plan: CrossPlan) -> list[str]:
    """Train what is not yet trained; return the runs that failed, which do not end the others.

    Raises: InputError before the first run where a folder holds a run of other settings, and where every run has failed, which
    leaves nothing behind that was not there.
    """
    if world_size() > 1:
        raise InputError("crossval: trains in one process; start it without torchrun, or train the folds one by one: data.fold")
    _same_rows(plan)
    failed, asked = list[str](), 0
    for strategy in plan.strategies:
        runs = plan.runs(strategy)
        _check(strategy, runs)
        asked += len(runs)
        for i, one in enumerate(runs, 1):
            try:
                _train(one, f"crossval: {strategy}, {i} of {len(runs)}: fold {one.fold}")
            except InputError as error:
                say(f"crossval: {one.folder} failed: {error}")
                failed.append(f"{strategy}/fold{one.fold}")
                _sweep_away(one.folder.parent, plan.out)
            else:
                _note(plan, strategy, runs)
    if len(failed) == asked:
        raise InputError(f"crossval: nothing was trained, {len(failed)} of {asked} runs failed; why is above")
    return failed


def _sweep_away(*folders: Path) -> None:
    """Remove the folders that are empty."""
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _train(one: FoldRun, what: str) -> None:
    state = state_of(one.folder)
    doing = DOING[state] if one.trained else f"stays {one.folder}"
    say(f"{what} {doing}" + (f": {one.why}" if one.why and (state == "new" or not one.trained) else ""))
    if not one.trained or state == "finished":
        return
    start = {"init_from": one.init_from, "continue_from": one.continue_from}
    train(one.run, one.folder, resume=state == "unfinished", **start)


def _check(strategy: str, runs: list[FoldRun]) -> None:
    problems = []
    for one in runs:
        if one.trained and (one.folder / CONFIG).is_file():
            try:
                same_config(one.folder / CONFIG, as_begun(one.run, one.folder))
            except InputError as error:
                problems.append(str(error))
    if problems:
        raise InputError(
            f"crossval: {strategy}: {len(problems)} folds were begun with other settings:\n" + "\n".join(problems[:3])
        )


def _what(plan: CrossPlan) -> dict[str, Any]:
    dataset = plan.config.model_dump(mode="json")["data"]["dataset"]
    return {"dataset": dataset, "folds": list(plan.folds), "task": plan.config.task}


def _same_rows(plan: CrossPlan) -> None:
    """Raises InputError where the folder is of other data or folds."""
    before = read_note(plan.out) if (plan.out / CROSSVAL).is_file() else {}
    if changed := [
        f"  {key}: {before[key]} there, {now} here" for key, now in _what(plan).items() if before and before[key] != now
    ]:
        raise InputError(f"{plan.out}: is another cross-validation:\n" + "\n".join(changed) + "\nName another folder: --out DIR")


def _note(plan: CrossPlan, strategy: str, runs: list[FoldRun]) -> None:
    """Record these runs in crossval.json, beside those of other strategies and folds."""
    before = read_note(plan.out) if (plan.out / CROSSVAL).is_file() else {}
    recorded = before.get("runs", {})
    folders = {str(one.fold): _place(one.folder, plan.out) for one in runs}
    others = {} if strategy == FINETUNE else recorded.get(strategy, {})  # there is one best fold
    merged = {**recorded, strategy: dict(sorted({**others, **folders}.items(), key=lambda pair: int(pair[0])))}
    plan.out.mkdir(parents=True, exist_ok=True)
    ordered = {name: merged[name] for name in STRATEGIES if name in merged}
    write_json(plan.out / CROSSVAL, {"config": before.get("config", plan.name), **_what(plan), "runs": ordered})


def _place(folder: Path, out: Path) -> str:
    """Return the folder relative to `out` where it lies below, so that `out` can be moved as a whole."""
    return str(folder.relative_to(out) if folder.is_relative_to(out) else folder.resolve())


def read_note(out: Path) -> dict[str, Any]:
    """Raises InputError where the folder is no cross-validation."""
    try:
        value = json.loads((out / CROSSVAL).read_text())
        return value | {key: value[key] for key in ("config", "dataset", "folds", "task", "runs")}
    except OSError as error:
        raise InputError(
            f"{out}: not the folder of a cross-validation, has no {CROSSVAL}; make one: affect crossval CONFIG"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{out / CROSSVAL}: not readable ({error}); begin anew in another folder: affect crossval CONFIG"
        ) from error


def runs_in(out: Path) -> dict[str, dict[int, Path]]:
    """Return strategy -> fold -> the folder of its run, of runs that are finished."""
    runs = {name: {int(fold): out / place for fold, place in places.items()} for name, places in read_note(out)["runs"].items()}
    ended = {
        name: {fold: path for fold, path in folders.items() if state_of(path) == "finished"} for name, folders in runs.items()
    }
    return {name: folders for name, folders in ended.items() if folders}
