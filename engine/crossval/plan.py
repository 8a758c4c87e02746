"""The plan of a cross-validation: the folds of one dataset, and the runs that each strategy makes of them.

OUT/
  crossval.json                     its folds, and where the run of each is, by strategy
  all/fold0 ...                     a run each, trained anew
  continue/fold2 ...                those of `all`, here or elsewhere, that the settings would not have ended, trained on
  finetune/fold7                    the best of `all`, at a low rate on its own rows
  specialist/fold0 ...              of another configuration
  STRATEGY/answers.npz              the predictions of each fold's best model of its held-out rows
  report/
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from affect.engine.config.load import attempt, find_config, parsed, put, read_yaml
from affect.engine.config.run import RunConfig
from affect.engine.data.selection import folds_of, open_dataset
from affect.engine.runs.folder import open_run, read_history, state_of
from affect.engine.tasks import TASKS
from affect.engine.training.early_stopping import best_epoch, merit, stale_epochs
from affect.shards.errors import InputError, nearest

ALL, CONTINUE, FINETUNE, SPECIALIST = "all", "continue", "finetune", "specialist"
STRATEGIES = (ALL, CONTINUE, FINETUNE, SPECIALIST)
GENTLE = {"optim.lr": 1e-5, "optim.epochs": 10, "optim.warmup_epochs": 0, "optim.early_stopping": None}


@dataclass(frozen=True)
class FoldRun:
    """A fold's run. trained: False where it is another strategy's and stays as it is. why: printed before it begins."""

    fold: int
    run: RunConfig
    folder: Path
    init_from: Path | None = None
    continue_from: Path | None = None
    trained: bool = True
    why: str = ""


@dataclass(frozen=True)
class CrossPlan:
    """config: of all folds. value: the same before it was validated, to be changed. folds: all there are; wanted: those to run.

    source: the cross-validation whose folds are continued or fine-tuned. specialist: a configuration, as text and value.
    """

    name: str
    config: RunConfig
    value: dict[str, object]
    folds: tuple[int, ...]
    wanted: tuple[int, ...]
    strategies: tuple[str, ...]
    source: Path
    out: Path
    specialist: dict[str, object] | None = None

    def runs(self, strategy: str) -> list[FoldRun]:
        """Return the runs of the wanted folds. Raises InputError where the strategy needs folds that are not there."""
        return {ALL: _anew, CONTINUE: _gone_on, FINETUNE: _fine_tuned, SPECIALIST: _specialists}[strategy](self)


def plan(
    name: str, settings: list[str], out: Path | None = None, *, folds: str = "", strategies: Sequence[str] = (ALL,),
    source: Path | None = None, specialist: str = "",
) -> CrossPlan:  # fmt: skip
    """Read a configuration and plan its folds. Raises InputError with every problem, and where there are no such folds."""
    path = find_config(name)
    value = read_yaml(path)
    _set(value, settings)
    config = _validated(value, str(path))
    if config.data.fold is not None:
        raise InputError(f"{path}: data.fold: a cross-validation sets it; choose folds by --folds {config.data.fold}")
    there = tuple(folds_of(config.data, open_dataset(config.data.dataset)))
    wanted = chosen_folds(folds, there)
    for strategy in strategies:
        if strategy not in STRATEGIES:
            raise InputError(f"--strategy {strategy}: unknown{nearest(strategy, STRATEGIES)}; there are: {', '.join(STRATEGIES)}")
    out = out or Path("runs") / f"crossval_{path.stem}"
    other = _specialist(config, specialist, settings) if SPECIALIST in strategies else None
    ordered = tuple(one for one in STRATEGIES if one in strategies)
    return CrossPlan(path.stem, config, value, there, wanted, ordered, source or out, out, other)


def chosen_folds(text: str, there: Sequence[int]) -> tuple[int, ...]:
    """Return `0,3` as numbers; all folds where it is empty."""
    parts = [part.strip() for part in text.split(",")] if text.strip() else list(map(str, there))
    unknown = [part for part in parts if part not in set(map(str, there))]
    if unknown:
        raise InputError(f"--folds {text}: there is no fold {unknown[0]!r}; there are: {', '.join(map(str, there))}")
    return tuple(sorted({int(part) for part in parts}))


def folder_of(out: Path, strategy: str, fold: int) -> Path:
    return out / strategy / f"fold{fold}"


def select_by(run: RunConfig) -> str:
    return run.optim.select_by or TASKS[run.task].select_by


def _anew(plan: CrossPlan) -> list[FoldRun]:
    return [FoldRun(k, _with(plan.value, {"data.fold": k}), folder_of(plan.out, ALL, k)) for k in plan.wanted]


def _gone_on(plan: CrossPlan) -> list[FoldRun]:
    runs = []
    for k in plan.wanted:
        before, run = _finished(plan, k, CONTINUE), _with(plan.value, {"data.fold": k})
        why = goes_on(before, run)
        folder = folder_of(plan.out, CONTINUE, k)
        runs.append(
            FoldRun(k, run, folder, continue_from=before, why=why) if why else
            FoldRun(k, run, before, trained=False, why="these settings would have ended it there, too")
        )  # fmt: skip
    return runs


def goes_on(folder: Path, run: RunConfig) -> str:
    """Return why a finished run would go on under these settings; empty where they would have ended it."""
    history, rule = read_history(folder), run.optim.early_stopping
    epochs = len(history)
    if epochs >= run.optim.epochs:
        return ""
    if rule is None:
        return f"it ended after {epochs} of {run.optim.epochs} epochs"
    if epochs < rule.min_epochs:
        return f"it ended after {epochs} epochs, before min_epochs {rule.min_epochs}"
    stale = stale_epochs(history, select_by(run), rule.min_delta)
    return f"it ended {stale} epochs after its best, before patience {rule.patience}" if stale < rule.patience else ""


def _fine_tuned(plan: CrossPlan) -> list[FoldRun]:
    folders = {k: _finished(plan, k, FINETUNE) for k in plan.wanted}
    figure, reached = select_by(plan.config), dict[int, float]()
    for k, folder in folders.items():
        history = read_history(folder)
        reached[k] = history[best_epoch(history, figure, plan.config.optim.keep)]["val"][figure]
    best = max(reached, key=lambda k: merit(figure, reached[k]))
    settings: dict[str, object] = {**GENTLE, "data.fold": best}
    if not plan.config.loss.scalars.moments and (moments := TASKS[plan.config.task].moments):
        settings["loss.scalars.moments"] = dict(moments)
    run = _with(plan.value, settings)
    why = f"the best of {len(reached)} folds by its own validation, {figure} {reached[best]:.4f}"
    return [FoldRun(best, run, folder_of(plan.out, FINETUNE, best), init_from=folders[best], why=why)]


def _specialists(plan: CrossPlan) -> list[FoldRun]:
    assert plan.specialist is not None
    return [FoldRun(k, _with(plan.specialist, {"data.fold": k}), folder_of(plan.out, SPECIALIST, k)) for k in plan.wanted]


def _finished(plan: CrossPlan, fold: int, strategy: str) -> Path:
    """Return the folder of the fold that another strategy starts from."""
    folder = folder_of(plan.source, ALL, fold)
    state = state_of(folder)
    if state != "finished":
        raise InputError(
            f"--strategy {strategy}: {folder} is {'not there' if state == 'new' else 'not finished'}; train the folds first: "
            f"affect crossval CONFIG --out {plan.source}, or name others: --from DIR"
        )
    open_run(folder)
    return folder


def _specialist(config: RunConfig, name: str, settings: list[str]) -> dict[str, object]:
    """Return the specialist's settings, with the dataset and folds of the general configuration and those of --set."""
    name = name or TASKS[config.task].specialist
    if not name:
        raise InputError(f"--strategy {SPECIALIST}: {config.task} has no configuration for it; name one: --specialist CONFIG")
    path = find_config(name)
    value = read_yaml(path)
    _set(value, settings)
    for key in ("dataset", "folds"):
        general = config.data.model_dump(mode="json")[key]
        if general is not None:
            put(value, f"data.{key}", general)
    other = _validated(value, str(path))
    if other.task != config.task or other.data.fold is not None:
        raise InputError(f"{path}: expected task {config.task} and no data.fold; found {other.task}, {other.data.fold}")
    return value


def _set(value: dict[str, object], settings: list[str]) -> None:
    for setting in settings:
        put(value, *parsed(setting))


def _with(value: dict[str, object], settings: dict[str, object]) -> RunConfig:
    changed = copy.deepcopy(value)
    for key, new in settings.items():
        put(changed, key, copy.deepcopy(new))
    return _validated(changed, ", ".join(f"{key}={new}" for key, new in settings.items()))


def _validated(value: dict[str, object], where: str) -> RunConfig:
    config = attempt(RunConfig, value)
    if isinstance(config, list):
        raise InputError("\n".join(f"{where}: {problem}" for problem in config))
    return config
