"""Every task by its name; a new one is a file here, whose TaskSpec values are found by listing this folder."""

from affect.engine.system.submodules import import_submodules
from affect.engine.tasks.spec import TaskSpec

TASKS = {
    task.name: task for module in import_submodules(__name__) for task in vars(module).values() if isinstance(task, TaskSpec)
}
