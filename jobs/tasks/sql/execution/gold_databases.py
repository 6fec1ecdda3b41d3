"""The real database and the schema that a gold query runs on."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import apsw

from jobs.tasks.sql.execution import connections, schema
from jobs.tasks.sql.execution.database_generator import empty_database
from jobs.tasks.sql.execution.gold_plan import GoldPlan
from jobs.tasks.sql.execution.gold_results import allowed_results, alternative_results, same_results
from jobs.tasks.sql.execution.query_runner import QueryError, QueryLimits, run_query
from jobs.tasks.sql.execution.records import PrepareJob
from jobs.tasks.sql.execution.schema import Schema, SchemaError

_LIMITS = QueryLimits()
#: A gold query that needs more than this on the real database is heavy.
_LIGHT_LIMITS = QueryLimits(steps=10_000_000)


def open_real_database(job: PrepareJob, used: frozenset[str], problems: list[str]) -> apsw.Connection | None:
    """The real database, open; None if it cannot judge, with the reason appended to `problems`.

    It can if the gold query runs on it and one of the tables `used` has rows; if those are not known, if the
    query returns rows.
    """
    if job.database is None:
        return None
    try:
        connection = connections.open_file(Path(job.database))
    except apsw.Error as error:
        problems.append(f"the real database: {error}")
        return None
    try:
        result = run_query(connection, job.sql, _LIMITS)
        if (result.rows and not used) or any(_has_rows(connection, table) for table in sorted(used)):
            return connection
    except QueryError as error:
        problems.append(f"on the real database: {error.text()}")
    connection.close()
    return None


def _has_rows(connection: apsw.Connection, table: str) -> bool:
    try:
        return bool(run_query(connection, f"SELECT 1 FROM {schema.quoted(table)} LIMIT 1", _LIMITS).rows)
    except QueryError:
        return False


def find_schema(job: PrepareJob, problems: list[str]) -> Schema | None:
    """The first schema on which the gold query runs: the real database's, the full one, the prompt's."""
    if job.database is not None:
        try:
            with closing(connections.unguarded_file(Path(job.database))) as connection:
                found = schema.read(connection)
            if _runs(job.sql, found, problems):
                return found
        except apsw.Error as error:
            problems.append(f"the real database: {error}")
    for text in dict.fromkeys((job.schema, job.context)):
        try:
            found = schema.from_text(text)
        except SchemaError as error:
            problems.append(f"the schema: {error}")
            continue
        if found.tables and _runs(job.sql, found, problems):
            return found
    return None


def _runs(sql: str, found: Schema, problems: list[str]) -> bool:
    """Whether a query runs on an empty database with this schema."""
    try:
        with closing(connections.open_image(empty_database(found))) as connection:
            run_query(connection, sql, _LIMITS)
        return True
    except QueryError as error:
        if error.text() not in problems:
            problems.append(error.text())
        return False


def is_heavy(real: apsw.Connection, sql: str) -> bool:
    """Whether a query needs more steps on the real database than most."""
    try:
        run_query(real, sql, _LIGHT_LIMITS)
    except QueryError as error:
        return error.kind == "too slow"
    return False


def is_ambiguous(path: str, real: apsw.Connection, plan: GoldPlan) -> bool:
    """Whether the gold query's result on the real database is nondeterministic (see gold_results.py)."""
    try:
        with closing(connections.open_file(Path(path), reverse=True)) as reverse:
            if not same_results(
                allowed_results(real, plan, _LIMITS), allowed_results(reverse, plan, _LIMITS)
            ):
                return True
            return bool(alternative_results(real, plan, _LIMITS))
    except QueryError:
        return True
