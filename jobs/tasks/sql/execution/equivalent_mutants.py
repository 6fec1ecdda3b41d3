"""Equivalent mutants: rules that prove from text and schema that a changed query means the same.

Each rule is a sufficient condition. No database is searched for a mutant with a rule, so a wrong rule lets
wrong answers pass. Two rules rest on assumptions about all data: columns named as identifiers are never NULL,
and foreign keys are not dangling.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sqlglot import exp

from jobs.tasks.sql.execution.mutants import Mutant
from jobs.tasks.sql.execution.schema import Schema
from jobs.tasks.sql.execution.scope import Scope, Source, joins
from jobs.tasks.sql.execution.syntax import DIALECT, parse, unwrapped

#: (query, mutant, schema) -> the rule's name if it applies.
_Prover = Callable[[exp.Expression, exp.Expression, Schema], str | None]
_Node = TypeVar("_Node", bound=exp.Expression)

#: They make a SELECT without GROUP BY return one row. sqlglot parses max(a, b) as another node.
_AGGREGATES = (exp.Count, exp.Sum, exp.Avg, exp.Min, exp.Max)
_ONE_ROW = "the result has one row"


def equivalence_rule(mutant: Mutant, tree: exp.Expression, schema: Schema) -> str | None:
    """The rule that proves the mutant equivalent to the query; None if none applies."""
    prover = _PROVERS.get(mutant.change) or _PROVERS.get(mutant.kind)
    if mutant.change.startswith("count(*) to count("):
        prover = _never_null
    if prover is None or tree.find(exp.With) is not None:
        return None
    # Both are parsed from text, so that their nodes correspond.
    before, after = parse(unwrapped(tree).sql(dialect=DIALECT)), parse(mutant.sql)
    return prover(before, after, schema) if before is not None and after is not None else None


def _changed(
    before: exp.Expression, after: exp.Expression, kind: type[_Node], trait: Callable[[_Node], object]
) -> tuple[_Node, _Node] | None:
    """The only node of a kind whose trait differs, before and after; None if it is not the only one."""
    pairs = list(zip(before.find_all(kind), after.find_all(kind), strict=False))
    differing = [(old, new) for old, new in pairs if trait(old) != trait(new)]
    return differing[0] if len(differing) == 1 else None


def _distinct(before: exp.Expression, after: exp.Expression, schema: Schema) -> str | None:
    found = _changed(before, after, exp.Select, lambda select: bool(select.args.get("distinct")))
    if found is None:
        return None
    select, _ = found
    return _no_duplicates(select, schema, is_root=select is before) or _only_a_set(select)


def _no_duplicates(select: exp.Select, schema: Schema, *, is_root: bool) -> str | None:
    scope = Scope(select, schema)
    if is_root and (_is_one_aggregate_row(select) or _first_of_shown(scope)):
        return _ONE_ROW
    group = select.args.get("group")
    if group is not None:
        if all(_is_shown_key(key, scope) for key in group.expressions):
            return "every group key is shown"
        return "a shown identifier belongs to one group" if _groups_split_rows(scope, group) else None
    table = scope.only_table()
    if table is None:
        return None
    starred = any(projection.is_star for projection in select.expressions) and any(
        column.key for column in table.columns
    )
    shown = any(scope.is_identifier(projection.unalias()) for projection in select.expressions)
    return "an identifier is shown" if starred or shown else None


def _is_one_aggregate_row(select: exp.Select) -> bool:
    """Whether a SELECT aggregates all rows into one and outputs no bare column."""
    if select.args.get("group") is not None:
        return False
    nodes = [node for projection in select.expressions for node in projection.walk()]
    if any(isinstance(node, exp.Query | exp.Window) for node in nodes):
        return False
    loose = [
        node
        for node in nodes
        if isinstance(node, exp.Column)
        and not isinstance(node.find_ancestor(exp.Select, *_AGGREGATES), _AGGREGATES)
    ]
    return not loose and any(isinstance(node, _AGGREGATES) for node in nodes)


def _first_of_shown(scope: Scope) -> bool:
    """Whether a SELECT takes one row, LIMIT 1, sorted by its outputs only: rows that tie are equal."""
    select = scope.select
    limit, order = select.args.get("limit"), select.args.get("order")
    if limit is None or limit.expression.name != "1" or select.args.get("offset") is not None:
        return False
    return order is None or all(_is_shown(term.this, scope, alias_first=True) for term in order.expressions)


def _is_shown_key(key: exp.Expression, scope: Scope) -> bool:
    return _is_shown(key, scope, alias_first=False)


def _is_shown(key: exp.Expression, scope: Scope, *, alias_first: bool) -> bool:
    """Whether a sort or group key is an output. ORDER BY resolves names to aliases first, GROUP BY to columns."""
    outputs = scope.select.expressions
    if isinstance(key, exp.Literal):
        return not key.is_string and not any(output.is_star for output in outputs)
    if _text(key) in {_text(output.unalias()) for output in outputs}:
        return True
    if not isinstance(key, exp.Column):
        return False
    source = scope.source(key)
    aliased = not key.table and key.name.lower() in {
        output.alias.lower() for output in outputs if isinstance(output, exp.Alias)
    }
    if aliased and (alias_first or (source is None and None not in scope.tables.values())):
        return True
    return source is not None and (
        source in _shown(scope) or any(isinstance(output, exp.Star) for output in outputs)
    )


def _text(node: exp.Expression) -> str:
    """An expression as text, identifiers in lower case."""
    copy = node.copy()
    for identifier in copy.find_all(exp.Identifier):
        identifier.set("this", identifier.name.lower())
    return str(copy.sql(dialect=DIALECT))


def _shown(scope: Scope) -> set[Source | None]:
    columns = [output.unalias() for output in scope.select.expressions]
    return {scope.source(column) for column in columns if isinstance(column, exp.Column)}


def _groups_split_rows(scope: Scope, group: exp.Group) -> bool:
    """Whether each group key is a column of a table whose identifier is an output: then no row is in two groups."""
    shown = [output.unalias() for output in scope.select.expressions]
    owners = {
        source[0]
        for column in shown
        if isinstance(column, exp.Column) and scope.is_identifier(column)
        if (source := scope.source(column)) is not None
    }
    keys = {scope.source(key) if isinstance(key, exp.Column) else None for key in group.expressions}
    tables = {key[0] if key is not None else None for key in keys}
    if scope.only_table() is not None and owners:
        return True
    return len(tables) == 1 and tables <= owners


def _only_a_set(query: exp.Expression) -> str | None:
    """Why duplicates in a subquery's result do not matter; None if they may."""
    if query.args.get("limit") is not None or query.args.get("offset") is not None:
        return None
    parent = query.parent
    if isinstance(parent, exp.SetOperation):
        if parent.args.get("distinct") is not False:
            return "the set operation removes duplicates"
        return _only_a_set(parent)
    held: exp.Expression = query
    if isinstance(parent, exp.Subquery):
        held, parent = parent, parent.parent
    if isinstance(parent, exp.Exists) or (isinstance(parent, exp.In) and parent.args.get("query") is held):
        return "inside IN, duplicates do not matter"
    return None


def _union(before: exp.Expression, after: exp.Expression, _schema: Schema) -> str | None:
    found = _changed(before, after, exp.Union, lambda union: union.args.get("distinct"))
    return _only_a_set(found[0]) if found is not None else None


def _counts_a_key(before: exp.Expression, after: exp.Expression, schema: Schema) -> str | None:
    found = _changed(before, after, exp.Count, lambda count: isinstance(count.this, exp.Distinct))
    select = found[0].parent_select if found is not None else None
    if found is None or select is None or Scope(select, schema).only_table() is None:
        return None
    counted = found[0].this
    inner = counted.expressions[0] if isinstance(counted, exp.Distinct) else counted
    return "an identifier does not repeat" if Scope(select, schema).is_identifier(inner) else None


def _never_null(before: exp.Expression, after: exp.Expression, schema: Schema) -> str | None:
    found = _changed(before, after, exp.Count, lambda count: isinstance(count.this, exp.Star))
    select = found[1].parent_select if found is not None else None
    if found is None or select is None or not isinstance(found[1].this, exp.Column):
        return None
    scope = Scope(select, schema)
    source = scope.source(found[1].this)
    if source is not None and source[0] not in scope.nullable_aliases and scope.has_value(source):
        return "an identifier is never NULL"
    return "the conditions leave no NULL" if source in scope.not_null() else None


def _left_rows_vanish(before: exp.Expression, after: exp.Expression, schema: Schema) -> str | None:
    """Why a LEFT JOIN returns no more rows than the inner join that it replaces."""
    found = _changed(before, after, exp.Join, lambda join: join.side)
    select = found[1].parent_select if found is not None else None
    if found is None or select is None or sum(bool(join.side) for join in joins(select)) != 1:
        return None
    scope, join = Scope(select, schema), found[1]
    alias = join.this.alias_or_name.lower()
    if any(owner == alias for owner, _ in scope.not_null()):
        return "another condition needs the joined row"
    condition = join.args.get("on")
    if isinstance(condition, exp.EQ) and (
        _refers(condition.left, condition.right, alias, scope)
        or _refers(condition.right, condition.left, alias, scope)
    ):
        return "the foreign key always finds its row"
    return None


def _refers(child: exp.Expression, parent: exp.Expression, joined: str, scope: Scope) -> bool:
    """Whether `child` is a foreign key to `parent`, a column of the joined table, and never NULL."""
    if not isinstance(child, exp.Column) or not isinstance(parent, exp.Column):
        return False
    start, target = scope.source(child), scope.source(parent)
    known, wanted = scope.column(start), scope.column(target)
    if target is None or target[0] != joined or start is None or start[0] == joined:
        return False
    if known is None or wanted is None or not scope.has_value(start):
        return False
    return any(
        [name.lower() for name in key.columns] == [start[1]]
        and key.table.lower() == wanted[0].name.lower() != known[0].name.lower()
        and [name.lower() for name in key.targets or wanted[0].primary] == [target[1]]
        for key in known[0].foreign
    )


def _order(before: exp.Expression, after: exp.Expression, _schema: Schema) -> str | None:
    return _ONE_ROW if _differ_in(before, after, "order") else None


def _limit(before: exp.Expression, after: exp.Expression, _schema: Schema) -> str | None:
    if _takes_a_row(before) and _takes_a_row(after) and _differ_in(before, after, "limit"):
        return _ONE_ROW
    found = _changed(before, after, exp.Select, lambda select: select.args.get("limit"))
    if found is None or not (_takes_a_row(found[0]) and _takes_a_row(found[1])):
        return None
    # For a scalar subquery SQLite replaces any LIMIT but 0 by LIMIT 1.
    holder = found[0].parent
    is_value = isinstance(holder, exp.Subquery) and isinstance(holder.parent, exp.Binary)
    return "a value is the first row's" if is_value else None


def _takes_a_row(query: exp.Expression) -> bool:
    """Whether a query has no LIMIT, or a literal one above 0."""
    limit = query.args.get("limit")
    return limit is None or (limit.expression.name.isdigit() and int(limit.expression.name) > 0)


def _differ_in(before: exp.Expression, after: exp.Expression, clause: str) -> bool:
    """Whether two single-row queries differ only in the clause of that name.

    Single-row by aggregation: if LIMIT makes it one row, the order decides which.
    """
    if not isinstance(before, exp.Select) or not _is_one_aggregate_row(before):
        return False
    one, other = before.copy(), after.copy()
    one.set(clause, None)
    other.set(clause, None)
    return bool(one.sql(dialect=DIALECT) == other.sql(dialect=DIALECT))


_PROVERS: dict[str, _Prover] = {
    "add DISTINCT": _distinct,
    "drop DISTINCT": _distinct,
    "UNION to UNION ALL": _union,
    "count DISTINCT": _counts_a_key,
    "count all instead of DISTINCT": _counts_a_key,
    "inner join to left join": _left_rows_vanish,
    "order": _order,
    "limit": _limit,
}
