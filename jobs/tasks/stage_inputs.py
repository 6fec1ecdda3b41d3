"""The task of a stage: a built-in one, or a user's own from the stage's verified inputs."""

from __future__ import annotations

import shutil
import sys

from jobs.stage import StageContext
from jobs.tasks import registry
from launcher.outcome import Failure, Reason
from launcher.spec.names import relative_path
from launcher.spec.tasks import INPUT_PREFIX


def task_of(context: StageContext, name: str) -> registry.Task:
    """The task called `name`. The code of a user's own runs in this process from now on.

    Raises Failure(USAGE) for an unknown name, Failure(BAD_EXPERIMENT) if the files are of another task.
    """
    files = [given for given in context.stage.inputs if given.startswith(INPUT_PREFIX)]
    if not files:
        return registry.task(name)
    folder = context.scratch / "task"
    for given in files:
        relative_path(given)
        target = folder / given.removeprefix(INPUT_PREFIX)
        target.parent.mkdir(parents=True, exist_ok=True)
        # A copy: the verified file in the store is shared with other runs.
        shutil.copyfile(context.outside(given), target)
    sys.dont_write_bytecode = True
    loaded = registry.task_of_folder(folder)
    if loaded.name != name:
        raise Failure(
            Reason.BAD_EXPERIMENT, f"the plan's task is '{name}', its files are of task '{loaded.name}'"
        )
    return loaded
