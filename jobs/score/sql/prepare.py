"""A gold query made ready to judge answers: does it run, on what databases, what does its order leave open."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import apsw
from sqlglot import exp

from jobs.score.sql import compare, engine, equivalent, facts, generate, hardness, mutate, schema, syntax
from jobs.score.sql.choose import Choice, choose
from jobs.score.sql.engine import Limits, QueryError
from jobs.score.sql.gold import allowed, digest, same_choice, to_json
from jobs.score.sql.schema import Schema, SchemaError
from jobs.score.sql.syntax import GoldPlan

#: Longer gold queries are run but not parsed.
_MAX_PARSED_CHARACTERS = 20_000
_LIMITS = Limits()


def prepare(job: dict[str, Any]) -> dict[str, Any]:
    """The entry of one gold query.

    `job`: {"sql", "database": path or None, "schema": text, "context": text, "seed"}. The entry:
    {"sql", "valid", "problem", "plan", "real": whether the real database is used, "ambiguous":
    whether chance has a part in its result there, "images": generated databases, "expected": what
    it allows on each database (see gold.py), or {"digests": of results it has returned there} where that
    is too much to keep, "columns",
    "normalised", "hardness", "mutants": {kind: made}, "survivors": [[kind, change, sql, rule]]}.
    """
    gold = job["sql"]
    tree = syntax.parse(gold) if len(gold) <= _MAX_PARSED_CHARACTERS else None
    used = syntax.tables_used(tree)
    problems: list[str] = []
    real = _usable_real(job, used, problems)
    found = _schema(job, gold, problems)
    try:
        plan = _verified(gold, syntax.gold_plan(gold, tree), real)
        ambiguous = real is not None and _is_ambiguous(job["database"], real, plan)
        choice = _chosen(tree, plan, found, used, real, job["seed"]) if found is not None else Choice()
        expected = _expected(job, plan, real, ambiguous, choice.images)
    finally:
        if real is not None:
            real.close()
    valid = real is not None or bool(choice.images)
    columns = found.column_names if found is not None else frozenset()
    return {
        "sql": gold,
        "valid": valid,
        "problem": None if valid else "; ".join(problems) or "there is no database to run it on",
        "plan": asdict(plan),
        "real": real is not None,
        "ambiguous": ambiguous,
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
                equivalent.rule(m, tree, found) if tree is not None and found is not None else None,
            ]
            for m in choice.survivors
        ],
    }


def _chosen(
    tree: exp.Expression | None,
    plan: GoldPlan,
    found: Schema,
    used: frozenset[str],
    real: apsw.Connection | None,
    seed: int,
) -> Choice:
    """The generated databases to judge on, and what became of the mutants."""
    known = facts.facts_of(tree, found) if tree is not None else facts.Facts()
    tables = used or frozenset(table.name.lower() for table in found.tables)
    mutants = mutate.mutants(tree, found) if tree is not None else []
    spared = (
        [equivalent.rule(mutant, tree, found) is not None for mutant in mutants] if tree is not None else []
    )

    def candidates() -> Iterator[bytes]:
        variant = 0
        while True:
            yield generate.build(found, tables, known, seed, variant)
            variant += 1

    return choose(plan, mutants, real, candidates(), spared)


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
        found = None if ambiguous else to_json(allowed(real, plan, _LIMITS))
        if found is None:
            digests = _digests(job["sql"], [real])
            if ambiguous:
                with closing(engine.open_file(Path(job["database"]), reverse=True)) as reverse:
                    digests += _digests(job["sql"], [reverse])
            found = {"digests": digests}
        kept.append(found)
    for image in images:
        with closing(engine.open_image(image)) as connection:
            kept.append(
                to_json(allowed(connection, plan, _LIMITS)) or {"digests": _digests(job["sql"], [connection])}
            )
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


def _runs(gold: str, found: Schema, problems: list[str]) -> bool:
    """Whether the gold query runs on this schema without rows."""
    try:
        with closing(
            engine.open_image(generate.build(found, frozenset(), facts.Facts(), 0, 0))
        ) as connection:
            engine.run(connection, gold, _LIMITS)
        return True
    except QueryError as error:
        if error.text() not in problems:
            problems.append(error.text())
        return False


def _verified(gold: str, plan: GoldPlan, real: apsw.Connection | None) -> GoldPlan:
    """The plan, unless the gold query's own result on the real database is not among those it allows."""
    if plan.mode != "choice" or real is None:
        return plan
    try:
        if compare.same([allowed(real, plan, _LIMITS)], [engine.run(real, gold, _LIMITS)]):
            return plan
    except QueryError:
        # Without its LIMIT the query is too much: its own rows in their order will have to do.
        return GoldPlan(gold, "exact")
    return GoldPlan(gold, "exact")


def _is_ambiguous(path: str, real: apsw.Connection, plan: GoldPlan) -> bool:
    try:
        with closing(engine.open_file(Path(path), reverse=True)) as reverse:
            return not same_choice(allowed(real, plan, _LIMITS), allowed(reverse, plan, _LIMITS))
    except QueryError:
        return True
