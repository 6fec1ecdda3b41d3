"""Prepare a gold query for judging answers: its databases, and the results that it allows on each."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import apsw
from sqlglot import exp

from jobs.tasks.sql.execution import compare, connections, gold_plan, hardness, mutants, normal_form, syntax
from jobs.tasks.sql.execution.candidate_databases import (
    Builder,
    UntiedCandidates,
    candidate_builder,
    cuts_a_tie,
)
from jobs.tasks.sql.execution.database_generator import empty_database
from jobs.tasks.sql.execution.database_selection import (
    CANDIDATES,
    MUTANT_LIMITS,
    Selection,
    select_databases,
)
from jobs.tasks.sql.execution.equivalent_mutants import equivalence_rule
from jobs.tasks.sql.execution.gold_databases import find_schema, is_ambiguous, is_heavy, open_real_database
from jobs.tasks.sql.execution.gold_plan import GoldPlan
from jobs.tasks.sql.execution.gold_results import allowed_results, alternative_results, digest, to_json
from jobs.tasks.sql.execution.mutants import Mutant
from jobs.tasks.sql.execution.query_runner import QueryError, QueryLimits, run_query
from jobs.tasks.sql.execution.records import (
    GoldEntry,
    GoldReference,
    PrepareJob,
    StoredResults,
    SurvivingMutant,
)
from jobs.tasks.sql.execution.schema import Schema

#: Longer gold queries are run but not parsed.
_MAX_PARSED_CHARACTERS = 20_000
_LIMITS = QueryLimits()


@dataclass(frozen=True)
class _Gold:
    """A gold query with what is known of it; `used` are the tables it reads, empty if it does not parse."""

    sql: str
    tree: exp.Expression | None
    used: frozenset[str]
    schema: Schema | None
    real: apsw.Connection | None
    seed: int

    def tables(self, schema: Schema) -> frozenset[str]:
        """The tables to fill: those that the query reads, or all."""
        return self.used or frozenset(table.name.lower() for table in schema.tables)

    def candidates(self, schema: Schema) -> Builder:
        return candidate_builder(self.tree, schema, self.tables(schema), self.seed)

    def rule(self, mutant: Mutant) -> str | None:
        """The rule that proves a mutant equivalent."""
        if self.tree is None or self.schema is None:
            return None
        return equivalence_rule(mutant, self.tree, self.schema)


def prepare_gold(job: PrepareJob) -> GoldEntry:
    """The entry of one gold query."""
    tree = syntax.parse(job.sql) if len(job.sql) <= _MAX_PARSED_CHARACTERS else None
    used = syntax.tables_used(tree)
    problems: list[str] = []
    real = open_real_database(job, used, problems)
    gold = _Gold(job.sql, tree, used, find_schema(job, problems), real, job.seed)
    try:
        plan, selection = _plan(gold)
        ambiguous = real is not None and is_ambiguous(job.database or "", real, plan)
        heavy = real is not None and is_heavy(real, job.sql)
        expected = _expected(job, plan, real, ambiguous, selection.images)
    finally:
        if real is not None:
            real.close()
    reference = None
    columns = gold.schema.column_names if gold.schema is not None else frozenset()
    if real is not None or selection.images:
        reference = GoldReference(
            job.sql,
            plan,
            real is not None,
            tuple(expected),
            tuple(base64.b64encode(zlib.compress(image)).decode() for image in selection.images),
            tuple(sorted(columns)),
            normal_form.normalised(tree, columns),
        )
    elif gold.schema is not None:
        build = gold.candidates(gold.schema)
        problems.append(_why_no_candidate((build(n, False) for n in range(CANDIDATES)), job.sql))
    return GoldEntry(
        job.sql,
        reference,
        None if reference else "; ".join(problems) or "there is no database to run it on",
        ambiguous,
        heavy,
        hardness.hardness(tree),
        dict(selection.made),
        tuple(SurvivingMutant(m.kind, m.change, m.sql, gold.rule(m)) for m in selection.survivors),
    )


def _plan(gold: _Gold) -> tuple[GoldPlan, Selection]:
    """The plan and the generated databases; on all databases the plan allows the gold query's own result.

    sqlglot sometimes writes a different query. If the plan's text does not allow the gold's result, the mode is
    "exact".
    """
    plan, exact = gold_plan.plan_gold(gold.sql, gold.tree, gold.schema), GoldPlan(gold.sql, "exact")
    if gold.real is not None and not _allows_own_result(plan, gold.sql, gold.real):
        plan = exact
    if gold.schema is None:
        return plan, Selection()
    selection = _select(gold, gold.schema, plan)
    usable = bool(selection.images) or gold.real is not None
    if plan.mode == "choice" and not (usable and _allows_own_results(plan, gold.sql, selection.images)):
        return exact, _select(gold, gold.schema, exact)
    return plan, selection


def _select(gold: _Gold, schema: Schema, plan: GoldPlan) -> Selection:
    candidates = mutants.generate_mutants(gold.tree, schema) if gold.tree is not None else []
    equivalent = [gold.rule(mutant) is not None for mutant in candidates]
    build = gold.candidates(schema)
    if gold.real is not None and plan.limit is not None and not cuts_a_tie(gold.real, plan, _LIMITS):
        build = UntiedCandidates(build, plan, empty_database(schema))
    return select_databases(plan, candidates, gold.real, build, equivalent, gold.tables(schema))


def _allows_own_result(plan: GoldPlan, sql: str, connection: apsw.Connection) -> bool:
    if plan.mode != "choice":
        return True
    try:
        allowed = allowed_results(connection, plan, _LIMITS)
        return compare.same([allowed], [run_query(connection, sql, _LIMITS)])
    except QueryError:
        # The query without its LIMIT reaches a limit of ours, or the plan's text does not run.
        return False


def _allows_own_results(plan: GoldPlan, sql: str, images: Sequence[bytes]) -> bool:
    for image in images:
        with closing(connections.open_image(image)) as connection:
            if not _allows_own_result(plan, sql, connection):
                return False
    return True


def _why_no_candidate(images: Iterable[bytes], sql: str) -> str:
    """Why none of these databases was selected for a query that runs on their schema."""
    for image in images:
        try:
            with closing(connections.open_image(image)) as connection:
                run_query(connection, sql, MUTANT_LIMITS)
        except QueryError as error:
            return f"on generated databases: {error.text()}"
    return "on generated databases: its result cannot be told"


def _expected(
    job: PrepareJob, plan: GoldPlan, real: apsw.Connection | None, ambiguous: bool, images: Sequence[bytes]
) -> list[StoredResults]:
    """The results that the gold query allows on each database, the real one first."""
    stored = []
    if real is not None:
        results = None if ambiguous else to_json(allowed_results(real, plan, _LIMITS))
        digests: list[str] = []
        if results is None:
            digests = _digests(job.sql, real)
            if ambiguous:
                with closing(connections.open_file(Path(job.database or ""), reverse=True)) as reverse:
                    digests += _digests(job.sql, reverse)
        stored.append(StoredResults(results, tuple(digests), ambiguous))
    for image in images:
        with closing(connections.open_image(image)) as connection:
            nondeterministic = bool(alternative_results(connection, plan, _LIMITS))
            results = None if nondeterministic else to_json(allowed_results(connection, plan, _LIMITS))
            digests = _digests(job.sql, connection) if results is None else []
            stored.append(StoredResults(results, tuple(digests), nondeterministic))
    return stored


def _digests(sql: str, connection: apsw.Connection) -> list[str]:
    """The digest of what a query returns; empty if it fails."""
    with suppress(QueryError):
        return [digest(run_query(connection, sql, _LIMITS))]
    return []
