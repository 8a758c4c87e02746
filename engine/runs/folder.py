"""The folder of a run: it is locked while it is written, never overwritten, and opened again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import yaml

from affect.engine.config.run import RunConfig
from affect.engine.runs.checkpoint import load
from affect.engine.runs.files import BEST, CONFIG, HISTORY, LAST, WRITTEN_LAST
from affect.engine.system.folder_lock import LOCK, lock_folder
from affect.engine.tasks import TASKS
from affect.shards.checksum import file_sha256
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Let one process at a time write to a run; raises InputError where another one does, or where there can be no folder."""
    if out.is_file():
        raise InputError(f"{out}: is a file; name a folder: --out DIR")
    if out.is_symlink() and not out.exists():
        raise InputError(f"{out}: is a link to {out.readlink()}, which is not there; remove the link, or name another: --out DIR")
    with lock_folder(out):
        yield


def begin(out: Path, run: RunConfig, dataset: Dataset, *, resume: bool) -> dict[str, Any] | None:
    """The state to go on from, None where there is nothing yet. A run that ended before its first checkpoint may start anew.

    Raises: InputError where there is a run that is not to be resumed, or one with another configuration.
    """
    there = [path for path in out.iterdir() if path.name != LOCK] if out.is_dir() else []
    unfinished = (out / CONFIG).is_file() and not (out / LAST).is_file() and not (out / BEST).is_file()
    if resume and not (out / CONFIG).is_file():
        raise InputError(f"{out}: no run to resume; start it without --resume")
    if not resume:
        if there and not unfinished:
            raise InputError(f"{out}: is there already; go on with it: add --resume, or name another: --out DIR")
        return None
    same_config(out / CONFIG, run)
    if not (out / LAST).is_file():
        return None
    state = load(out / LAST)
    same_data(out, state, run, dataset)
    return state


def taken_over(folder: Path, run: RunConfig, dataset: Dataset) -> dict[str, Any]:
    """The last state of another run, which ended after an epoch, to be gone on from under other settings.

    Raises: InputError where it is not of these rows, this task, optimiser or selecting figure: what it has learned and chosen
    would contradict the settings.
    """
    before, state = open_run(folder)[0], load(folder / LAST)
    same_data(folder, state, run, dataset)
    figure, figure_before = (one.optim.select_by or TASKS[one.task].select_by for one in (run, before))
    pairs = {
        "task": (before.task, run.task), "data.fold": (before.data.fold, run.data.fold),
        "data.folds": (before.data.folds, run.data.folds), "data.side": (before.data.side, run.data.side),
        "optim.optimizer": (before.optim.optimizer, run.optim.optimizer),
        "optim.select_by": (figure_before, figure),
        "optim.ema": (before.optim.ema > 0, run.optim.ema > 0), "model": (before.model.backbone, run.model.backbone),
        "model.options": (before.model.options, run.model.options),
    }  # fmt: skip
    if changed := [f"  {key}: {old} there, {new} here" for key, (old, new) in pairs.items() if old != new]:
        raise InputError(f"{folder}: cannot be gone on from under these settings:\n" + "\n".join(changed))
    if state["meter"]["steps"]:
        raise InputError(f"{folder}: stopped within an epoch; let it finish first: affect train ... --out {folder} --resume")
    return state | {"same_loss": before.loss == run.loss, "path": str(folder / LAST), "sha256": file_sha256(folder / LAST)}


def same_data(out: Path, state: dict[str, Any], run: RunConfig, dataset: Dataset) -> None:
    """Raises InputError where the dataset, or the file of folds, is not what a state was trained on."""
    if state["fingerprint"]["index"] != dataset.index_sha256:
        raise InputError(f"{dataset.folder}: is not the dataset that {out} was trained on; give that one, or train anew")
    file = run.data.folds.file if run.data.folds else ""
    if file and state["fingerprint"].get("folds") != file_sha256(Path(file)):
        raise InputError(f"{file}: is not the file of folds that {out} was trained by; put the old one back, or train anew")


def same_config(path: Path, run: RunConfig) -> None:
    """Raises InputError naming the settings that have changed among those that decide what is learned."""
    before = RunConfig.model_validate(yaml.safe_load(path.read_text()))
    if before.digest == run.digest:
        return
    old, new = flat(before.model_dump(mode="json")), flat(run.model_dump(mode="json"))
    changed = [
        f"  {key}: {old.get(key)} in the run, {new.get(key)} now" for key in sorted(old | new) if old.get(key) != new.get(key)
    ]
    raise InputError(
        f"{path}: the configuration has changed:\n" + "\n".join(changed) + "\nResume with the same one, or start another run"
    )


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as `optim.lr: 0.001`."""
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for key, child in value.items() for k, v in flat(child, f"{prefix}.{key}" if prefix else key).items()}


def write_json(path: Path, value: Any) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(value, indent=1))
    partial.replace(path)


def open_run(folder: Path) -> tuple[RunConfig, dict[str, Any]]:
    """The configuration and the best checkpoint of a run."""
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder}: not a run: it has no {CONFIG}")
    if not (folder / BEST).is_file():
        raise InputError(f"{folder}: has no {BEST} yet; let the run finish an epoch: affect train ... --out {folder} --resume")
    return RunConfig.model_validate(yaml.safe_load((folder / CONFIG).read_text())), load(folder / BEST)


def state_of(folder: Path) -> Literal["new", "unfinished", "finished"]:
    """How far a run is; it is finished when its last file has been written."""
    if (folder / WRITTEN_LAST).is_file():
        return "finished"
    return "unfinished" if (folder / CONFIG).is_file() else "new"


def read_history(folder: Path) -> list[dict[str, Any]]:
    """A line per epoch."""
    return json.loads((folder / HISTORY).read_text())
