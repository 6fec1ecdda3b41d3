"""Numbered candidate databases for a gold query, from which database_selection.py selects."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from itertools import islice

import apsw
from sqlglot import exp

from jobs.tasks.sql.execution import connections, database_generator, query_constraints
from jobs.tasks.sql.execution.database_selection import MUTANT_LIMITS
from jobs.tasks.sql.execution.gold_plan import GoldPlan
from jobs.tasks.sql.execution.gold_results import allowed_results
from jobs.tasks.sql.execution.query_runner import QueryError, QueryLimits
from jobs.tasks.sql.execution.schema import Schema

#: (number, fill_all) -> database image; with `fill_all` the tables that the gold query does not read have rows too.
Builder = Callable[[int, bool], bytes]
_MAX_UNTIED_TRIALS = 200


def candidate_builder(
    tree: exp.Expression | None, schema: Schema, tables: frozenset[str], seed: int
) -> Builder:
    """Candidates with rows in `tables` that the gold query's conditions tell apart."""
    constraints = (
        query_constraints.constraints_of(tree, schema)
        if tree is not None
        else query_constraints.QueryConstraints()
    )

    def build(variant: int, fill_all: bool) -> bytes:
        return database_generator.generate_database(
            schema, tables, constraints, seed, variant, fill_all=fill_all
        )

    return build


class UntiedCandidates:
    """A Builder of those candidates on which the gold's LIMIT cuts no tie; an empty database once they run out.

    Used if it cuts none on the real database: then `age = (SELECT max(age) …)` answers "the oldest" as well
    as `ORDER BY age DESC LIMIT 1`, and a tie on a generated database must not tell them apart.
    """

    def __init__(self, build: Builder, plan: GoldPlan, empty: bytes) -> None:
        self._build, self._plan, self._empty = build, plan, empty
        self._variants = filter(self._is_untied, range(_MAX_UNTIED_TRIALS))
        self._found: list[int] = []

    def __call__(self, number: int, fill_all: bool) -> bytes:
        self._found += islice(self._variants, max(0, number + 1 - len(self._found)))
        return self._build(self._found[number], fill_all) if number < len(self._found) else self._empty

    def _is_untied(self, variant: int) -> bool:
        with closing(connections.open_image(self._build(variant, False))) as connection:
            return not cuts_a_tie(connection, self._plan, MUTANT_LIMITS)


def cuts_a_tie(connection: apsw.Connection, plan: GoldPlan, limits: QueryLimits) -> bool:
    """Whether LIMIT takes some of several rows with equal sort keys."""
    try:
        segments = allowed_results(connection, plan, limits).segments
    except QueryError:
        return False
    return any(segment.take < len(segment.rows) for segment in segments)
