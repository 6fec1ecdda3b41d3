"""SQLite made safe enough to be asked anything: reads only, bounded in steps, time, rows and bytes.

This is the inner wall. What it cannot stop (one C function that runs for minutes without calling
back, a crash of the library) is stopped by the outer one: see worker.py.
"""

from __future__ import annotations

import re
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from jobs.score.sql import functions
from jobs.score.sql.compare import Row, Table


@dataclass(frozen=True)
class Limits:
    """What one query may use on one database."""

    steps: int = 100_000_000  # of SQLite's virtual machine: the same on a fast and on a slow machine
    cpu_s: float = 10.0
    rows: int = 300_000
    content_bytes: int = 64 << 20


#: Instructions between two looks at the clock; small, for one instruction can be a costly function.
_STEPS_PER_CHECK = 5_000
_ROWS_PER_FETCH = 500

_SQLITE_LIMITS = {
    # Also bounds what cannot be interrupted: instr(), trim() and others take the square of this.
    sqlite3.SQLITE_LIMIT_LENGTH: 100_000,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 110_000,
    sqlite3.SQLITE_LIMIT_COLUMN: 1_000,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 500,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 100,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 100_000,
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 100,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1_000,
    sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER: 0,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 1,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
#: A file comes with the data: its pages may be damaged and its views may call functions.
_FILE_PRAGMAS = ("query_only=ON", "trusted_schema=OFF", "cell_size_check=ON")
_READING = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
#: Functions that reach outside the database, or whose result is chance: a score must not depend on luck.
REFUSED_FUNCTIONS = frozenset(
    {
        "load_extension",
        "fts3_tokenizer",
        "readfile",
        "writefile",
        "edit",
        "random",
        "randomblob",
        "sqlite_log",
    }
)


class QueryError(Exception):
    """A query that gave no result. `kind` is one of a small fixed set, `detail` SQLite's own words."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = detail

    def text(self) -> str:
        return f"{self.kind}: {self.detail}" if self.detail else self.kind


def open_file(path: Path, *, reverse: bool = False) -> sqlite3.Connection:
    """A database file, read-only and immutable: no lock, no journal, nothing written beside it.

    With `reverse`, rows whose order no query fixes come the other way round.
    """
    connection = sqlite3.connect(address(path), uri=True, isolation_level=None, cached_statements=0)
    for pragma in _FILE_PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    return _guarded(connection, reverse)


def address(path: Path) -> str:
    """The URI under which a database file is opened without a lock, a journal or a change."""
    return f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"


def open_image(image: bytes, *, reverse: bool = False) -> sqlite3.Connection:
    """A database from the bytes of its file, in memory."""
    return _guarded(unguarded(image), reverse)


def unguarded(image: bytes) -> sqlite3.Connection:
    """As `open_image`, for the project's own questions (`pragma_table_info`); never for a query of the data."""
    connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=0)
    connection.deserialize(image)
    return connection


def _guarded(connection: sqlite3.Connection, reverse: bool) -> sqlite3.Connection:
    # Without this a sort that outgrows memory would want a file, and a process that may write none would die.
    connection.execute("PRAGMA temp_store=MEMORY")
    if reverse:
        connection.execute("PRAGMA reverse_unordered_selects=ON")
    for limit, value in _SQLITE_LIMITS.items():
        connection.setlimit(limit, value)
    functions.install(connection)
    connection.set_authorizer(_authorize)
    return connection


def _authorize(
    action: int, first: str | None, second: str | None, _database: str | None, _trigger: str | None
) -> int:
    if action not in _READING:
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_FUNCTION and (second or first or "").lower() in REFUSED_FUNCTIONS:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


def run(connection: sqlite3.Connection, sql: str, limits: Limits, *, drop_undecodable: bool = False) -> Table:
    """The result of one query. Raises QueryError, never anything of sqlite3.

    Bytes of text that are not UTF-8 are kept as lone surrogates, or left out with `drop_undecodable`.
    """
    stop = _Meter(limits)
    connection.set_progress_handler(stop.check, _STEPS_PER_CHECK)
    try:
        return _fetch(connection, sql, limits)
    except UnicodeEncodeError:
        raise QueryError("not text", "the query is not valid Unicode") from None
    except sqlite3.Error as error:
        if "Could not decode" in str(error):
            return _fetch_undecodable(
                connection, sql, limits, stop, "ignore" if drop_undecodable else "surrogateescape"
            )
        raise _explained(error, stop) from None
    except sqlite3.Warning as error:
        raise QueryError("several statements", str(error)) from None
    except (MemoryError, OverflowError):
        raise QueryError("too large", "the query needs too much memory") from None
    except ValueError as error:
        raise QueryError("not text", str(error)) from None
    finally:
        connection.set_progress_handler(None, 0)


def _fetch_undecodable(
    connection: sqlite3.Connection, sql: str, limits: Limits, stop: _Meter, errors: str
) -> Table:
    """Once more, decoding in Python; `errors` says what becomes of bytes that are not UTF-8."""
    connection.text_factory = lambda data: data.decode("utf-8", errors)
    try:
        return _fetch(connection, sql, limits)
    except sqlite3.Error as error:
        raise _explained(error, stop) from None
    finally:
        connection.text_factory = str


def _fetch(connection: sqlite3.Connection, sql: str, limits: Limits) -> Table:
    # So few values cannot exceed the limit, however long they are: counting bytes costs a tenth of most queries.
    few = limits.content_bytes // _SQLITE_LIMITS[sqlite3.SQLITE_LIMIT_LENGTH]
    cursor = connection.execute(sql)
    try:
        if cursor.description is None:
            raise QueryError(
                "not a query", "there is nothing to run" if not sql.strip() else "it returns no table"
            )
        rows: list[Row] = []
        width, size_bytes = len(cursor.description), 0
        while chunk := cursor.fetchmany(_ROWS_PER_FETCH):
            rows += chunk
            if len(rows) * width > few:
                size_bytes += sum(len(v) if isinstance(v, str | bytes) else 8 for row in chunk for v in row)
            if len(rows) > limits.rows or size_bytes > limits.content_bytes:
                raise QueryError(
                    "too large", f"more than {limits.rows} rows or {limits.content_bytes >> 20} MiB"
                )
        return Table(width, rows)
    finally:
        cursor.close()


class _Meter:
    """Counts a query's steps; a true value from `check` interrupts it."""

    def __init__(self, limits: Limits) -> None:
        self.left = limits.steps // _STEPS_PER_CHECK
        self.deadline = time.process_time() + limits.cpu_s
        self.stopped = False

    def check(self) -> bool:
        self.left -= 1
        self.stopped = self.left < 0 or time.process_time() > self.deadline
        return self.stopped


_KINDS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), kind)
    for pattern, kind in (
        (r"no such column|has no column", "unknown column"),
        (r"no such table|no such view", "unknown table"),
        (r"no such function", "unknown function"),
        (r"user-defined function", "too large"),
        (r"ambiguous column", "ambiguous column"),
        (
            r"not authorized|authorization denied|prohibited|attempt to write|readonly|access to .* prohibited",
            "refused",
        ),
        (r"syntax error|incomplete input|unrecognized token|unterminated", "syntax error"),
        (r"too many|too large|too long|too big|stack overflow|out of memory|string or blob", "too large"),
        (r"null character", "not text"),
        (r"one statement at a time", "several statements"),
    )
)


def _explained(error: sqlite3.Error, meter: _Meter) -> QueryError:
    text = str(error)[:300]
    if text == "interrupted":
        return QueryError(
            "too slow", "stopped at its limit of steps" if meter.left < 0 else "stopped at its time limit"
        )
    for pattern, kind in _KINDS:
        if pattern.search(text):
            return QueryError(kind, text)
    return QueryError("does not run", text)
