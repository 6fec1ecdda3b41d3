"""The stage `prepare`: source rows -> parts, uploads, files of the rows and the data card."""

from __future__ import annotations

from pathlib import Path

from jobs.data.writer import prepare
from jobs.stage import StageContext
from jobs.tasks.stage_inputs import code_errors, task_of
from launcher.outcome import Failure
from launcher.spec.names import relative_path
from launcher.spec.stages import PrepareSettings
from launcher.spec.tasks import INPUT_PREFIX


def run(context: StageContext) -> None:
    """Write the parts, `upload/`, `card.json` and the files that rows point at to `context.out`."""
    settings = context.stage.typed_settings()
    assert isinstance(settings, PrepareSettings)
    directory = _source_directory(context)

    def progress(done: int, total: int) -> None:
        context.heartbeat(done, total, "row")
        context.check_stop()

    task = task_of(context, settings.task)
    try:
        with code_errors(task):
            card = prepare(task, settings.data, directory, context.out, progress, settings.settings)
    except Failure as failure:
        if failure.where == str(directory):
            # The directory is scratch; its files have the names that the user gave.
            failure.where = f"data of source '{settings.data.source}'"
        raise
    rows = sum(part["rows"] for part in card["parts"].values())
    context.heartbeat(rows, rows, "row")
    context.meta["rows"] = rows
    context.meta["training_tokens"] = card["parts"]["train"]["training_tokens"]


def _source_directory(context: StageContext) -> Path:
    """One directory with the source's files under their own names: fetched, or outside inputs as links."""
    if context.has_input("source"):
        return context.input("source").directory()
    directory = context.scratch / "source"
    directory.mkdir()
    names = sorted(name for name in context.stage.inputs if not name.startswith(INPUT_PREFIX))
    for number, name in enumerate(names, 1):
        relative_path(name)
        link = directory / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(context.outside(name).absolute())
        context.heartbeat(number, len(names), "file")
        context.check_stop()
    return directory
