"""Mutants that are no mistakes: why a changed query means the same, where the text and the schema show it.

Each rule is a sufficient condition; a mutant with a rule is not hunted, so a wrong rule lets wrong answers
pass. Two rest on what is assumed of all data: columns named as identifiers are never NULL, and a foreign
key finds its row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sqlglot import exp

from jobs.tasks.sql.execution.mutants import Mutant
from jobs.tasks.sql.execution.schema import Schema
from jobs.tasks.sql.execution.scope import Scope, Source, joins
from jobs.tasks.sql.execution.syntax import DIALECT, parse, unwrapped

#: A rule's arguments are the query, the mutant and the schema.
_Prover = Callable[[exp.Expression, exp.Expression, Schema], str | None]
_Node = TypeVar("_Node", bound=exp.Expression)

#: What makes a SELECT without GROUP BY return one row; max(a, b) is something else for sqlglot too.
_AGGREGATES = (exp.Count, exp.Sum, exp.Avg, exp.Min, exp.Max)
_ONE_ROW = "the result has one row"


def equivalence_rule(mutant: Mutant, tree: exp.Expression, schema: Schema) -> str | None:
    """The rule by which the mutant means what the query means, or None where none is known."""
    prover = _PROVERS.get(mutant.change) or _PROVERS.get(mutant.kind)
    if mutant.change.startswith("count(*) to count("):
        prover = _never_null
    if prover is None or tree.find(exp.With) is not None:
        return None
    # Both from their texts, so that their nodes correspond.
    before, after = parse(unwrapped(tree).sql(dialect=DIALECT)), parse(mutant.sql)
    return prover(before, after, schema) if before is not None and after is not None else None


def _changed(
    before: exp.Expression, after: exp.Expression, kind: type[_Node], trait: Callable[[_Node], object]
) -> tuple[_Node, _Node] | None:
    """The one node of a kind whose trait differs, before and after."""
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
    if is_root and (_aggregates_alone(select) or _first_of_shown(scope)):
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


def _aggregates_alone(select: exp.Select) -> bool:
    """Whether a SELECT aggregates all its rows into one and shows nothing that belongs to one of them."""
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
    """Whether LIMIT 1 takes the first row by what is shown: as good as any other that looks the same."""
    select = scope.select
    limit, order = select.args.get("limit"), select.args.get("order")
    if limit is None or limit.expression.name != "1" or select.args.get("offset") is not None:
        return False
    return order is None or all(_is_shown(term.this, scope, alias_first=True) for term in order.expressions)


def _is_shown_key(key: exp.Expression, scope: Scope) -> bool:
    return _is_shown(key, scope, alias_first=False)


def _is_shown(key: exp.Expression, scope: Scope, *, alias_first: bool) -> bool:
    """Whether a sort or group key is an output. Of a name, ORDER BY sees an alias first, GROUP BY a column."""
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
    """An expression's text; names, not literals, in lower case."""
    copy = node.copy()
    for identifier in copy.find_all(exp.Identifier):
        identifier.set("this", identifier.name.lower())
    return str(copy.sql(dialect=DIALECT))


def _shown(scope: Scope) -> set[Source | None]:
    columns = [output.unalias() for output in scope.select.expressions]
    return {scope.source(column) for column in columns if isinstance(column, exp.Column)}


def _groups_split_rows(scope: Scope, group: exp.Group) -> bool:
    """Whether a shown identifier's row belongs to one group: the keys are that row's own columns."""
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
    """The reason why a query's duplicates change nothing outside it."""
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
    if source is not None and source[0] not in scope.padded and scope.has_value(source):
        return "an identifier is never NULL"
    return "the conditions leave no NULL" if source in scope.not_null() else None


def _left_rows_vanish(before: exp.Expression, after: exp.Expression, schema: Schema) -> str | None:
    """The left join that was an inner one keeps no row more."""
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
    # Where SQLite wants one value it puts LIMIT 1 in the place of any other but LIMIT 0.
    holder = found[0].parent
    is_value = isinstance(holder, exp.Subquery) and isinstance(holder.parent, exp.Binary)
    return "a value is the first row's" if is_value else None


def _takes_a_row(query: exp.Expression) -> bool:
    """Whether a query's own LIMIT is not 0, as far as its text says."""
    limit = query.args.get("limit")
    return limit is None or (limit.expression.name.isdigit() and int(limit.expression.name) > 0)


def _differ_in(before: exp.Expression, after: exp.Expression, clause: str) -> bool:
    """Whether two queries of one row are the same but for their own clause of that name.

    Not where LIMIT makes it one row: there the order decides which.
    """
    if not isinstance(before, exp.Select) or not _aggregates_alone(before):
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
