"""SQLite made safe enough to be asked anything: reads only, bounded in steps, time, rows and bytes.

This is the inner wall. What it cannot stop (one C function that runs for minutes without calling
back, a crash of the library) is stopped by the outer one: see worker.py.

SQLite is the one that apsw carries, not the system's: a verdict should not depend on whose machine it is.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from urllib.parse import quote

import apsw

from jobs.tasks.sql.execution import sql_functions
from jobs.tasks.sql.execution.compare import Row, Table


@dataclass(frozen=True)
class QueryLimits:
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
    apsw.SQLITE_LIMIT_LENGTH: 100_000,
    apsw.SQLITE_LIMIT_SQL_LENGTH: 110_000,
    apsw.SQLITE_LIMIT_COLUMN: 1_000,
    apsw.SQLITE_LIMIT_EXPR_DEPTH: 500,
    apsw.SQLITE_LIMIT_COMPOUND_SELECT: 100,
    apsw.SQLITE_LIMIT_VDBE_OP: 100_000,
    apsw.SQLITE_LIMIT_FUNCTION_ARG: 100,
    apsw.SQLITE_LIMIT_ATTACHED: 0,
    apsw.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1_000,
    apsw.SQLITE_LIMIT_VARIABLE_NUMBER: 0,
    apsw.SQLITE_LIMIT_TRIGGER_DEPTH: 1,
    apsw.SQLITE_LIMIT_WORKER_THREADS: 0,
}
#: A file comes with the data: its pages may be damaged and its views may call functions.
_FILE_PRAGMAS = ("query_only=ON", "trusted_schema=OFF", "cell_size_check=ON")
_READING = frozenset({apsw.SQLITE_SELECT, apsw.SQLITE_READ, apsw.SQLITE_FUNCTION, apsw.SQLITE_RECURSIVE})
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


def open_file(path: Path, *, reverse: bool = False) -> apsw.Connection:
    """A database file, read-only and immutable: no lock, no journal, nothing written beside it.

    With `reverse`, rows whose order no query fixes come the other way round.
    """
    connection = unguarded_file(path)
    for pragma in _FILE_PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    return _guarded(connection, reverse)


def open_image(image: bytes, *, reverse: bool = False) -> apsw.Connection:
    """A database from the bytes of its file, in memory."""
    return _guarded(unguarded_image(image), reverse)


def replace_image(connection: apsw.Connection, image: bytes) -> None:
    """Another database in place of the one that `open_image` opened: a third of the price of opening it."""
    # SQLite does this by an ATTACH of its own, which nobody else is allowed.
    connection.authorizer = None
    connection.deserialize("main", image)
    connection.authorizer = _authorize


def unguarded_file(path: Path) -> apsw.Connection:
    """As `open_file`, for the project's own questions (`pragma_table_info`); never for a query of the data."""
    address = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
    return apsw.Connection(
        address, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI, statementcachesize=0
    )


def unguarded_image(image: bytes | None = None) -> apsw.Connection:
    """As `open_image`, for the project's own questions and for making databases; empty without an image."""
    connection = apsw.Connection(":memory:", statementcachesize=0)
    if image is not None:
        connection.deserialize("main", image)
    return connection


def _guarded(connection: apsw.Connection, reverse: bool) -> apsw.Connection:
    # Without this a sort that outgrows memory would want a file, and a process that may write none would die.
    connection.execute("PRAGMA temp_store=MEMORY")
    if reverse:
        connection.execute("PRAGMA reverse_unordered_selects=ON")
    for limit, value in _SQLITE_LIMITS.items():
        connection.limit(limit, value)
    sql_functions.install(connection)
    connection.authorizer = _authorize
    return connection


def _authorize(
    action: int, first: str | None, second: str | None, _database: str | None, _trigger: str | None
) -> int:
    if action not in _READING:
        return apsw.SQLITE_DENY
    if action == apsw.SQLITE_FUNCTION and (second or first or "").lower() in REFUSED_FUNCTIONS:
        return apsw.SQLITE_DENY
    return apsw.SQLITE_OK


def run(
    connection: apsw.Connection, sql: str, limits: QueryLimits, *, drop_undecodable: bool = False
) -> Table:
    """The result of one query. Raises QueryError, never anything of apsw.

    Bytes of text that are not UTF-8 are kept as lone surrogates, or left out with `drop_undecodable`.
    """
    stop = _Meter(limits)
    connection.set_progress_handler(stop.check, _STEPS_PER_CHECK)
    try:
        try:
            return _fetch(connection, sql, limits)
        except UnicodeDecodeError:
            return _fetch_undecodable(
                connection, sql, limits, "ignore" if drop_undecodable else "surrogateescape"
            )
    except UnicodeError:
        raise QueryError("not text", "the query is not valid Unicode") from None
    except apsw.Error as error:
        raise _explained(error, stop) from None
    except (MemoryError, OverflowError) as error:
        raise QueryError("too large", str(error) or "the query needs too much memory") from None
    except ValueError as error:
        raise QueryError("not text", str(error)) from None
    finally:
        connection.set_progress_handler(None)


def column_names(connection: apsw.Connection, sql: str) -> list[str]:
    """The names of the columns that a query returns; it is not run. Raises QueryError as `run` does."""
    names: list[str] = []

    def look(cursor: apsw.Cursor, _text: str, _bindings: object) -> bool:
        names.extend(column[0] for column in cursor.get_description())
        return False

    cursor = connection.cursor()
    cursor.exec_trace = look
    try:
        cursor.execute(sql)
    except apsw.ExecTraceAbort:
        pass  # `look` has seen the columns and stopped it
    except (apsw.Error, ValueError) as error:
        raise QueryError("does not run", str(error)[:300]) from None
    return names


def _fetch(connection: apsw.Connection, sql: str, limits: QueryLimits) -> Table:
    # So few values cannot exceed the limit, however long they are: counting bytes costs a tenth of most queries.
    few = limits.content_bytes // _SQLITE_LIMITS[apsw.SQLITE_LIMIT_LENGTH]
    statement = _Statement(sql)
    cursor = connection.cursor()
    cursor.exec_trace = statement.begins
    try:
        cursor.execute(sql)
        width, size_bytes = statement.width, 0
        if not width:
            raise QueryError(
                "not a query", "there is nothing to run" if not sql.strip() else "it returns no table"
            )
        rows: list[Row] = []
        while chunk := list(islice(cursor, _ROWS_PER_FETCH)):
            rows += chunk
            if len(rows) * width > few:
                size_bytes += sum(len(v) if isinstance(v, str | bytes) else 8 for row in chunk for v in row)
            if len(rows) > limits.rows or size_bytes > limits.content_bytes:
                raise QueryError(
                    "too large", f"more than {limits.rows} rows or {limits.content_bytes >> 20} MiB"
                )
            if len(chunk) < _ROWS_PER_FETCH:
                break
        return Table(width, rows)
    finally:
        cursor.close(True)


class _Statement:
    """Looks at a statement before it runs: there may be one alone, whose columns are counted."""

    def __init__(self, sql: str) -> None:
        self.sql = sql
        self.width = 0
        self._begun = False

    def begins(self, cursor: apsw.Cursor, text: str, _bindings: object) -> bool:
        """SQLite's callback, with the statement's own text; what follows it is not even compiled."""
        if self._begun:
            # Only blanks: `_BLANK` has seen them.
            return True
        self._begun = True
        if len(text) < len(self.sql) and not _BLANK.fullmatch(self.sql, len(text)):
            raise QueryError("several statements", "only one is run")
        self.sql = text
        self.width = len(cursor.get_description())
        return True


#: What may stand behind a statement: white space, semicolons and comments.
_BLANK = re.compile(r"(?:[\s;]|--[^\n]*|/\*.*?(?:\*/|\Z))*+", re.DOTALL)


def _fetch_undecodable(connection: apsw.Connection, sql: str, limits: QueryLimits, errors: str) -> Table:
    """Once more, text as bytes, decoded here; `errors` says what becomes of bytes that are not UTF-8."""
    statement = _Statement(sql)
    cursor = connection.cursor()
    cursor.exec_trace = statement.begins
    try:
        cursor.execute(sql)
    except UnicodeDecodeError:
        pass  # as before; this time for the columns and the statement's own text alone
    finally:
        cursor.close(True)
    names = [f"c{number}" for number in range(statement.width)]
    columns = ", ".join(
        f"typeof({n}) = 'text', CASE typeof({n}) WHEN 'text' THEN CAST({n} AS BLOB) ELSE {n} END"
        for n in names
    )
    whole = statement.sql.strip().rstrip(";")
    # Materialised, so that its rows come in their own order.
    wrapped = (
        f"WITH _undecoded({', '.join(names)}) AS MATERIALIZED ({whole}\n) SELECT {columns} FROM _undecoded"
    )
    table = _fetch(connection, wrapped, limits)
    return Table(statement.width, [_decoded(row, errors) for row in table.rows], undecodable=True)


def _decoded(row: Row, errors: str) -> Row:
    """A row of (is text, value) pairs, side by side, as a row of values."""
    return tuple(
        value.decode("utf-8", errors) if is_text and isinstance(value, bytes) else value
        for is_text, value in zip(row[::2], row[1::2], strict=True)
    )


class _Meter:
    """Counts a query's steps; a true value from `check` interrupts it."""

    def __init__(self, limits: QueryLimits) -> None:
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
        (r"ambiguous column", "ambiguous column"),
        (
            r"not authorized|authorization denied|prohibited|attempt to write|readonly|access to .* prohibited",
            "refused",
        ),
        (r"syntax error|incomplete input|unrecognized token|unterminated", "syntax error"),
        (r"too many|too large|too long|too big|stack overflow|out of memory|string or blob", "too large"),
        (r"null character", "not text"),
    )
)


def _explained(error: apsw.Error, meter: _Meter) -> QueryError:
    text = str(error)[:300]
    if text == "interrupted":
        return QueryError(
            "too slow", "stopped at its limit of steps" if meter.left < 0 else "stopped at its time limit"
        )
    for pattern, kind in _KINDS:
        if pattern.search(text):
            return QueryError(kind, text)
    return QueryError("does not run", text)
