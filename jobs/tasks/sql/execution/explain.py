"""Explain a verdict: a database reduced to few rows, and what gold and answer return on it.

If a part cannot be computed, the explanation says so and has the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import apsw

from jobs.tasks.sql.execution import compare, connections, gold_results, schema, syntax
from jobs.tasks.sql.execution.compare import Expected, Row
from jobs.tasks.sql.execution.explanation import SHOWN_ROWS, Explanation, Failed, ShownTable
from jobs.tasks.sql.execution.gold_plan import GoldPlan
from jobs.tasks.sql.execution.query_runner import QueryError, QueryLimits, column_names, run_query
from jobs.tasks.sql.execution.schema import Schema, create_table, quoted

#: On a database as it is; reduced ones are many and get less.
_LIMITS = QueryLimits(steps=40_000_000, cpu_s=4.0, rows=50_000, content_bytes=16 << 20)
_REDUCTION_LIMITS = QueryLimits(steps=5_000_000, cpu_s=1.0, rows=50_000, content_bytes=16 << 20)
#: Databases with more rows are not reduced: copying them for each trial takes too long.
_MAX_REDUCED_ROWS = 3_000
_MAX_TRIALS = 1_500
_REDUCTION_S = 5.0
#: What unusual databases, texts and queries raise here.
_EXPECTED_ERRORS = (QueryError, UnicodeError, apsw.Error)


class Database(NamedTuple):
    """A database to explain on; `read_schema` opens a connection of its own."""

    name: str
    connection: apsw.Connection
    read_schema: Callable[[], Schema]


@dataclass(frozen=True)
class _Rows:
    """The rows of the tables that gold and answer read."""

    schema: Schema
    rows: tuple[tuple[str, Row], ...]  # (table, row)

    def without(self, start: int, stop: int) -> _Rows:
        return _Rows(self.schema, self.rows[:start] + self.rows[stop:])

    def image(self) -> bytes:
        with closing(connections.unguarded_image()) as connection:
            connection.execute("BEGIN")
            for table in self.schema.tables:
                connection.execute(create_table(table))
            for name, row in self.rows:
                places, values = zip(*map(_bound, row), strict=True)
                connection.execute(f"INSERT INTO {quoted(name)} VALUES ({', '.join(places)})", values)
            connection.execute("COMMIT")
            return connection.serialize("main")


def _bound(value: compare.Value) -> tuple[str, compare.Value]:
    """The placeholder and the value to bind; text that is not UTF-8 (see run_query) is bound as bytes."""
    if isinstance(value, str) and not value.isascii():
        encoded = value.encode("utf-8", "surrogateescape")
        if encoded.decode("utf-8", "replace") != value:
            return "CAST(? AS TEXT)", encoded
    return "?", value


@dataclass(frozen=True)
class _Finding:
    """How gold and answer compare on one database; `answered`: the answer's query runs."""

    differ: bool = False
    answered: bool = False
    nondeterministic_gold: bool = False
    problem: str | None = None

    @property
    def distinguishes(self) -> bool:
        return self.differ and not self.nondeterministic_gold

    def note(self) -> str | None:
        """What the reader must know to read the tables right."""
        if self.nondeterministic_gold and self.differ:
            return "the gold query is nondeterministic here, and the answer returns none of its results"
        if self.nondeterministic_gold:
            return "the gold query is nondeterministic here; either result is right"
        return self.problem


def explain(plan: GoldPlan, answer: str, databases: Sequence[Database]) -> Explanation:
    """Explain on the first database that distinguishes gold and answer, generated ones first: they are small.

    If none does, on the first on which the gold's result is nondeterministic or unknown, else on the first.
    """
    ordered = sorted(databases, key=lambda database: database.name == "real")
    (name, connection, read_schema), finding = _choose(ordered, plan, answer)
    found = read_schema()
    used = syntax.tables_used(syntax.parse(plan.sql)) | syntax.tables_used(syntax.parse_answer(answer))
    note = finding.note()
    if finding.distinguishes and finding.answered:
        try:
            image = _reduce(_content(connection, found, used), plan, answer).image()
            with closing(connections.open_image(image)) as small:
                return _shown(name, True, None, small, found, used, plan, answer)
        except _EXPECTED_ERRORS as error:
            note = f"not reduced: {error.text() if isinstance(error, QueryError) else error}"
    return _shown(name, False, note, connection, found, used, plan, answer)


def _choose(databases: Sequence[Database], plan: GoldPlan, answer: str) -> tuple[Database, _Finding]:
    seen = []
    for database in databases:
        finding = _finding(database.connection, plan, answer, _LIMITS)
        if finding.distinguishes:
            return database, finding
        seen.append((database, finding))
    return next((pair for pair in seen if pair[1].note()), seen[0])


def _finding(connection: apsw.Connection, plan: GoldPlan, answer: str, limits: QueryLimits) -> _Finding:
    try:
        choices = _choices(connection, plan, limits)
    except QueryError as error:
        return _Finding(problem=f"the results cannot be compared here: the gold query is {error.text()}")
    nondeterministic = len(choices) > 1
    try:
        given = run_query(connection, answer, limits)
    except QueryError:
        return _Finding(differ=True, nondeterministic_gold=nondeterministic)
    differ = not any(compare.same([choice], [given]) for choice in choices)
    return _Finding(differ, answered=True, nondeterministic_gold=nondeterministic)


def _choices(connection: apsw.Connection, plan: GoldPlan, limits: QueryLimits) -> list[Expected]:
    """The results that the gold query allows; several if it is nondeterministic. Raises QueryError."""
    forward = gold_results.allowed_results(connection, plan, limits)
    with _reversed_order(connection):
        backward = gold_results.allowed_results(connection, plan, limits)
    others = gold_results.alternative_results(connection, plan, limits)
    if not others and gold_results.same_results(forward, backward):
        return [forward]
    return [forward, backward, *others]


@contextmanager
def _reversed_order(connection: apsw.Connection) -> Iterator[None]:
    """Set PRAGMA reverse_unordered_selects inside the block."""
    _set_reverse(connection, "ON")
    try:
        yield
    finally:
        _set_reverse(connection, "OFF")


def _set_reverse(connection: apsw.Connection, switch: str) -> None:
    # The authorizer denies every PRAGMA.
    authorizer, connection.authorizer = connection.authorizer, None
    try:
        connection.execute(f"PRAGMA reverse_unordered_selects={switch}")
    finally:
        connection.authorizer = authorizer


def _content(connection: apsw.Connection, found: Schema, used: frozenset[str]) -> _Rows:
    """The rows of the tables `used`. Raises QueryError, also if there are more than _MAX_REDUCED_ROWS."""
    rows: list[tuple[str, Row]] = []
    tables = [table for table in found.tables if table.name.lower() in used]
    for table in tables:
        content = run_query(connection, f"SELECT * FROM {quoted(table.name)}", _LIMITS)
        rows += [(table.name, row) for row in content.rows]
    if len(rows) > _MAX_REDUCED_ROWS:
        raise QueryError("too large", f"more than {_MAX_REDUCED_ROWS} rows")
    return _Rows(Schema(tuple(tables)), tuple(rows))


def _reduce(content: _Rows, plan: GoldPlan, answer: str) -> _Rows:
    """Fewer rows that still distinguish gold and answer, by delta debugging: halves first, single rows last.

    Raises QueryError if a copy of all rows does not distinguish them.
    """
    deadline_s = time.monotonic() + _REDUCTION_S
    if not _distinguish(content, plan, answer):
        raise QueryError(
            "does not tell",
            "gold and answer do not differ on a copy of these tables, or a query reached a limit",
        )
    for trial, (start, stop) in _cuts(content):
        smaller = content.without(start, stop)
        if trial > _MAX_TRIALS or time.monotonic() > deadline_s:
            break
        if _distinguish(smaller, plan, answer):
            content = smaller
    return content


def _cuts(content: _Rows) -> Iterator[tuple[int, tuple[int, int]]]:
    """(trial number, slice to remove), from the end so that later slices keep their positions."""
    trial, size = 0, max(1, len(content.rows) // 2)
    while True:
        for stop in range(len(content.rows), 0, -size):
            trial += 1
            yield trial, (max(0, stop - size), stop)
        if size == 1:
            return
        size //= 2


def _distinguish(content: _Rows, plan: GoldPlan, answer: str) -> bool:
    try:
        with closing(connections.open_image(content.image())) as connection:
            finding = _finding(connection, plan, answer, _REDUCTION_LIMITS)
    except _EXPECTED_ERRORS:
        return False
    return finding.distinguishes and finding.answered


def _shown(
    name: str,
    reduced: bool,
    note: str | None,
    connection: apsw.Connection,
    found: Schema,
    used: frozenset[str],
    plan: GoldPlan,
    answer: str,
) -> Explanation:
    return Explanation(
        name,
        reduced,
        note,
        [
            (table.name, _result(connection, f"SELECT * FROM {quoted(table.name)}"))
            for table in found.tables
            if table.name.lower() in used
        ],
        _result(connection, plan.sql, plan),
        _result(connection, answer),
    )


def _result(connection: apsw.Connection, sql: str, plan: GoldPlan | None = None) -> ShownTable | Failed:
    try:
        table = run_query(connection, sql, _LIMITS)
        names = column_names(connection, sql)
    except QueryError as error:
        return Failed(error.text())
    width = table.width - (plan.appended if plan is not None else 0)
    rows = [row[:width] for row in table.rows]
    if plan is not None and plan.mode == "choice":
        rows = rows[plan.offset : None if plan.limit is None else plan.offset + plan.limit]
    return ShownTable(
        [name[:60] for name in names[:width]],
        [[_json_value(value) for value in row] for row in rows[:SHOWN_ROWS]],
        len(rows),
    )


def _json_value(value: compare.Value) -> compare.Value:
    if isinstance(value, bytes):
        return f"x'{value[:40].hex()}'"
    if isinstance(value, str):
        return value[:200].encode("utf-8", "replace").decode()
    return value


def read_schema(connect: Callable[[], apsw.Connection]) -> Schema:
    """The schema of a database, read through an unguarded connection."""
    with closing(connect()) as connection:
        return schema.read(connection)
