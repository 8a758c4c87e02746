"""The outputs of a task that a run can learn from its dataset."""

from __future__ import annotations

from dataclasses import replace

from affect.engine.config.run import RunConfig
from affect.engine.data.selection import train_rows
from affect.engine.losses.build import terms_of
from affect.engine.metrics.output_metrics import labelled
from affect.engine.system.log import say, silent
from affect.engine.tasks import TASKS
from affect.engine.tasks.spec import TaskSpec
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError


def task_of(run: RunConfig, dataset: Dataset) -> TaskSpec:
    """The run's task without the outputs that no training row is labelled for, or that no loss looks at; each is logged.

    Raises: InputError where no row is labelled for the first one.
    """
    task = TASKS[run.task]
    has = {output.name: output for output in dataset.info.layout.outputs}
    rows, trained = train_rows(run.data, dataset, silent), list[str]()
    wanted = {term.on for term in terms_of(run, task)}
    for i, name in enumerate(task.outputs):
        if i == 0:
            dataset.info.layout.output(name)  # raises where there is none
        if name not in has:
            say(f"warning: {name}: {dataset.folder} has no such labels; training {' and '.join(trained)} alone")
        elif name not in wanted and i:
            say(f"{name}: its loss has the weight 0; training {' and '.join(trained)} alone")
        elif not labelled(has[name], dataset.targets(name)[rows]).any():
            if i == 0:
                raise InputError(f"{dataset.folder}: no training row is labelled for {name!r}; nothing to learn from")
            say(f"warning: {name}: none of {len(rows):,} training rows is labelled; training {' and '.join(trained)} alone")
        else:
            trained.append(name)
    return replace(task.limited_to(tuple(trained)), select_by=run.optim.select_by or task.select_by)
