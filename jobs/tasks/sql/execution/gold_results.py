"""The results that a gold query allows on a database: all those its ORDER BY and LIMIT leave open."""

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

#: Of a result with more values only the digest is stored.
_MAX_STORED_VALUES = 1_000


def allowed_results(connection: apsw.Connection, plan: GoldPlan, limits: QueryLimits) -> Expected:
    """All results that the gold query allows on this database. Raises QueryError."""
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
    """Whether the gold query's result on a generated database is deterministic. Raises QueryError.

    It is not if a LIMIT in a subquery or a column outside GROUP BY picks one of several rows. Detected by
    reversing the order in which SQLite visits rows, and by `alternative_results`.
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
        # The variant of an unusual query may not run; then nothing is known.
        return []
    return found if found and not same_results(*found) else []


def same_results(first: Expected, second: Expected) -> bool:
    """Whether both allow the same results."""
    if [s.take for s in first.segments] != [s.take for s in second.segments]:
        return False
    return all(
        compare.same([compare.unordered(Table(first.width, a.rows))], [Table(second.width, b.rows)])
        for a, b in zip(first.segments, second.segments, strict=True)
    )


def to_json(expected: Expected) -> Any:
    """The allowed results as JSON; None if they have too many values."""
    values = sum(len(segment.rows) for segment in expected.segments) * expected.width
    if values > _MAX_STORED_VALUES:
        return None
    rows = [row for segment in expected.segments for row in segment.rows]
    blobs = any(isinstance(value, bytes) for row in rows for value in row)
    segments = [[[[_plain(v) for v in row] for row in s.rows], s.take] for s in expected.segments]
    return [expected.width, segments, blobs]


def from_json(value: Any) -> Expected:
    """What `to_json` wrote."""
    width, segments, blobs = value
    # This runs for every answer, and blobs are rare.
    row = _row if blobs else tuple
    return Expected(width, tuple(Segment(list(map(row, rows)), take) for rows, take in segments))


def digest(table: Table) -> str:
    """A digest of the rows in their order; depends on the version of Python (marshal)."""
    return hashlib.blake2b(marshal.dumps((table.width, list(table.rows)), 2), digest_size=16).hexdigest()


def _plain(value: Value) -> Any:
    return [value.hex()] if isinstance(value, bytes) else value


def _row(values: list[Any]) -> Row:
    return tuple(bytes.fromhex(value[0]) if isinstance(value, list) else value for value in values)
