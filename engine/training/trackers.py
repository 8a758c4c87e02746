"""Curves in TensorBoard, MLflow, Weights & Biases. `history.json` stays the record."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from affect.engine.runs.folder import flat, write_json
from affect.engine.system.log import say
from affect.shards.errors import InputError, nearest

SENT = "tracking.json"  # in the run's folder: service -> the run's id there and the last epoch it was sent
PROJECT = "affect"


class Service(Protocol):
    """One place that takes numbers."""

    def write(self, epoch: int, values: dict[str, float]) -> None: ...
    def close(self) -> None: ...


class Tracker:
    """Sends each line of `history.json` to every service. A service begins at its first line: a run without lines begins none.

    begin: service -> the function that begins it at an epoch.
    """

    def __init__(self, begin: dict[str, Callable[[int], Service]]) -> None:
        self.begin = begin
        self.begun: dict[str, Service] = {}

    def log(self, line: dict[str, Any]) -> None:
        epoch, values = line["epoch"], scalars(line)
        for name, begin in self.begin.items():
            try:
                if name not in self.begun:
                    self.begun[name] = begin(epoch)
                self.begun[name].write(epoch, values)
            except Exception as error:  # no failure of a server ends a training
                say(f"track: {name} did not take epoch {epoch} ({type(error).__name__}: {error}); history.json has it")

    def close(self) -> None:
        for name, service in self.begun.items():
            try:
                service.close()
            except Exception as error:
                say(f"track: {name} did not close ({type(error).__name__}: {error})")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def tracker(names: list[str], out: Path, run_name: str, config: dict[str, Any]) -> Tracker:
    """Open the named services, for the run in the folder `out`; a resumed run goes on there and repeats no epoch.

    Raises: InputError where a name is unknown or its package is not installed.
    """
    for name in names:
        if name not in SERVICES:
            raise InputError(f"train.track: unknown service {name!r}{nearest(name, SERVICES)}; there are: {', '.join(SERVICES)}")
    return Tracker({name: partial(SERVICES[name], _package(name), out, run_name, config) for name in names})


def scalars(line: dict[str, Any]) -> dict[str, float]:
    """The numbers of a line by name: train/loss, train/lr, train/<term>, val/accuracy, ..."""
    groups: dict[str, dict[str, Any]] = {"train": {}, "val": {}}
    for key, value in line.items():
        if key == "val":
            groups["val"] |= value
        elif key == "losses":
            groups["train"] |= value
        elif key != "epoch":
            groups["train"][key.removeprefix("train_")] = value
    return {
        f"{group}/{name}": float(value) for group, values in groups.items() for name, value in values.items() if _number(value)
    }


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _package(name: str) -> Any:
    """Imported only where a run names it: each takes a while."""
    try:
        return importlib.import_module("torch.utils.tensorboard" if name == "tensorboard" else name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise InputError(f"train.track: {name} is not installed: pip install {name}, or take it out of train.track") from error


class TensorBoard:
    """Event files in out/tensorboard. What begins at an epoch takes the place of that and later ones in older files."""

    def __init__(self, package: Any, out: Path, run_name: str, config: dict[str, Any], epoch: int) -> None:
        self.writer = package.SummaryWriter(str(out / "tensorboard"), purge_step=epoch)
        self.writer.add_text("config", f"```json\n{json.dumps(config, indent=1)}\n```", epoch)

    def write(self, epoch: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class Sent:
    """The epochs of a run that a server already has, recorded in the run's folder."""

    def __init__(self, out: Path, service: str) -> None:
        self.path, self.service = out / SENT, service
        known = self._all().get(service, {"id": None, "epoch": -1})
        self.id, self.epoch = known["id"], known["epoch"]

    def record(self, id: str, epoch: int) -> None:
        self.id, self.epoch = id, epoch
        write_json(self.path, self._all() | {self.service: {"id": id, "epoch": epoch}})

    def _all(self) -> dict[str, Any]:
        return json.loads(self.path.read_text()) if self.path.is_file() else {}


class MLflow:
    """A run on the server of MLFLOW_TRACKING_URI; without one in MLflow's default place."""

    def __init__(self, package: Any, out: Path, run_name: str, config: dict[str, Any], epoch: int) -> None:
        self.mlflow, self.sent = package, Sent(out, "mlflow")
        if self.sent.id:
            package.start_run(run_id=self.sent.id)
            return
        package.set_experiment(PROJECT)
        self.sent.record(package.start_run(run_name=run_name).info.run_id, -1)
        package.log_params(flat(config))  # once: it refuses other values, and `train` may change on a resume

    def write(self, epoch: int, values: dict[str, float]) -> None:
        if epoch > self.sent.epoch:
            self.mlflow.log_metrics(values, step=epoch)
            self.sent.record(self.sent.id, epoch)

    def close(self) -> None:
        self.mlflow.end_run()


class WandB:
    """A run of the project `affect`; WANDB_MODE=offline stores it in the run's folder."""

    def __init__(self, package: Any, out: Path, run_name: str, config: dict[str, Any], epoch: int) -> None:
        self.sent = Sent(out, "wandb")
        self.run = package.init(project=PROJECT, name=run_name, dir=str(out), config=config, id=self.sent.id, resume="allow")
        self.sent.record(self.run.id, self.sent.epoch)

    def write(self, epoch: int, values: dict[str, float]) -> None:
        if epoch > self.sent.epoch:
            self.run.log(values, step=epoch)
            self.sent.record(self.run.id, epoch)

    def close(self) -> None:
        self.run.finish()


SERVICES: dict[str, Any] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}
