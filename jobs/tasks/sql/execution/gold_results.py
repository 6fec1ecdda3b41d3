"""What a gold query allows: its result on a database, with everything its order leaves open."""

from __future__ import annotations

import hashlib
import marshal
from contextlib import closing
from dataclasses import replace
from typing import Any

import apsw

from jobs.tasks.sql.execution import compare, connections, nondeterminism
from jobs.tasks.sql.execution.compare import Expected, Row, Segment, Table, Value
from jobs.tasks.sql.execution.gold_plan import GoldPlan
from jobs.tasks.sql.execution.query_runner import QueryError, QueryLimits, run_query

#: Values of a result that are kept with the gold query; of a bigger one its digest is.
_MAX_KEPT_VALUES = 1_000


def allowed_results(connection: apsw.Connection, plan: GoldPlan, limits: QueryLimits) -> Expected:
    """Every result that the gold query allows on this database. Raises QueryError."""
    table = run_query(connection, plan.sql, limits)
    if plan.mode == "bag":
        return compare.unordered(table)
    if plan.mode == "exact":
        return compare.in_order(table)
    width = table.width - plan.appended
    keys = [tuple(row[key] for key in plan.keys) for row in table.rows]
    rows = [row[:width] for row in table.rows] if plan.appended else table.rows
    return compare.grouped(Table(width, rows), keys, plan.offset, plan.limit)


def is_deterministic(image: bytes, plan: GoldPlan, expected: Expected, limits: QueryLimits) -> bool:
    """Whether chance has no part in what the gold query returns on a generated database.

    It has where a LIMIT in a subquery, or a column outside GROUP BY, picks one of several: no
    answer can be held against such a result. Seen by letting SQLite visit rows the other way
    round, and by `alternative_results`. Raises QueryError.
    """
    with closing(connections.open_image(image, reverse=True)) as connection:
        return same_results(expected, allowed_results(connection, plan, limits)) and not alternative_results(
            connection, plan, limits
        )


def alternative_results(connection: apsw.Connection, plan: GoldPlan, limits: QueryLimits) -> list[Expected]:
    """The results of the gold query's resolved variants (see nondeterminism.py); empty if they agree."""
    try:
        found = [
            allowed_results(connection, replace(plan, sql=sql), limits)
            for sql in nondeterminism.resolved_variants(plan.sql)
        ]
    except QueryError:
        # Of an odd query the changed one may be none, and then nothing is known.
        return []
    return found if found and not same_results(*found) else []


def same_results(first: Expected, second: Expected) -> bool:
    """Whether two sets of allowed results are the same set."""
    if [s.take for s in first.segments] != [s.take for s in second.segments]:
        return False
    return all(
        compare.same([compare.unordered(Table(first.width, a.rows))], [Table(second.width, b.rows)])
        for a, b in zip(first.segments, second.segments, strict=True)
    )


def to_json(expected: Expected) -> Any:
    """The allowed results as JSON, or None where they are too many to keep."""
    values = sum(len(segment.rows) for segment in expected.segments) * expected.width
    if values > _MAX_KEPT_VALUES:
        return None
    rows = [row for segment in expected.segments for row in segment.rows]
    blobs = any(isinstance(value, bytes) for row in rows for value in row)
    segments = [[[[_plain(v) for v in row] for row in s.rows], s.take] for s in expected.segments]
    return [expected.width, segments, blobs]


def from_json(value: Any) -> Expected:
    """What `to_json` wrote."""
    width, segments, blobs = value
    # Read with every answer, and blobs are rare.
    row = _row if blobs else tuple
    return Expected(width, tuple(Segment(list(map(row, rows)), take) for rows, take in segments))


def digest(table: Table) -> str:
    """What a table with the same rows in the same order has too: the same for one version of Python."""
    return hashlib.blake2b(marshal.dumps((table.width, list(table.rows)), 2), digest_size=16).hexdigest()


def _plain(value: Value) -> Any:
    return [value.hex()] if isinstance(value, bytes) else value


def _row(values: list[Any]) -> Row:
    return tuple(bytes.fromhex(value[0]) if isinstance(value, list) else value for value in values)
