"""A gold query made ready to judge answers: does it run, on what databases, what does its order leave open."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import apsw
from sqlglot import exp

from jobs.tasks.sql.execution import (
    compare,
    database_generator,
    engine,
    hardness,
    mutants,
    query_constraints,
    schema,
    syntax,
)
from jobs.tasks.sql.execution.database_selection import CANDIDATES, MUTANT_LIMITS, Selection, select_databases
from jobs.tasks.sql.execution.engine import QueryError, QueryLimits
from jobs.tasks.sql.execution.equivalent_mutants import equivalence_rule
from jobs.tasks.sql.execution.gold_results import (
    allowed_results,
    alternative_results,
    digest,
    same_results,
    to_json,
)
from jobs.tasks.sql.execution.schema import Schema, SchemaError
from jobs.tasks.sql.execution.syntax import GoldPlan

#: Longer gold queries are run but not parsed.
_MAX_PARSED_CHARACTERS = 20_000
_LIMITS = QueryLimits()
#: Makes a candidate of that number, on demand with rows in tables too that the gold query does not read.
_Builder = Callable[[int, bool], bytes]
#: Candidates looked at for some without ties.
_MOST_TRIED = 200
#: A gold query that needs more on the real database is heavy: answers that do the same need as much.
_LIGHT_LIMITS = QueryLimits(steps=10_000_000)


def prepare_gold(job: dict[str, Any]) -> dict[str, Any]:
    """The entry of one gold query.

    `job`: {"sql", "database": path or None, "schema": text, "context": text, "seed"}. The entry:
    {"sql", "valid", "problem", "plan", "real": whether the real database is used, "ambiguous":
    whether chance has a part in its result there, "heavy": whether it needs more steps there than most,
    "images": generated databases, "expected": what
    it allows on each database (see gold.py), or {"digests": of results it has returned there, "chance": whether
    others are as right} where that is too much to keep, "columns",
    "normalised", "hardness", "mutants": {kind: made}, "survivors": [[kind, change, sql, rule]]}.
    """
    gold = job["sql"]
    tree = syntax.parse(gold) if len(gold) <= _MAX_PARSED_CHARACTERS else None
    used = syntax.tables_used(tree)
    problems: list[str] = []
    real = _usable_real(job, used, problems)
    found = _schema(job, gold, problems)
    try:
        plan, choice = _planned(job, tree, found, used, real)
        ambiguous = real is not None and _is_ambiguous(job["database"], real, plan)
        heavy = real is not None and _is_heavy(real, gold)
        expected = _expected(job, plan, real, ambiguous, choice.images)
    finally:
        if real is not None:
            real.close()
    valid = real is not None or bool(choice.images)
    if not valid and found is not None:
        build = _builder(tree, found, used, job["seed"])
        problems.append(_why_none((build(variant, False) for variant in range(CANDIDATES)), gold))
    columns = found.column_names if found is not None else frozenset()
    return {
        "sql": gold,
        "valid": valid,
        "problem": None if valid else "; ".join(problems) or "there is no database to run it on",
        "plan": asdict(plan),
        "real": real is not None,
        "ambiguous": ambiguous,
        "heavy": heavy,
        "expected": expected,
        "images": [base64.b64encode(zlib.compress(image)).decode() for image in choice.images],
        "columns": sorted(columns),
        "normalised": syntax.normalised(tree, columns),
        "hardness": hardness.hardness(tree),
        "mutants": dict(choice.made),
        "survivors": [
            [
                m.kind,
                m.change,
                m.sql,
                equivalence_rule(m, tree, found) if tree is not None and found is not None else None,
            ]
            for m in choice.survivors
        ],
    }


def _planned(
    job: dict[str, Any],
    tree: exp.Expression | None,
    found: Schema | None,
    used: frozenset[str],
    real: apsw.Connection | None,
) -> tuple[GoldPlan, Selection]:
    """The plan, and the generated databases to judge on: on all of them the plan allows what the gold returns.

    A plan's text is sqlglot's, and not always the same query: then the gold's own rows in their order have to do.
    """
    gold: str = job["sql"]
    plan, exact = syntax.gold_plan(gold, tree, found), GoldPlan(gold, "exact")
    if real is not None and not _holds(plan, gold, real):
        plan = exact
    if found is None:
        return plan, Selection()
    choice = _chosen(job, tree, plan, found, used, real)
    usable = bool(choice.images) or real is not None
    if plan.mode == "choice" and not (usable and _holds_on(choice.images, plan, gold)):
        return exact, _chosen(job, tree, exact, found, used, real)
    return plan, choice


def _chosen(
    job: dict[str, Any],
    tree: exp.Expression | None,
    plan: GoldPlan,
    found: Schema,
    used: frozenset[str],
    real: apsw.Connection | None,
) -> Selection:
    """The generated databases to judge on, and what became of the mutants."""
    candidates = mutants.generate_mutants(tree, found) if tree is not None else []
    spared = [tree is not None and equivalence_rule(mutant, tree, found) is not None for mutant in candidates]
    build = _builder(tree, found, used, job["seed"])
    if real is not None and plan.limit is not None and not _cuts_a_tie(real, plan, _LIMITS):
        build = _Untied(build, plan, _without_rows(found))
    return select_databases(plan, candidates, real, build, spared, _read(found, used))


def _builder(tree: exp.Expression | None, found: Schema, used: frozenset[str], seed: int) -> _Builder:
    """What makes candidates for a gold query."""
    known = (
        query_constraints.constraints_of(tree, found)
        if tree is not None
        else query_constraints.QueryConstraints()
    )
    tables = _read(found, used)

    def build(variant: int, fill_all: bool) -> bytes:
        return database_generator.generate_database(found, tables, known, seed, variant, fill_all=fill_all)

    return build


class _Untied:
    """Candidates on which the gold's LIMIT leaves no choice; when there are no more, one without rows.

    "The oldest" is one person where nobody is as old, and there `age = (SELECT max(age) …)` is right as well:
    what the real database leaves to no chance, no generated one beside it makes a difference of.
    """

    def __init__(self, build: _Builder, plan: GoldPlan, without_rows: bytes) -> None:
        self._build, self._plan, self._without_rows = build, plan, without_rows
        self._variants = filter(self._is_untied, range(_MOST_TRIED))
        self._found: list[int] = []

    def __call__(self, number: int, fill_all: bool) -> bytes:
        self._found += islice(self._variants, max(0, number + 1 - len(self._found)))
        return self._build(self._found[number], fill_all) if number < len(self._found) else self._without_rows

    def _is_untied(self, variant: int) -> bool:
        with closing(engine.open_image(self._build(variant, False))) as connection:
            return not _cuts_a_tie(connection, self._plan, MUTANT_LIMITS)


def _cuts_a_tie(connection: apsw.Connection, plan: GoldPlan, limits: QueryLimits) -> bool:
    try:
        return any(
            segment.take < len(segment.rows) for segment in allowed_results(connection, plan, limits).segments
        )
    except QueryError:
        return False


def _read(found: Schema, used: frozenset[str]) -> frozenset[str]:
    """The tables that the gold query reads, all where that is not known."""
    return used or frozenset(table.name.lower() for table in found.tables)


def _why_none(candidates: Iterable[bytes], gold: str) -> str:
    """Why a gold query that runs on the schema has no generated database."""
    for image in candidates:
        try:
            with closing(engine.open_image(image)) as connection:
                engine.run(connection, gold, MUTANT_LIMITS)
        except QueryError as error:
            return f"on generated databases: {error.text()}"
    return "on generated databases: its result cannot be told"


def _expected(
    job: dict[str, Any],
    plan: GoldPlan,
    real: apsw.Connection | None,
    ambiguous: bool,
    images: Sequence[bytes],
) -> list[Any]:
    """What the gold query allows on each database, the real one first; digests where that is not kept."""
    kept = []
    if real is not None:
        found = None if ambiguous else to_json(allowed_results(real, plan, _LIMITS))
        if found is None:
            digests = _digests(job["sql"], [real])
            if ambiguous:
                with closing(engine.open_file(Path(job["database"]), reverse=True)) as reverse:
                    digests += _digests(job["sql"], [reverse])
            found = {"digests": digests, "chance": ambiguous}
        kept.append(found)
    for image in images:
        with closing(engine.open_image(image)) as connection:
            chance = bool(alternative_results(connection, plan, _LIMITS))
            found = None if chance else to_json(allowed_results(connection, plan, _LIMITS))
            kept.append(found or {"digests": _digests(job["sql"], [connection]), "chance": chance})
    return kept


def _digests(sql: str, connections: Sequence[apsw.Connection]) -> list[str]:
    """Of what the gold query itself returns; a result that cannot be had again has none."""
    found = []
    for connection in connections:
        with suppress(QueryError):
            found.append(digest(engine.run(connection, sql, _LIMITS)))
    return found


def _usable_real(job: dict[str, Any], used: frozenset[str], problems: list[str]) -> apsw.Connection | None:
    """The real database, open, if the gold query runs on it and the tables it reads have rows."""
    if job["database"] is None:
        return None
    try:
        connection = engine.open_file(Path(job["database"]))
    except apsw.Error as error:
        problems.append(f"the real database: {error}")
        return None
    try:
        result = engine.run(connection, job["sql"], _LIMITS)
        if (result.rows and not used) or any(_has_rows(connection, table) for table in sorted(used)):
            return connection
    except QueryError as error:
        problems.append(f"on the real database: {error.text()}")
    connection.close()
    return None


def _has_rows(connection: apsw.Connection, table: str) -> bool:
    try:
        return bool(engine.run(connection, f"SELECT 1 FROM {schema.quoted(table)} LIMIT 1", _LIMITS).rows)
    except QueryError:
        return False


def _schema(job: dict[str, Any], gold: str, problems: list[str]) -> Schema | None:
    """The first schema on which the gold query runs: the real database's, the whole one, the shown one."""
    if job["database"] is not None:
        try:
            with closing(engine.unguarded_file(Path(job["database"]))) as connection:
                found = schema.read(connection)
            if _runs(gold, found, problems):
                return found
        except apsw.Error as error:
            problems.append(f"the real database: {error}")
    for text in dict.fromkeys((job["schema"], job["context"])):
        try:
            found = schema.from_text(text)
        except SchemaError as error:
            problems.append(f"the schema: {error}")
            continue
        if found.tables and _runs(gold, found, problems):
            return found
    return None


def _without_rows(found: Schema) -> bytes:
    return database_generator.generate_database(
        found, frozenset(), query_constraints.QueryConstraints(), 0, 0
    )


def _runs(gold: str, found: Schema, problems: list[str]) -> bool:
    """Whether the gold query runs on this schema without rows."""
    try:
        with closing(engine.open_image(_without_rows(found))) as connection:
            engine.run(connection, gold, _LIMITS)
        return True
    except QueryError as error:
        if error.text() not in problems:
            problems.append(error.text())
        return False


def _holds(plan: GoldPlan, gold: str, connection: apsw.Connection) -> bool:
    """Whether the gold query's own result is among those that its plan allows."""
    if plan.mode != "choice":
        return True
    try:
        return compare.same(
            [allowed_results(connection, plan, _LIMITS)], [engine.run(connection, gold, _LIMITS)]
        )
    except QueryError:
        # Without its LIMIT the query is too much, or the plan's text is no query.
        return False


def _holds_on(images: Sequence[bytes], plan: GoldPlan, gold: str) -> bool:
    """The same for each of these databases."""
    for image in images:
        with closing(engine.open_image(image)) as connection:
            if not _holds(plan, gold, connection):
                return False
    return True


def _is_heavy(real: apsw.Connection, gold: str) -> bool:
    try:
        engine.run(real, gold, _LIGHT_LIMITS)
    except QueryError as error:
        return error.kind == "too slow"
    return False


def _is_ambiguous(path: str, real: apsw.Connection, plan: GoldPlan) -> bool:
    try:
        with closing(engine.open_file(Path(path), reverse=True)) as reverse:
            if not same_results(
                allowed_results(real, plan, _LIMITS), allowed_results(reverse, plan, _LIMITS)
            ):
                return True
            return bool(alternative_results(real, plan, _LIMITS))
    except QueryError:
        return True
