"""The stage `prepare`: source rows -> parts, uploads, databases and the data card."""

from __future__ import annotations

from pathlib import Path

from jobs.data.writer import prepare
from jobs.stage import StageContext
from launcher.outcome import Failure
from launcher.spec.stages import PrepareSettings
from launcher.store import check_name


def run(context: StageContext) -> None:
    """Leave the parts, `upload/`, `card.json` and for SQL `databases/` in `context.out`."""
    settings = context.stage.typed_settings()
    assert isinstance(settings, PrepareSettings)
    directory = _source_directory(context)

    def beat(done: int, total: int) -> None:
        context.heartbeat(done, total, "row")
        context.check_stop()

    try:
        card = prepare(settings.task, settings.data, directory, context.out, beat)
    except Failure as failure:
        if failure.where == str(directory):
            # The directory is scratch that nobody knows; its files have the names that the user gave.
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
    total = len(context.stage.inputs)
    for number, name in enumerate(sorted(context.stage.inputs), 1):
        check_name(name)
        link = directory / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(context.outside(name).absolute())
        context.heartbeat(number, total, "file")
        context.check_stop()
    return directory
