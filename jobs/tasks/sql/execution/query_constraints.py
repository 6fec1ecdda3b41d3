"""Constraints that a query puts on its columns: literals, LIKE patterns, columns compared with each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlglot import exp

from jobs.tasks.sql.execution.schema import Schema

#: A column of the schema: (table, column), both in lower case.
ColumnKey = tuple[str, str]
Literal = int | float | str

_COMPARISONS = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Is)


@dataclass
class QueryConstraints:
    """The constraints of one query. `hits` are values that satisfy the condition on a column; `compared` are pairs
    of columns; `group_sizes` are numbers that an aggregate is compared with (HAVING count(*) > 2).
    """

    literals: dict[ColumnKey, list[Literal]] = field(default_factory=dict)
    hits: dict[ColumnKey, list[Literal]] = field(default_factory=dict)
    patterns: dict[ColumnKey, list[str]] = field(default_factory=dict)
    compared: list[tuple[ColumnKey, ColumnKey]] = field(default_factory=list)
    group_sizes: list[int] = field(default_factory=list)
    columns: set[ColumnKey] = field(default_factory=set)


def constraints_of(tree: exp.Expression, schema: Schema) -> QueryConstraints:
    """The constraints of a query on `schema`."""
    constraints = QueryConstraints()
    for column in tree.find_all(exp.Column):
        constraints.columns.update(resolve(column, schema)[:1])
    for node in tree.find_all(*_COMPARISONS):
        _comparison(node, schema, constraints)
    for node in tree.find_all(exp.Like, exp.ILike, exp.Glob):
        for key in _columns(node.this, schema):
            constraints.patterns.setdefault(key, []).extend(
                str(v) for v in _literals(node.expression, schema)
            )
    for node in tree.find_all(exp.Between):
        for key in _columns(node.this, schema):
            for bound in (node.args.get("low"), node.args.get("high")):
                if bound is not None:
                    values = _literals(bound, schema)
                    constraints.literals.setdefault(key, []).extend(values)
                    constraints.hits.setdefault(key, []).extend(values)
    for node in tree.find_all(exp.In):
        keys = _columns(node.this, schema)
        for key in keys:
            for item in node.expressions:
                values = _literals(item, schema)
                constraints.literals.setdefault(key, []).extend(values)
                constraints.hits.setdefault(key, []).extend(values)
        if (query := node.args.get("query")) is not None:
            constraints.compared += [(a, b) for a in keys for b in _outputs(query, schema)[:1]]
    for node in tree.find_all(exp.SetOperation):
        constraints.compared += list(
            zip(_outputs(node.left, schema), _outputs(node.right, schema), strict=False)
        )
    return constraints


def _comparison(node: exp.Expression, schema: Schema, constraints: QueryConstraints) -> None:
    for side, other in ((node.this, node.expression), (node.expression, node.this)):
        if side is None or other is None or isinstance(side, exp.Subquery):
            continue
        values = _literals(other, schema)
        keys = _columns(side, schema)
        for key in keys:
            constraints.literals.setdefault(key, []).extend(values)
            constraints.hits.setdefault(key, []).extend(
                hit for value in values for hit in _satisfying(node, side, value)
            )
        if isinstance(side, exp.Count):
            constraints.group_sizes += [value for value in values if isinstance(value, int)]
        if isinstance(other, exp.Subquery):
            constraints.compared += [(a, b) for a in keys for b in _outputs(other, schema)[:1]]
        elif isinstance(other, exp.Column):
            constraints.compared += [(a, b) for a in keys for b in _columns(other, schema)]


def _satisfying(node: exp.Expression, side: exp.Expression, value: Literal) -> list[Literal]:
    """Values of `side` that make the comparison with the literal true; of a text only the text itself."""
    if isinstance(node, exp.EQ | exp.Is):
        return [value]
    if isinstance(value, str) or isinstance(node, exp.NEQ):
        return [value] if isinstance(node, exp.GTE | exp.LTE) else []
    above = isinstance(node, exp.GT | exp.GTE) is (side is node.this)
    near = [value] if isinstance(node, exp.GTE | exp.LTE) else []
    return [*near, *([value + 1, value + 7] if above else [value - 1, value - 7])]


def _columns(node: exp.Expression, schema: Schema) -> list[ColumnKey]:
    """The columns of one side of a comparison; none for subqueries and COUNT, which do not constrain a column."""
    if isinstance(node, exp.Count | exp.Subquery):
        return []
    found = [node] if isinstance(node, exp.Column) else list(node.find_all(exp.Column))
    return [key for column in found for key in resolve(column, schema)[:1]]


def _literals(node: exp.Expression, schema: Schema) -> list[Literal]:
    """A literal's value as a list of one; `"text"` is a literal if no column has that name."""
    if isinstance(node, exp.Paren):
        return _literals(node.this, schema)
    if isinstance(node, exp.Neg):
        return [-value for value in _literals(node.this, schema) if not isinstance(value, str)]
    if isinstance(node, exp.Literal):
        if node.is_string:
            return [node.name]
        try:
            return [int(node.name)]
        except ValueError:
            pass
        try:
            return [float(node.name)]
        except ValueError:
            return []
    if (
        isinstance(node, exp.Column)
        and not resolve(node, schema)
        and node.this.args.get("quoted")
        and not node.table
    ):
        return [node.name]
    return []


def _outputs(query: exp.Expression, schema: Schema) -> list[ColumnKey]:
    """The columns that a query outputs or aggregates, in order, up to the first output that is neither."""
    while isinstance(query, exp.Subquery | exp.SetOperation):
        query = query.this
    keys: list[ColumnKey] = []
    for projection in getattr(query, "expressions", []):
        inner = projection.unalias()
        if isinstance(inner, exp.Max | exp.Min | exp.Sum | exp.Avg):
            inner = inner.this
        found = resolve(inner, schema) if isinstance(inner, exp.Column) else []
        if not found:
            break
        keys.append(found[0])
    return keys


def resolve(column: exp.Column, schema: Schema) -> list[ColumnKey]:
    """The columns that a reference can mean, innermost scope first."""
    name, qualifier = column.name.lower(), column.table.lower()
    found = []
    for alias, table_name in visible(column):
        table = schema.table(table_name)
        if (not qualifier or alias == qualifier) and table is not None and table.column(name) is not None:
            found.append((table.name.lower(), name))
    return found


def visible(node: exp.Expression) -> Iterator[tuple[str, str]]:
    """(alias, table) of the tables visible at a node, innermost query first."""
    select = node.parent_select
    while select is not None:
        clause = select.args.get("from_")
        joined = [clause.this] if clause is not None else []
        for source in joined + [join.this for join in select.args.get("joins") or []]:
            if isinstance(source, exp.Table):
                yield source.alias_or_name.lower(), source.name.lower()
        select = select.parent_select
