"""A gold query made ready to judge answers: does it run, on what databases, what does its order leave open."""

from __future__ import annotations

import base64
import sqlite3
import zlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jobs.score.sql import compare, engine, facts, generate, schema, syntax
from jobs.score.sql.compare import Expected, Table
from jobs.score.sql.engine import Limits, QueryError
from jobs.score.sql.schema import Schema, SchemaError
from jobs.score.sql.syntax import GoldPlan

#: Databases generated for a query, and how many of them are kept.
CANDIDATES = 14
KEPT = 4
_LIMITS = Limits()


def expected(connection: sqlite3.Connection, plan: GoldPlan, limits: Limits) -> Expected:
    """Every result that the gold query allows on this database. Raises QueryError."""
    table = engine.run(connection, plan.sql, limits)
    if plan.mode == "bag":
        return compare.unordered(table)
    if plan.mode == "exact":
        return compare.in_order(table)
    width = table.width - plan.appended
    keys = [tuple(row[key] for key in plan.keys) for row in table.rows]
    rows = [row[:width] for row in table.rows] if plan.appended else table.rows
    return compare.grouped(Table(width, rows), keys, plan.offset, plan.limit)


def prepare(job: dict[str, Any]) -> dict[str, Any]:
    """The entry of one gold query.

    `job`: {"sql", "database": path or None, "schema": text, "context": text, "seed"}. The entry:
    {"sql", "valid", "problem", "plan", "real": whether the real database is used, "images",
    "columns", "normalised"}.
    """
    gold = job["sql"]
    tree = syntax.parse(gold) if len(gold) <= 20_000 else None
    used = syntax.tables_used(tree)
    problems: list[str] = []
    real = _usable_real(job, used, problems)
    found = _schema(job, gold, problems)
    images = [] if found is None or real else _images(gold, tree, found, used, job["seed"])
    connections = [engine.open_image(image) for image in images]
    if real:
        connections.insert(0, engine.open_file(Path(job["database"])))
    try:
        plan = _verified(gold, syntax.gold_plan(gold, tree), connections)
    finally:
        for connection in connections:
            connection.close()
    columns = found.column_names if found is not None else frozenset()
    valid = real or bool(images)
    return {
        "sql": gold,
        "valid": valid,
        "problem": None if valid else "; ".join(problems) or "there is no database to run it on",
        "plan": asdict(plan),
        "real": real,
        "images": [base64.b64encode(zlib.compress(image)).decode() for image in images],
        "columns": sorted(columns),
        "normalised": syntax.normalised(tree, columns),
    }


def _usable_real(job: dict[str, Any], used: frozenset[str], problems: list[str]) -> bool:
    """Whether the gold query runs on the real database and the tables it reads have rows there."""
    if job["database"] is None:
        return False
    connection: sqlite3.Connection | None = None
    try:
        connection = engine.open_file(Path(job["database"]))
        result = engine.run(connection, job["sql"], _LIMITS)
        return bool(result.rows and not used) or any(_has_rows(connection, table) for table in sorted(used))
    except QueryError as error:
        problems.append(f"on the real database: {error.text()}")
        return False
    except sqlite3.Error as error:
        problems.append(f"the real database: {error}")
        return False
    finally:
        if connection is not None:
            connection.close()


def _has_rows(connection: sqlite3.Connection, table: str) -> bool:
    try:
        return bool(engine.run(connection, f"SELECT 1 FROM {schema.quoted(table)} LIMIT 1", _LIMITS).rows)
    except QueryError:
        return False


def _schema(job: dict[str, Any], gold: str, problems: list[str]) -> Schema | None:
    """The first schema on which the gold query runs: the real database's, the whole one, the shown one."""
    if job["database"] is not None:
        try:
            connection = sqlite3.connect(f"file:{quote(job['database'])}?mode=ro&immutable=1", uri=True)
            try:
                found = schema.read(connection)
            finally:
                connection.close()
            if _runs(gold, found, problems):
                return found
        except sqlite3.Error as error:
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
    connection = engine.open_image(generate.build(found, frozenset(), facts.Facts(), 0, 0))
    try:
        engine.run(connection, gold, _LIMITS)
        return True
    except QueryError as error:
        if error.text() not in problems:
            problems.append(error.text())
        return False
    finally:
        connection.close()


def _images(gold: str, tree: Any, found: Schema, used: frozenset[str], seed: int) -> list[bytes]:
    """The databases kept for a gold query: those on which it returns most different things."""
    known = facts.facts_of(tree, found) if tree is not None else facts.Facts()
    tables = used or frozenset(table.name.lower() for table in found.tables)
    kept: list[bytes] = []
    spare: list[bytes] = []
    for variant in range(CANDIDATES):
        image = generate.build(found, tables, known, seed, variant)
        connection = engine.open_image(image)
        try:
            (kept if engine.run(connection, gold, _LIMITS).rows else spare).append(image)
        except QueryError:
            continue
        finally:
            connection.close()
    return [*kept, *spare][:KEPT]


def _verified(gold: str, plan: GoldPlan, connections: list[sqlite3.Connection]) -> GoldPlan:
    """The plan, if the gold query's own result is among those it allows everywhere; else a stricter one."""
    fallback = GoldPlan(gold, "exact") if plan.mode != "bag" else plan
    if plan.mode != "choice":
        return plan
    for connection in connections:
        try:
            allowed = expected(connection, plan, _LIMITS)
            own = engine.run(connection, gold, _LIMITS)
        except QueryError:
            return fallback
        if not compare.same([allowed], [own]):
            return fallback
    return replace(plan)
