"""Proof of a verdict: a database made as small as it will go, and what gold and answer return on it.

Whatever of it cannot be had is left out and named: a proof is for a person, who has the verdict already.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import apsw

from jobs.tasks.sql.execution import compare, engine, gold_results, schema, syntax
from jobs.tasks.sql.execution.compare import Expected, Row
from jobs.tasks.sql.execution.engine import QueryError, QueryLimits
from jobs.tasks.sql.execution.schema import Schema, create_table, quoted
from jobs.tasks.sql.execution.syntax import GoldPlan

#: A database as it is gets what an answer may use; of those made smaller there are many.
_LIMITS = QueryLimits(steps=40_000_000, cpu_s=4.0, rows=50_000, content_bytes=16 << 20)
_SHRINKING_LIMITS = QueryLimits(steps=5_000_000, cpu_s=1.0, rows=50_000, content_bytes=16 << 20)
#: Bigger databases are shown as they are: copying them to take rows away would take longer than anybody waits.
_MAX_SHRUNK_ROWS = 3_000
_MAX_TRIALS = 1_500
_SHRINKING_S = 5.0
#: Rows shown of any table.
SHOWN_ROWS = 20
#: What a database, a text or a query out of the ordinary can raise here.
_ODDITIES = (QueryError, UnicodeError, apsw.Error)

#: Name, connection, and how to ask for the schema.
Database = tuple[str, apsw.Connection, Callable[[], Schema]]


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
                places, values = zip(*map(_bound, row), strict=True)
                connection.execute(f"INSERT INTO {quoted(name)} VALUES ({', '.join(places)})", values)
            connection.execute("COMMIT")
            return connection.serialize("main")


def _bound(value: compare.Value) -> tuple[str, compare.Value]:
    """The placeholder and the value to bind; text that is not UTF-8 (see engine.run) goes in as its bytes."""
    if isinstance(value, str) and not value.isascii():
        encoded = value.encode("utf-8", "surrogateescape")
        if encoded.decode("utf-8", "replace") != value:
            return "CAST(? AS TEXT)", encoded
    return "?", value


@dataclass(frozen=True)
class _Finding:
    """What one database says of gold and answer."""

    differ: bool = False
    answered: bool = False
    #: Whether chance has a part in the gold's own result.
    chance: bool = False
    problem: str | None = None

    @property
    def tells(self) -> bool:
        return self.differ and not self.chance

    def note(self) -> str | None:
        """What must be said, or the tables shown would mislead."""
        if self.chance and self.differ:
            return "the gold's own result is chance here; the answer is none of those it can be"
        if self.chance:
            return "the gold's own result is chance here; either is right"
        return self.problem


def explain(plan: GoldPlan, answer: str, databases: Sequence[Database]) -> dict[str, Any]:
    """{"database", "shrunk", "note", "tables": [...], "gold": table, "answer": table}, a table perhaps {"error"}.

    The first database that tells the two apart, generated ones first because they are small; where
    none does, the first on which that is chance or cannot be known; else the first. A table is
    {"columns", "rows", "of"}, values as JSON has them. "note" is None, or says why the database is
    not made smaller, or why gold and answer may differ on it.
    """
    ordered = sorted(databases, key=lambda database: database[0] == "real")
    (name, connection, read_schema), finding = _chosen(ordered, plan, answer)
    found = read_schema()
    used = syntax.tables_used(syntax.parse(plan.sql)) | syntax.tables_used(syntax.parse_answer(answer))
    note = finding.note()
    if finding.tells and finding.answered:
        try:
            image = _shrunk(_content(connection, found, used), plan, answer).image()
            with closing(engine.open_image(image)) as small:
                return _shown(name, True, None, small, found, used, plan, answer)
        except _ODDITIES as error:
            note = f"not made smaller: {error.text() if isinstance(error, QueryError) else error}"
    return _shown(name, False, note, connection, found, used, plan, answer)


def _chosen(databases: Sequence[Database], plan: GoldPlan, answer: str) -> tuple[Database, _Finding]:
    seen = []
    for database in databases:
        finding = _finding(database[1], plan, answer, _LIMITS)
        if finding.tells:
            return database, finding
        seen.append((database, finding))
    return next((pair for pair in seen if pair[1].note()), seen[0])


def _finding(connection: apsw.Connection, plan: GoldPlan, answer: str, limits: QueryLimits) -> _Finding:
    try:
        choices = _choices(connection, plan, limits)
    except QueryError as error:
        return _Finding(problem=f"whether they differ here is not known: the gold query is {error.text()}")
    chance = len(choices) > 1
    try:
        given = engine.run(connection, answer, limits)
    except QueryError:
        return _Finding(differ=True, chance=chance)
    differ = not any(compare.same([choice], [given]) for choice in choices)
    return _Finding(differ, answered=True, chance=chance)


def _choices(connection: apsw.Connection, plan: GoldPlan, limits: QueryLimits) -> list[Expected]:
    """What the gold query allows; several where chance has a part in it. Raises QueryError."""
    forwards = gold_results.allowed_results(connection, plan, limits)
    with _backwards(connection):
        backwards = gold_results.allowed_results(connection, plan, limits)
    others = gold_results.alternative_results(connection, plan, limits)
    if not others and gold_results.same_results(forwards, backwards):
        return [forwards]
    return [forwards, backwards, *others]


@contextmanager
def _backwards(connection: apsw.Connection) -> Iterator[None]:
    """Rows whose order no query fixes come the other way round."""
    _reverse(connection, "ON")
    try:
        yield
    finally:
        _reverse(connection, "OFF")


def _reverse(connection: apsw.Connection, switch: str) -> None:
    # The authorizer lets no PRAGMA pass; this one is ours.
    authorizer, connection.authorizer = connection.authorizer, None
    try:
        connection.execute(f"PRAGMA reverse_unordered_selects={switch}")
    finally:
        connection.authorizer = authorizer


def _content(connection: apsw.Connection, found: Schema, used: frozenset[str]) -> _Rows:
    """The rows to take away from. Raises QueryError, for too many of them as well."""
    rows: list[tuple[str, Row]] = []
    tables = [table for table in found.tables if table.name.lower() in used]
    for table in tables:
        content = engine.run(connection, f"SELECT * FROM {quoted(table.name)}", _LIMITS)
        rows += [(table.name, row) for row in content.rows]
    if len(rows) > _MAX_SHRUNK_ROWS:
        raise QueryError("too large", f"more than {_MAX_SHRUNK_ROWS} rows")
    return _Rows(Schema(tuple(tables)), tuple(rows))


def _shrunk(content: _Rows, plan: GoldPlan, answer: str) -> _Rows:
    """Fewer rows that still tell gold and answer apart: halves first, single rows last.

    Raises QueryError where a copy of them all does not.
    """
    deadline = time.monotonic() + _SHRINKING_S
    if not _tells(content, plan, answer):
        raise QueryError(
            "does not tell", "gold and answer do not differ on a copy of these tables, or not in time"
        )
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
            finding = _finding(connection, plan, answer, _SHRINKING_LIMITS)
    except _ODDITIES:
        return False
    return finding.tells and finding.answered


def _shown(
    name: str,
    shrunk: bool,
    note: str | None,
    connection: apsw.Connection,
    found: Schema,
    used: frozenset[str],
    plan: GoldPlan,
    answer: str,
) -> dict[str, Any]:
    return {
        "database": name,
        "shrunk": shrunk,
        "note": note,
        "tables": [
            {"name": table.name, **_result(connection, f"SELECT * FROM {quoted(table.name)}")}
            for table in found.tables
            if table.name.lower() in used
        ],
        "gold": _result(connection, plan.sql, plan),
        "answer": _result(connection, answer),
    }


def _result(connection: apsw.Connection, sql: str, plan: GoldPlan | None = None) -> dict[str, Any]:
    try:
        table = engine.run(connection, sql, _LIMITS)
        names = engine.column_names(connection, sql)
    except QueryError as error:
        return {"error": error.text()}
    width = table.width - (plan.appended if plan is not None else 0)
    rows = [row[:width] for row in table.rows]
    if plan is not None and plan.mode == "choice":
        rows = rows[plan.offset : None if plan.limit is None else plan.offset + plan.limit]
    return {
        "columns": [name[:60] for name in names[:width]],
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
