"""Reads the files of a source, in either of two layouts, and reports the problems of all files together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launcher.outcome import Failure, Reason
from launcher.system.text import first_of

#: Problems listed of one directory; the rest are counted.
PROBLEMS_SHOWN = 50


class Problems:
    """Collects problems of several files; `check` raises them together."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, where: str, what: str) -> None:
        self.lines.append(f"{where}: {what}")

    def check(self, directory: Path) -> None:
        """Raise Failure(BAD_DATA) with all problems, if there are any."""
        if not self.lines:
            return
        count = len(self.lines)
        shown = first_of(self.lines, PROBLEMS_SHOWN)
        what = "1 problem in the data" if count == 1 else f"{count} problems in the data"
        raise Failure(Reason.BAD_DATA, what, where=str(directory), problems=tuple(shown))


def locate(source: str, directory: Path, name: str) -> Path | None:
    """The file `name` of a source: `DIR/name`, else `DIR/<source>/name`, else None."""
    for path in (directory / name, directory / source / name):
        if path.is_file():
            return path
    return None


def require(source: str, directory: Path, *names: str) -> list[Path]:
    """Like `locate` for several files. Raises Failure(MISSING_INPUT) naming every missing one."""
    found = [(name, locate(source, directory, name)) for name in names]
    missing = [name for name, path in found if path is None]
    if missing:
        what = (
            f"there is no {' and no '.join(missing)}" if directory.is_dir() else "there is no such directory"
        )
        raise Failure(
            Reason.MISSING_INPUT,
            what,
            where=str(directory),
            next_step=f"name a directory that holds {', '.join(names)}, or has a folder '{source}' that does",
        )
    return [path for _, path in found if path is not None]


def read_text(path: Path, problems: Problems) -> str | None:
    """The file as UTF-8 without a byte order mark; None if it cannot be read, which is added to `problems`."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        problems.add(path.name, f"cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        problems.add(f"{path.name}:{line}", "not UTF-8")
    return None


def read_json_objects(path: Path, keys: tuple[str, ...], problems: Problems) -> list[dict[str, str]]:
    """A JSON list of objects, each with non-empty text under `keys`; problems count rows from 1."""
    text = read_text(path, problems)
    if text is None:
        return []
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        problems.add(path.name, f"not JSON: {error}")
        return []
    if not isinstance(document, list):
        problems.add(path.name, "must be a list of rows")
        return []
    if not document:
        problems.add(path.name, "has no rows")
    rows = []
    for number, value in enumerate(document, 1):
        if wrong := _wrong_keys(value, keys):
            problems.add(f"{path.name} row {number}", wrong)
        else:
            rows.append(value)
    return rows


def _wrong_keys(value: Any, keys: tuple[str, ...]) -> str:
    if not isinstance(value, dict):
        return "not an object"
    wrong = [key for key in keys if not isinstance(value.get(key), str) or not value[key].strip()]
    if wrong:
        return f"{', '.join(wrong)}: missing, empty or not text"
    return "" if is_text(value) else HALF_CHARACTER


HALF_CHARACTER = "holds half of a surrogate pair (\\ud800 to \\udfff alone), which is no character"


def is_text(value: Any) -> bool:
    """Whether a JSON value can be written as UTF-8: JSON's escapes allow half surrogate pairs."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


def json_lines(path: Path, problems: Problems) -> Iterator[tuple[int, Any]]:
    """(line number, value) of a JSONL file; blank lines are skipped, lines that are not JSON are problems."""
    text = read_text(path, problems)
    # Not splitlines: a line of JSON may hold U+2028 as it is.
    for number, line in enumerate((text or "").split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            message = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            problems.add(f"{path.name}:{number}", f"not JSON: {message}")
            continue
        if is_text(value):
            yield number, value
        else:
            problems.add(f"{path.name}:{number}", HALF_CHARACTER)
