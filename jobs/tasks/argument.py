"""The TASK argument of `launcher data` and `launcher score`: a built-in name, or a folder of the user's own."""

from __future__ import annotations

from pathlib import Path

import click

from jobs.tasks import registry
from jobs.tasks.registry import Task
from launcher.spec.tasks import built_in_names, is_folder


class TaskArgument(click.ParamType[Task]):
    """Converts to a Task. Naming a folder runs its code: the command has no other use for it."""

    name = "task"

    def convert(self, value: str | Task, param: click.Parameter | None, ctx: click.Context | None) -> Task:
        if isinstance(value, Task):
            return value
        if is_folder(value):
            return registry.task_of_folder(Path(value).expanduser())
        if value not in built_in_names():
            self.fail(
                f"'{value}' is none of {', '.join(built_in_names())} and not a folder (./FOLDER).", param, ctx
            )
        return registry.task(value)

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return f"[{'|'.join(built_in_names())}|./FOLDER]"
