"""Where rows come from: `detect` a directory's source, `read_part` one part of it in the data's order.

A source's files lie in the directory that the user names, or in a folder of it that has the source's
name (`DIR/viggo-train.csv` or `DIR/viggo/viggo-train.csv`). What `prepare` wrote can be read again
as the source `prepared`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.tasks.chat import source as chat
from jobs.tasks.reading import Problems, locate, require
from jobs.tasks.rows import Row, read_rows
from jobs.tasks.sql import spider, spider_create_context
from jobs.tasks.viggo import source as viggo
from launcher.outcome import Failure, Reason

_Read = Callable[[Path, str, Problems], list[Row]]


@dataclass(frozen=True)
class Source:
    """A layout of files. `files` are its own parts; `readable` has every name by which one may ask."""

    name: str
    task: str
    files: Mapping[str, str]
    readable: Mapping[str, str]
    read: _Read
    #: A directory with any of these is taken for this source.
    signs: tuple[str, ...]


_SYNONYMS = {"val": "validation", "dev": "validation"}
_PREPARED_FILES: Mapping[str, str] = {
    "train": "train.jsonl",
    "validation": "validation.jsonl",
    "test": "test.jsonl",
}


def _read_prepared(directory: Path, part: str, problems: Problems) -> list[Row]:
    path = require("prepared", directory, _PREPARED_FILES[part])[0]
    try:
        return read_rows(path)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problems.add(path.name, f"was not written by prepare: {type(error).__name__} {error}")
        return []


def _source(
    name: str,
    task: str,
    files: Mapping[str, str],
    readable: Mapping[str, str],
    read: _Read,
) -> Source:
    return Source(name, task, files, readable, read, tuple(files.values()))


SOURCES = {
    source.name: source
    for source in (
        _source(
            spider_create_context.NAME,
            "sql",
            spider_create_context.FILES,
            spider_create_context.READABLE,
            spider_create_context.read,
        ),
        _source(spider.NAME, "sql", spider.FILES, spider.READABLE, spider.read),
        _source(viggo.NAME, "viggo", viggo.FILES, viggo.READABLE, viggo.read),
        _source(chat.NAME, "chat", chat.FILES, chat.READABLE, chat.read),
    )
}
_CARD = "card.json"


def detect(task: str, directory: Path) -> str:
    """The source whose files lie in `directory`: what prepare wrote, the direct layout, then the parent's.

    Raises Failure(MISSING_INPUT) where there is none, Failure(USAGE) where there are several.
    """
    if not directory.is_dir():
        raise Failure(Reason.MISSING_INPUT, "there is no such directory", where=str(directory))
    candidates = [source for source in SOURCES.values() if source.task == task]
    if not candidates:
        raise Failure(Reason.USAGE, f"no task '{task}'; there are sql, viggo, chat")
    if (directory / _CARD).is_file() and (directory / "test.jsonl").is_file():
        return "prepared"
    for base in (lambda _source: directory, lambda source: directory / source.name):
        found = [s.name for s in candidates if any((base(s) / sign).is_file() for sign in s.signs)]
        if len(found) == 1:
            return found[0]
        if found:
            raise Failure(
                Reason.USAGE,
                f"the directory holds {' and '.join(found)}",
                where=str(directory),
                next_step=f"name one: --source {found[0]}",
            )
    looked = "; ".join(f"{s.name}: {', '.join(s.signs)}" for s in candidates)
    raise Failure(
        Reason.MISSING_INPUT,
        f"no data for task '{task}' here",
        where=str(directory),
        next_step=f"name a directory with the files of one source ({looked})",
    )


def read_part(task: str, source: str, directory: Path, part: str) -> list[Row]:
    """Every row of one part, in the data's order; `val` and `dev` are other words for `validation`.

    `fields.database` is relative to `directory`. Raises Failure(BAD_DATA) with every problem of the
    part's file, Failure(MISSING_INPUT) where it is not there, Failure(USAGE) for an unknown name.
    """
    return read_parts(task, source, directory, [part])[part]


def read_parts(task: str, source: str, directory: Path, parts: Sequence[str]) -> dict[str, list[Row]]:
    """Like `read_part` for several parts; the problems of all their files are raised together."""
    if source in SOURCES and SOURCES[source].task == task:
        files, read = SOURCES[source].readable, SOURCES[source].read
    elif source == "prepared":
        files, read = _PREPARED_FILES, _read_prepared
    else:
        known = ", ".join(s.name for s in SOURCES.values() if s.task == task)
        raise Failure(Reason.USAGE, f"task '{task}' has no source '{source}' in a directory; it has {known}")
    names = {}
    for part in parts:
        names[part] = part if part in files else _SYNONYMS.get(part, part)
        if names[part] not in files:
            raise Failure(Reason.USAGE, f"source '{source}' has no part '{part}'; it has {', '.join(files)}")
    require(source, directory, *dict.fromkeys(files[name] for name in names.values()))
    problems = Problems()
    rows = {part: read(directory, name, problems) for part, name in names.items()}
    problems.check(directory)
    return rows


def has_part(source: str, directory: Path, part: str) -> bool:
    """Whether the source has a file of its own for `part` in this directory."""
    name = SOURCES[source].files.get(part)
    return name is not None and locate(source, directory, name) is not None
