"""Why the strict and the official verdict differ: the rule that explains each disagreement."""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from jobs.tasks.sql.execution import compare, official_spider_eval
from jobs.tasks.sql.execution.compare import Table
from jobs.tasks.sql.execution.gold_plan import GoldPlan
from jobs.tasks.sql.execution.query_runner import QueryError, QueryLimits, run_query

GENERATED = "a generated database tells them apart, the real one does not"
DISTINCT = "official ignores DISTINCT"
REWRITTEN = "official corrects the text before it runs"
EMPTY = "official takes all results without rows for equal"
SPACING = "official does not see an ORDER BY written with other spacing"
COLUMNS = "official lets columns change places from database to database"
SUBQUERY = "official lets an ORDER BY in a subquery fix the order"
TIES = "official fixes the order of rows with equal keys"
LIMIT = "official fixes which of the rows with equal keys a LIMIT takes"
FLOATS = "official compares floats bit for bit"
CHANCE = "the gold's result on the real database is a matter of chance"
TYPES = "official sorts 1 and 1.0 as texts"
UNEXPLAINED = "unexplained"

_Database = tuple[str, apsw.Connection]


def disagreement_rule(
    gold: str,
    answer: str,
    plan: GoldPlan,
    strict: bool,
    matching: set[str],
    databases: Sequence[_Database],
    limits: QueryLimits,
) -> str:
    """The rule that explains a disagreement. `matching` names the databases on which `strict` found no difference."""
    used = official_spider_eval.databases(databases)
    if not strict and all(name in matching for name, _ in used):
        return GENERATED if len(used) < len(databases) else COLUMNS
    found = (
        _rule_on(gold, answer, plan, strict, connection, limits)
        for name, connection in used
        if strict or name not in matching
    )
    return next((name for name in found if name is not None), UNEXPLAINED)


def _rule_on(
    gold: str, answer: str, plan: GoldPlan, strict: bool, connection: apsw.Connection, limits: QueryLimits
) -> str | None:
    """The rule for one database; None if the verdicts agree on it."""
    own = [_table(connection, sql, limits) for sql in (gold, answer)]
    changed = [
        _table(connection, sql, limits)
        for sql in (official_spider_eval.rewritten(gold), official_spider_eval.rewritten_answer(answer))
    ]
    ordered = official_spider_eval.order_matters(official_spider_eval.rewritten(gold))
    if own[0] is None or own[1] is None or changed[0] is None or changed[1] is None:
        return None if own == changed == [None, None] else REWRITTEN
    if official_spider_eval.equal(changed[0], changed[1], ordered) == strict:
        return None
    if official_spider_eval.equal(own[0], own[1], ordered) == strict:
        return DISTINCT if "distinct" in (gold + answer).lower() else REWRITTEN
    if not strict:
        return _too_lenient(own[0], own[1], plan, ordered)
    return _too_strict(own[0], own[1], plan, ordered)


def _too_lenient(gold: Table, answer: Table, plan: GoldPlan, ordered: bool) -> str:
    if not gold.rows and not answer.rows:
        return EMPTY
    return SPACING if plan.mode != "bag" and not ordered else UNEXPLAINED


def _too_strict(gold: Table, answer: Table, plan: GoldPlan, ordered: bool) -> str:
    if ordered and official_spider_eval.equal(gold, answer, False):
        return SUBQUERY if plan.mode == "bag" else TIES
    loose = compare.same([compare.unordered(gold)], [answer])
    exact = compare.assignable([(compare.unordered(gold), answer)]) if loose and gold.rows else False
    if loose:
        return TYPES if exact else FLOATS
    return LIMIT if plan.limit is not None else CHANCE


def _table(connection: apsw.Connection, sql: str, limits: QueryLimits) -> Table | None:
    try:
        return run_query(connection, sql, limits, drop_undecodable=True)
    except QueryError:
        return None
