"""Spider's hardness of a query: easy, medium, hard, extra; counted on sqlglot's tree as Spider counts on its own.

Spider counts three things: clauses (where, group, order, limit, joins, OR, LIKE), nesting
(subqueries in conditions, a set operation) and the rest (more than one aggregate, output,
condition or group column). Of a set operation only the first SELECT is counted, without the ORDER
BY and LIMIT at the end. Its quirks are kept: a negated condition counts as an aggregate, so does
AND or OR in HAVING, and a subquery in FROM does not count as nesting.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlglot import exp

LEVELS = ("easy", "medium", "hard", "extra")


def hardness(tree: exp.Expression | None) -> str:
    """One of LEVELS; "unknown" if the query did not parse."""
    if tree is None:
        return "unknown"
    operation = False
    while not isinstance(tree, exp.Select):
        operation = operation or isinstance(tree, exp.SetOperation)
        tree = tree.this
        if not isinstance(tree, exp.Query):
            return "unknown"
    order, limit = tree.args.get("order"), tree.args.get("limit")
    conditions = [list(_conditions(tree.args.get(name))) for name in ("where", "having")]
    joins = tree.args.get("joins") or []
    joined = [condition for join in joins for condition in _conditions(join.args.get("on"))]
    return _level(
        _clauses(tree, order, limit, joins, [*joined, *conditions[0], *conditions[1]]),
        operation + sum(_has_query(c) for c in [*joined, *conditions[0], *conditions[1]]),
        _others(tree, order, conditions),
    )


def _level(clauses: int, nested: int, others: int) -> str:
    if nested == 0:
        if clauses <= 1 and others == 0:
            return "easy"
        if (others <= 2 and clauses <= 1) or (clauses <= 2 and others < 2):
            return "medium"
        if (others > 2 and clauses <= 2) or (2 < clauses <= 3 and others <= 2):
            return "hard"
    if nested <= 1 and clauses <= 1 and others == 0:
        return "hard"
    return "extra"


def _clauses(
    tree: exp.Select, order: Any, limit: Any, joins: list[Any], conditions: list[exp.Expression]
) -> int:
    present = sum(1 for clause in (tree.args.get("where"), tree.args.get("group"), order, limit) if clause)
    ors = sum(
        _count_or(clause)
        for clause in (tree.args.get("where"), tree.args.get("having"), *_on(joins))
        if clause
    )
    likes = sum(isinstance(c.this if isinstance(c, exp.Not) else c, exp.Like) for c in conditions)
    return present + len(joins) + ors + likes


def _others(tree: exp.Select, order: Any, conditions: list[list[exp.Expression]]) -> int:
    where, having = conditions
    group = tree.args.get("group")
    groups = group.expressions if group else []
    outputs = tree.expressions
    terms = [term.this for term in order.expressions] if order else []
    aggregates = sum(_aggregates(node) for node in (*outputs, *groups, *terms))
    # Spider takes the "not" of a condition for the name of an aggregate.
    aggregates += sum(isinstance(condition, exp.Not) for condition in (*where, *having))
    aggregates += max(0, len(having) - 1)
    return sum((aggregates > 1, len(outputs) > 1, len(where) > 1, len(groups) > 1))


def _aggregates(node: exp.Expression) -> bool:
    own = node.find_ancestor(exp.Query)
    return any(found.find_ancestor(exp.Query) is own for found in node.find_all(exp.AggFunc))


def _on(joins: list[Any]) -> Iterator[exp.Expression]:
    for join in joins:
        if join.args.get("on"):
            yield join.args["on"]


def _conditions(clause: exp.Expression | None) -> Iterator[exp.Expression]:
    """The conditions joined by AND and OR, without parentheses."""
    if clause is None:
        return
    if isinstance(clause, exp.Where | exp.Having | exp.Paren):
        yield from _conditions(clause.this)
    elif isinstance(clause, exp.And | exp.Or):
        yield from _conditions(clause.left)
        yield from _conditions(clause.right)
    else:
        yield clause


def _count_or(clause: exp.Expression) -> int:
    if isinstance(clause, exp.Where | exp.Having | exp.Paren):
        return _count_or(clause.this)
    if isinstance(clause, exp.And | exp.Or):
        return isinstance(clause, exp.Or) + _count_or(clause.left) + _count_or(clause.right)
    return 0


def _has_query(condition: exp.Expression) -> bool:
    return any(True for _ in condition.find_all(exp.Query))
