"""Run one query under limits: virtual machine steps, CPU seconds, rows and bytes.

What these limits cannot stop (a C function that runs for minutes without a callback, a crash of the
library) the process limits of worker.py stop.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from itertools import islice

import apsw

from jobs.tasks.sql.execution.compare import Row, Table
from jobs.tasks.sql.execution.connections import MAX_VALUE_BYTES


@dataclass(frozen=True)
class QueryLimits:
    """What one query may use on one database.

    `steps` are instructions of SQLite's virtual machine, which do not depend on the machine's speed.
    """

    steps: int = 100_000_000
    cpu_s: float = 10.0
    rows: int = 300_000
    content_bytes: int = 64 << 20

    def to_json(self) -> dict[str, float]:
        return {
            "steps": self.steps,
            "cpu_s": self.cpu_s,
            "rows": self.rows,
            "content_bytes": self.content_bytes,
        }


#: Instructions between two checks of the limits; few, because one instruction can call an expensive function.
_STEPS_PER_CHECK = 5_000
_ROWS_PER_FETCH = 500


class QueryError(Exception):
    """A query failed. `kind` is one of a small fixed set ("too slow", "refused" …), `detail` SQLite's message."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = detail

    def text(self) -> str:
        return f"{self.kind}: {self.detail}" if self.detail else self.kind


def run_query(
    connection: apsw.Connection, sql: str, limits: QueryLimits, *, drop_undecodable: bool = False
) -> Table:
    """The result of one query. Every error, apsw's too, is raised as QueryError.

    Bytes that are not UTF-8 become lone surrogates, or are dropped with `drop_undecodable`.
    """
    meter = _StepMeter(limits)
    connection.set_progress_handler(meter.check, _STEPS_PER_CHECK)
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
        raise _classified(error, meter) from None
    except (MemoryError, OverflowError) as error:
        raise QueryError("too large", str(error) or "the query needs too much memory") from None
    except ValueError as error:
        raise QueryError("not text", str(error)) from None
    finally:
        connection.set_progress_handler(None)


def column_names(connection: apsw.Connection, sql: str) -> list[str]:
    """The names of a query's output columns; the query is compiled but not run. Raises QueryError."""
    names: list[str] = []

    def record(cursor: apsw.Cursor, _text: str, _bindings: object) -> bool:
        names.extend(column[0] for column in cursor.get_description())
        return False

    cursor = connection.cursor()
    cursor.exec_trace = record
    try:
        cursor.execute(sql)
    except apsw.ExecTraceAbort:
        pass  # `record` returned False
    except (apsw.Error, ValueError) as error:
        raise QueryError("does not run", str(error)[:300]) from None
    return names


def _fetch(connection: apsw.Connection, sql: str, limits: QueryLimits) -> Table:
    # Fewer values than this cannot exceed the limit; counting bytes costs a tenth of most queries.
    uncounted_values = limits.content_bytes // MAX_VALUE_BYTES
    statement = _Statement(sql)
    cursor = connection.cursor()
    cursor.exec_trace = statement.trace
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
            if len(rows) * width > uncounted_values:
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
    """Execution trace of a query: allows one statement and counts its columns."""

    def __init__(self, sql: str) -> None:
        self.sql = sql
        self.width = 0
        self._started = False

    def trace(self, cursor: apsw.Cursor, text: str, _bindings: object) -> bool:
        """apsw's callback before a statement runs; `text` is that statement. Raises QueryError."""
        if self._started:
            # The rest is blank: `_BLANK` matched it.
            return True
        self._started = True
        if len(text) < len(self.sql) and not _BLANK.fullmatch(self.sql, len(text)):
            raise QueryError("several statements", "only one is run")
        self.sql = text
        self.width = len(cursor.get_description())
        return True


#: What may follow a statement: white space, semicolons and comments.
_BLANK = re.compile(r"(?:[\s;]|--[^\n]*|/\*.*?(?:\*/|\Z))*+", re.DOTALL)


def _fetch_undecodable(connection: apsw.Connection, sql: str, limits: QueryLimits, errors: str) -> Table:
    """Run the query again with text cast to blobs, and decode it here; `errors` as for `bytes.decode`."""
    statement = _Statement(sql)
    cursor = connection.cursor()
    cursor.exec_trace = statement.trace
    try:
        cursor.execute(sql)
    except UnicodeDecodeError:
        pass  # this run only reads the column count and the statement text
    finally:
        cursor.close(True)
    names = [f"c{number}" for number in range(statement.width)]
    columns = ", ".join(
        f"typeof({n}) = 'text', CASE typeof({n}) WHEN 'text' THEN CAST({n} AS BLOB) ELSE {n} END"
        for n in names
    )
    whole = statement.sql.strip().rstrip(";")
    # MATERIALIZED keeps the order of the rows.
    wrapped = (
        f"WITH _undecoded({', '.join(names)}) AS MATERIALIZED ({whole}\n) SELECT {columns} FROM _undecoded"
    )
    table = _fetch(connection, wrapped, limits)
    return Table(statement.width, [_decoded(row, errors) for row in table.rows], undecodable=True)


def _decoded(row: Row, errors: str) -> Row:
    """Decode a flat row of (is text, value) pairs into a row of values."""
    return tuple(
        value.decode("utf-8", errors) if is_text and isinstance(value, bytes) else value
        for is_text, value in zip(row[::2], row[1::2], strict=True)
    )


class _StepMeter:
    """Progress handler: `check` returns True, which interrupts the query, once a limit is reached."""

    def __init__(self, limits: QueryLimits) -> None:
        self.checks_left = limits.steps // _STEPS_PER_CHECK
        self.deadline_s = time.process_time() + limits.cpu_s

    def check(self) -> bool:
        self.checks_left -= 1
        return self.checks_left < 0 or time.process_time() > self.deadline_s


_ERROR_KINDS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
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


def _classified(error: apsw.Error, meter: _StepMeter) -> QueryError:
    text = str(error)[:300]
    if text == "interrupted":
        return QueryError(
            "too slow",
            "stopped at its limit of steps" if meter.checks_left < 0 else "stopped at its time limit",
        )
    for pattern, kind in _ERROR_KINDS:
        if pattern.search(text):
            return QueryError(kind, text)
    return QueryError("does not run", text)
