"""Proof of a verdict: a database made as small as it will go, and what gold and answer return on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import apsw

from jobs.score.sql import compare, engine, gold, schema, syntax
from jobs.score.sql.compare import Row
from jobs.score.sql.engine import Limits, QueryError
from jobs.score.sql.schema import Schema, create_table, quoted
from jobs.score.sql.syntax import GoldPlan

_LIMITS = Limits(steps=5_000_000, cpu_s=2.0, rows=50_000, content_bytes=16 << 20)
#: Bigger databases are shown as they are: copying them to take rows away would take longer than anybody waits.
_MAX_SHRUNK_ROWS = 3_000
_MAX_TRIALS = 1_500
_SHRINKING_S = 5.0
#: Rows shown of any table.
SHOWN_ROWS = 20


@dataclass(frozen=True)
class _Rows:
    """The rows of the tables in play; what is shrunk."""

    schema: Schema
    rows: tuple[tuple[str, Row], ...]  # (table, row)

    def without(self, start: int, stop: int) -> _Rows:
        return _Rows(self.schema, self.rows[:start] + self.rows[stop:])

    def image(self) -> bytes:
        with closing(engine.unguarded_image()) as connection:
            connection.execute("BEGIN")
            for table in self.schema.tables:
                connection.execute(create_table(table))
            for name, row in self.rows:
                connection.execute(f"INSERT INTO {quoted(name)} VALUES ({', '.join('?' * len(row))})", row)
            connection.execute("COMMIT")
            return connection.serialize("main")


def explain(
    plan: GoldPlan, answer: str, databases: Sequence[tuple[str, apsw.Connection, Callable[[], Schema]]]
) -> dict[str, Any]:
    """{"database", "shrunk", "tables": [...], "gold": table, "answer": table or {"error"}}.

    The first database that tells the two apart, generated ones first because they are small; where
    none does, the first. A table is {"columns", "rows", "of"}, values as JSON has them.
    """
    ordered = sorted(databases, key=lambda database: database[0] == "real")
    telling = next((d for d in ordered if _differ(d[1], plan, answer)), None)
    name, connection, read_schema = telling or ordered[0]
    found = read_schema()
    used = syntax.tables_used(syntax.parse(plan.sql)) | syntax.tables_used(syntax.parse_answer(answer))
    content = _content(connection, found, used)
    shrunk = telling is not None and content is not None and _runs(connection, answer)
    if shrunk and content is not None:
        content = _shrunk(content, plan, answer)
        with closing(engine.open_image(content.image())) as small:
            return _shown(name, True, small, found, used, plan, answer)
    return _shown(name, False, connection, found, used, plan, answer)


def _differ(connection: apsw.Connection, plan: GoldPlan, answer: str) -> bool:
    try:
        expected = gold.allowed(connection, plan, _LIMITS)
    except QueryError:
        return False
    try:
        return not compare.same([expected], [engine.run(connection, answer, _LIMITS)])
    except QueryError:
        return True


def _runs(connection: apsw.Connection, sql: str) -> bool:
    try:
        engine.run(connection, sql, _LIMITS)
    except QueryError:
        return False
    return True


def _content(connection: apsw.Connection, found: Schema, used: frozenset[str]) -> _Rows | None:
    rows: list[tuple[str, Row]] = []
    tables = [table for table in found.tables if table.name.lower() in used]
    for table in tables:
        try:
            content = engine.run(connection, f"SELECT * FROM {quoted(table.name)}", _LIMITS)
        except QueryError:
            return None
        rows += [(table.name, row) for row in content.rows]
    return _Rows(Schema(tuple(tables)), tuple(rows)) if len(rows) <= _MAX_SHRUNK_ROWS else None


def _shrunk(content: _Rows, plan: GoldPlan, answer: str) -> _Rows:
    """Fewer rows that still tell gold and answer apart: halves first, single rows last."""
    deadline = time.monotonic() + _SHRINKING_S
    for trial, (start, stop) in _cuts(content):
        smaller = content.without(start, stop)
        if trial > _MAX_TRIALS or time.monotonic() > deadline:
            break
        if _tells(smaller, plan, answer):
            content = smaller
    return content


def _cuts(content: _Rows) -> Iterator[tuple[int, tuple[int, int]]]:
    """Slices to try without, from behind, so that those yet to come stay where they are."""
    trial, size = 0, max(1, len(content.rows) // 2)
    while True:
        for stop in range(len(content.rows), 0, -size):
            trial += 1
            yield trial, (max(0, stop - size), stop)
        if size == 1:
            return
        size //= 2


def _tells(content: _Rows, plan: GoldPlan, answer: str) -> bool:
    try:
        with closing(engine.open_image(content.image())) as connection:
            return _runs(connection, answer) and _differ(connection, plan, answer)
    except apsw.Error:
        return False


def _shown(
    name: str,
    shrunk: bool,
    connection: apsw.Connection,
    found: Schema,
    used: frozenset[str],
    plan: GoldPlan,
    answer: str,
) -> dict[str, Any]:
    width = engine.run(connection, plan.sql, _LIMITS).width - plan.appended
    return {
        "database": name,
        "shrunk": shrunk,
        "tables": [
            {"name": table.name, **_result(connection, f"SELECT * FROM {quoted(table.name)}", None)}
            for table in found.tables
            if table.name.lower() in used
        ],
        "gold": _result(connection, plan.sql, width, plan),
        "answer": _result(connection, answer, None),
    }


def _result(
    connection: apsw.Connection, sql: str, width: int | None, plan: GoldPlan | None = None
) -> dict[str, Any]:
    try:
        table = engine.run(connection, sql, _LIMITS)
    except QueryError as error:
        return {"error": error.text()}
    rows = [row[:width] for row in table.rows]
    if plan is not None and plan.mode == "choice":
        rows = rows[plan.offset : None if plan.limit is None else plan.offset + plan.limit]
    return {
        "columns": [name[:60] for name in engine.column_names(connection, sql)][:width],
        "rows": [[_plain(value) for value in row] for row in rows[:SHOWN_ROWS]],
        "of": len(rows),
    }


def _plain(value: compare.Value) -> Any:
    if isinstance(value, bytes):
        return f"x'{value[:40].hex()}'"
    if isinstance(value, str):
        return value[:200].encode("utf-8", "replace").decode()
    return value


def schema_of(connect: Callable[[], apsw.Connection]) -> Schema:
    """The schema of a database, through a connection that may ask for it."""
    with closing(connect()) as connection:
        return schema.read(connection)
