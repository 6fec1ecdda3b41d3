"""The files of a task's sources: `detect` a directory's source, `read_part` one part of it in the data's order.

The files are in the directory that the user names, or in its folder with the source's name (`DIR/train.jsonl`
or `DIR/chat/train.jsonl`). What `prepare` wrote can be read again as the source `prepared`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jobs.tasks import registry
from jobs.tasks.contract import Source
from jobs.tasks.reading import Problems, locate, require
from jobs.tasks.registry import Task
from jobs.tasks.rows import Row, read_rows
from launcher.outcome import Failure, Reason

_SYNONYMS = {"val": "validation", "dev": "validation"}
_CARD = "card.json"


def _read_prepared(directory: Path, part: str, problems: Problems) -> list[Row]:
    path = require(PREPARED.name, directory, PREPARED.files[part])[0]
    try:
        return read_rows(path)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problems.add(path.name, f"was not written by prepare: {type(error).__name__} {error}")
        return []


PREPARED = Source(
    "prepared",
    {"train": "train.jsonl", "validation": "validation.jsonl", "test": "test.jsonl"},
    _read_prepared,
)


def detect(task: Task | str, directory: Path) -> str:
    """The source whose files are in `directory`: what prepare wrote, the direct layout, then folders by name.

    Raises Failure(MISSING_INPUT) if there is none, Failure(USAGE) if there are several.
    """
    if not directory.is_dir():
        raise Failure(Reason.MISSING_INPUT, "there is no such directory", where=str(directory))
    loaded = registry.task(task)
    candidates = _with_files(loaded)
    if (directory / _CARD).is_file() and (directory / "test.jsonl").is_file():
        return PREPARED.name
    for base in (lambda _source: directory, lambda source: directory / source.name):
        found = [s.name for s in candidates if any((base(s) / file).is_file() for file in s.files.values())]
        if len(found) == 1:
            return found[0]
        if found:
            raise Failure(
                Reason.USAGE,
                f"the directory holds {' and '.join(found)}",
                where=str(directory),
                next_step=f"name one: --source {found[0]}",
            )
    looked = "; ".join(f"{s.name}: {', '.join(s.files.values())}" for s in candidates)
    raise Failure(
        Reason.MISSING_INPUT,
        f"no data for task '{loaded.name}' here",
        where=str(directory),
        next_step=f"name a directory with the files of one source ({looked})",
    )


def read_part(task: Task | str, source: str, directory: Path, part: str) -> list[Row]:
    """Every row of one part, in the data's order; `val` and `dev` are other words for `validation`.

    Paths in rows are relative to `directory`. Raises Failure(BAD_DATA) with every problem of the part's file,
    Failure(MISSING_INPUT) if it is not there, Failure(USAGE) for an unknown name.
    """
    return read_parts(task, source, directory, [part])[part]


def read_parts(task: Task | str, source: str, directory: Path, parts: Sequence[str]) -> dict[str, list[Row]]:
    """Like `read_part` for several parts; the problems of all their files are raised together."""
    loaded = registry.task(task)
    chosen = PREPARED if source == PREPARED.name else loaded.sources.get(source)
    if chosen is None or chosen.generate is not None:
        known = ", ".join(s.name for s in _with_files(loaded))
        raise Failure(
            Reason.USAGE, f"task '{loaded.name}' has no source '{source}' in a directory; it has {known}"
        )
    files = chosen.readable
    names = {}
    for part in parts:
        names[part] = part if part in files else _SYNONYMS.get(part, part)
        if names[part] not in files:
            raise Failure(Reason.USAGE, f"source '{source}' has no part '{part}'; it has {', '.join(files)}")
    require(source, directory, *dict.fromkeys(files[name] for name in names.values()))
    problems = Problems()
    rows = {part: chosen.read(directory, name, problems) for part, name in names.items()}
    problems.check(directory)
    return rows


def source_of(task: Task, name: str) -> Source:
    """The task's source called `name`. Raises Failure(USAGE) listing the known ones."""
    if name not in task.sources:
        raise Failure(
            Reason.USAGE, f"task '{task.name}' has no source '{name}'; it has {', '.join(task.sources)}"
        )
    return task.sources[name]


def has_part(source: Source, directory: Path, part: str) -> bool:
    """Whether the source has a file of its own for `part` in this directory."""
    name = source.files.get(part)
    return name is not None and locate(source.name, directory, name) is not None


def _with_files(task: Task) -> list[Source]:
    return [source for source in task.sources.values() if source.generate is None]
