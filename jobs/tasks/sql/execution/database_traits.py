"""Traits of a database's content that tell queries apart: NULLs, ties, spellings."""

from __future__ import annotations

from collections.abc import Set
from contextlib import closing
from dataclasses import dataclass

from jobs.tasks.sql.execution import connections
from jobs.tasks.sql.execution.compare import Expected
from jobs.tasks.sql.execution.query_runner import QueryLimits, run_query
from jobs.tasks.sql.execution.schema import quoted

_LIMITS = QueryLimits()


@dataclass(frozen=True)
class Traits:
    """Each is 0 if the database has nothing of it; larger is more."""

    nulls: float = 0.0  # share of values
    ties: float = 0.0  # share of values that repeat an earlier one of their column
    spellings: int = 0  # texts that differ from another of their column only in case
    shown_nulls: int = 0  # NULLs in the rows from which the gold query's result is taken


def database_traits(image: bytes, tables: Set[str], expected: Expected) -> Traits:
    """The traits of a generated database in `tables` (lower-case names), and of the gold's result on it."""
    with closing(connections.open_image(image)) as connection:
        names = run_query(connection, "SELECT name FROM sqlite_schema WHERE type = 'table'", _LIMITS)
        contents = [
            run_query(connection, f"SELECT * FROM {quoted(str(name))}", _LIMITS)
            for (name,) in names.rows
            if str(name).lower() in tables
        ]
    columns = [column for content in contents for column in zip(*content.rows, strict=True)]
    values = sum(map(len, columns))
    shown_nulls = sum(value is None for segment in expected.segments for row in segment.rows for value in row)
    if not values:
        return Traits(shown_nulls=shown_nulls)
    present = [[value for value in column if value is not None] for column in columns]
    texts = [{value for value in column if isinstance(value, str)} for column in present]
    return Traits(
        nulls=1 - sum(map(len, present)) / values,
        ties=sum(len(column) - len(set(column)) for column in present) / values,
        spellings=sum(len(some) - len({text.casefold() for text in some}) for some in texts),
        shown_nulls=shown_nulls,
    )
