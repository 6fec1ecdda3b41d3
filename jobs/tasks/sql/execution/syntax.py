"""Parse SQL with sqlglot. Hostile text can take long or nest deeply: call these functions in a sandbox worker."""

from __future__ import annotations

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from jobs.tasks.sql.execution.cpu_limit import CpuLimitReached, limit_cpu

DIALECT = "sqlite"
_MAX_DEPTH = 100
_MAX_ANSWER_CHARACTERS = 10_000
#: Each JOIN without ON doubles sqlglot's time.
_ANSWER_CPU_S = 2.0


def parse(sql: str) -> exp.Expression | None:
    """Parse one query; None if sqlglot cannot, or if the tree is too deep for recursive functions."""
    try:
        trees = sqlglot.parse(sql, dialect=DIALECT)
    except (SqlglotError, RecursionError, ValueError):
        return None
    if len(trees) != 1 or not isinstance(trees[0], exp.Query) or not _is_shallow(trees[0]):
        return None
    return trees[0]


def parse_answer(sql: str) -> exp.Expression | None:
    """As `parse`, for untrusted text: None also if it is too long or takes more than _ANSWER_CPU_S to parse."""
    if len(sql) > _MAX_ANSWER_CHARACTERS:
        return None
    try:
        with limit_cpu(_ANSWER_CPU_S):
            return parse(sql)
    except CpuLimitReached:
        return None


def _is_shallow(tree: exp.Expression) -> bool:
    """Whether recursive functions can walk the tree without exhausting the stack."""
    depths = {id(tree): 0}
    for node in tree.walk(bfs=True):
        if node.parent is not None and node is not tree:
            depths[id(node)] = depths[id(node.parent)] + 1
            if depths[id(node)] > _MAX_DEPTH:
                return False
    return True


def unwrapped(tree: exp.Expression) -> exp.Expression:
    """Remove parentheses around a whole query."""
    while isinstance(tree, exp.Subquery) and isinstance(tree.this, exp.Query) and not _own_clauses(tree):
        tree = tree.this
    return tree


def _own_clauses(tree: exp.Expression) -> bool:
    return any(tree.args.get(name) for name in ("order", "limit", "offset"))


def tables_used(tree: exp.Expression | None) -> frozenset[str]:
    """Lower-case names of the tables that a query reads, without common table expressions; empty for None."""
    if tree is None:
        return frozenset()
    defined = {cte.alias_or_name.lower() for cte in tree.find_all(exp.CTE)}
    return frozenset(t.name.lower() for t in tree.find_all(exp.Table)) - defined


def from_sources(select: exp.Select) -> list[exp.Expression]:
    """What FROM and JOIN name, in order."""
    clause = select.args.get("from_") or select.args.get("from")
    found = [clause.this] if clause is not None else []
    return found + [join.this for join in select.args.get("joins") or []]
