"""The task of a stage: a built-in one, or a user's own from the stage's verified inputs."""

from __future__ import annotations

import shutil
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.stage import StageContext, Stopped
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


@contextmanager
def code_errors(task: registry.Task) -> Iterator[None]:
    """Turn an error in a user's own code into Failure(BAD_DATA), which is not retried; the trace goes to the log.

    Errors of built-in tasks, of storage and of memory pass.
    """
    try:
        yield
    except (Failure, Stopped, MemoryError, OSError):
        raise
    except (Exception, SystemExit) as error:
        if task.is_built_in:
            raise
        traceback.print_exc()
        raise Failure(
            Reason.BAD_DATA,
            f"the task's code failed: {type(error).__name__}: {error}",
            where=f"task {task.name}",
            next_step="correct it, then submit again; the stage's log has the trace",
        ) from error
