"""Detect nondeterministic queries: two variants, resolved to the smallest and to the largest values.

If a LIMIT in a subquery cuts rows that tie, SQLite takes those that its query plan visits first; likewise the
value of a bare column (neither grouped nor aggregated). Reversing the scan order does not reveal this if a
sorter or an index fixes it. If both variants return the same, the query is deterministic.

Not covered: bare columns in `*`, bare columns beside a single min() or max() (SQLite takes them from the row
that holds it), and the middle ones of three or more rows that tie.
"""

from __future__ import annotations

import re
from collections.abc import Set
from functools import lru_cache
from typing import Any

from sqlglot import exp

from jobs.tasks.sql.execution import syntax

#: A query without these words has no variants and is not parsed.
_HINT = re.compile(r"\b(?:limit|group)\b", re.IGNORECASE)
_MAX_PARSED_CHARACTERS = 20_000


@lru_cache(maxsize=64)
def resolved_variants(sql: str) -> tuple[str, ...]:
    """The variants of a query; empty if it has nothing to resolve.

    A LIMIT at the top level is not resolved: compare.py handles it. The variants of an unusual query may not run.
    """
    if len(sql) > _MAX_PARSED_CHARACTERS or not _HINT.search(sql):
        return ()
    tree = syntax.parse(sql)
    if tree is None:
        return ()
    smallest, largest = _resolved(tree.copy(), False), _resolved(tree, True)
    return (smallest, largest) if smallest != largest else ()


def _resolved(tree: exp.Expression, largest: bool) -> str:
    root = syntax.unwrapped(tree)
    for query in tree.find_all(exp.Select, exp.SetOperation):
        if query is not root and query.args.get("limit") is not None:
            _resolve_ties(query, largest)
    for select in tree.find_all(exp.Select):
        if select.args.get("group") is not None and not _defines_bare_columns(select):
            _resolve_bare_columns(select, largest)
    return str(tree.sql(dialect=syntax.DIALECT))


def _resolve_ties(query: exp.Expression, largest: bool) -> None:
    """Append every output to the sort keys: rows that still tie are equal."""
    first: Any = query
    while isinstance(first, exp.SetOperation | exp.Subquery):
        first = first.this
    order = query.args.get("order")
    keys = [
        exp.Ordered(this=exp.Literal.number(place), desc=largest, nulls_first=not largest)
        for place in range(1, len(first.expressions) + 1)
    ]
    query.set("order", exp.Order(expressions=[*(order.expressions if order is not None else []), *keys]))


def _defines_bare_columns(select: exp.Select) -> bool:
    """Whether the only aggregate is one min() or max()."""
    own = [node for node in select.find_all(exp.AggFunc) if node.parent_select is select]
    return len(own) == 1 and isinstance(own[0], exp.Min | exp.Max)


def _resolve_bare_columns(select: exp.Select, largest: bool) -> None:
    """Replace bare columns by the smallest or largest value of the group."""
    grouped = select.args["group"].expressions
    named = {p.alias.lower() for p in select.expressions if isinstance(p, exp.Alias)}
    for place, projection in enumerate(list(select.expressions), 1):
        if not _is_grouped_output(place, projection, grouped):
            _resolve_clause(projection, select, largest, frozenset())
    for clause in (select.args.get("having"), select.args.get("order")):
        if clause is not None:
            _resolve_clause(clause, select, largest, named)


def _is_grouped_output(place: int, projection: exp.Expression, grouped: list[exp.Expression]) -> bool:
    """Whether GROUP BY names an output by number or alias; SQLite allows no aggregate there."""
    alias = projection.alias.lower() if isinstance(projection, exp.Alias) else None
    return any(
        (isinstance(key, exp.Literal) and key.name == str(place))
        or (isinstance(key, exp.Column) and not key.table and key.name.lower() == alias)
        for key in grouped
    )


def _resolve_clause(clause: exp.Expression, select: exp.Select, largest: bool, named: Set[str]) -> None:
    """Replace the bare columns in a clause of `select`; `named` are output aliases that it may refer to."""
    for column in list(clause.find_all(exp.Column)):
        inside_another = column.find_ancestor(exp.AggFunc, exp.Select) is not select
        named_output = not column.table and column.name.lower() in named
        if column.is_star or inside_another or named_output or _is_grouped(column, select):
            continue
        value = exp.Max(this=column.copy()) if largest else _smallest(column)
        # An output keeps its name for the enclosing query.
        shown = column.parent is select and column.arg_key == "expressions"
        column.replace(exp.alias_(value, column.name, quoted=True) if shown else value)


def _smallest(column: exp.Column) -> exp.Expression:
    """NULL if the group has one: it sorts first, but min() ignores it."""
    without_null = exp.EQ(this=exp.Count(this=column.copy()), expression=exp.Count(this=exp.Star()))
    return exp.Case(ifs=[exp.If(this=without_null, true=exp.Min(this=column.copy()))])


def _is_grouped(column: exp.Column, select: exp.Select) -> bool:
    return any(
        isinstance(key, exp.Column)
        and key.name.lower() == column.name.lower()
        and (not key.table or not column.table or key.table.lower() == column.table.lower())
        for key in select.args["group"].expressions
    )
