"""Mutation operators on SQL: each yields descriptions of the changes it can make, one at a time.

An operator is a generator over one syntax tree. It yields the description of a change, and makes the change
if it is sent True.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

from sqlglot import exp

from jobs.tasks.sql.execution.query_constraints import resolve, visible
from jobs.tasks.sql.execution.schema import Schema

Changes = Generator[str, bool | None, None]
MutationOperator = Callable[[exp.Expression, Schema], Changes]


def _distinct(tree: exp.Expression, _schema: Schema) -> Changes:
    for select in list(tree.find_all(exp.Select)):
        if select.args.get("distinct"):
            if (yield "drop DISTINCT"):
                select.set("distinct", None)
        elif select is tree and (yield "add DISTINCT"):
            select.set("distinct", exp.Distinct())
    for count in list(tree.find_all(exp.Count)):
        inner = count.this
        if isinstance(inner, exp.Distinct):
            if (yield "count all instead of DISTINCT"):
                count.set("this", inner.expressions[0].copy())
        elif isinstance(inner, exp.Column) and not inner.is_star and (yield "count DISTINCT"):
            count.set("this", exp.Distinct(expressions=[inner.copy()]))


_OPERATOR_SWAPS: dict[type[exp.Expression], tuple[type[exp.Expression], ...]] = {
    exp.EQ: (exp.NEQ,),
    exp.NEQ: (exp.EQ,),
    exp.GT: (exp.GTE, exp.LT),
    exp.GTE: (exp.GT, exp.LTE),
    exp.LT: (exp.LTE, exp.GT),
    exp.LTE: (exp.LT, exp.GTE),
    exp.And: (exp.Or,),
    exp.Or: (exp.And,),
    exp.Add: (exp.Sub,),
    exp.Sub: (exp.Add,),
    exp.Mul: (exp.Add,),
    exp.Div: (exp.Mul,),
}


def _operator(tree: exp.Expression, _schema: Schema) -> Changes:
    for node in list(tree.find_all(*_OPERATOR_SWAPS)):
        if isinstance(node, exp.EQ) and _is_join_condition(node):
            continue  # mutated by _join
        for other in _OPERATOR_SWAPS[type(node)]:
            if (yield f"{node.key} to {other.key}"):
                node.replace(other(this=node.left.copy(), expression=node.right.copy()))
    for node in list(tree.find_all(exp.In, exp.Like, exp.Between, exp.Exists)):
        if isinstance(node.parent, exp.Not):
            if (yield f"not {node.key} to {node.key}"):
                node.parent.replace(node.copy())
        elif (yield f"{node.key} to not {node.key}"):
            node.replace(exp.Not(this=node.copy()))


def _literal(tree: exp.Expression, schema: Schema) -> Changes:
    for node in list(tree.find_all(exp.Literal)):
        if isinstance(node.parent, exp.Limit | exp.Offset | exp.Ordered):
            continue
        for text in _changed_literals(node):
            if (yield f"{node.name} to {text}"):
                node.replace(exp.Literal.string(text) if node.is_string else exp.Literal.number(text))
    for column in list(tree.find_all(exp.Column)):
        # SQLite reads "France" as a string literal if no column has that name.
        quoted = isinstance(column.this, exp.Identifier) and column.this.quoted and not column.table
        if quoted and not resolve(column, schema) and (yield f"{column.name} in other capitals"):
            column.replace(exp.Literal.string(f"{column.name.swapcase()}x"))


def _changed_literals(node: exp.Literal) -> list[str]:
    if not node.is_string:
        try:
            number = int(node.name)
        except ValueError:
            return [f"{node.name}1"]
        return [str(number + 1), str(max(0, number - 1))]
    if isinstance(node.parent, exp.Like):
        core = node.name.strip("%")
        return [node.name.replace("%", ""), f"{core}%", f"%{core}"]
    return [f"{node.name}x", node.name.swapcase()]


_AGGREGATE_SWAPS: dict[type[exp.Expression], tuple[type[exp.Expression], ...]] = {
    exp.Max: (exp.Min, exp.Avg),
    exp.Min: (exp.Max, exp.Avg),
    exp.Avg: (exp.Sum, exp.Max),
    exp.Sum: (exp.Avg, exp.Count),
}


def _aggregate(tree: exp.Expression, schema: Schema) -> Changes:
    for node in list(tree.find_all(*_AGGREGATE_SWAPS)):
        for other in _AGGREGATE_SWAPS[type(node)]:
            if (yield f"{node.key} to {other.key}"):
                node.replace(other(this=node.this.copy()))
    for count in list(tree.find_all(exp.Count)):
        if isinstance(count.this, exp.Star):
            for name in _visible_columns(count, schema)[:2]:
                if (yield f"count(*) to count({name})"):
                    count.set("this", exp.column(name, quoted=True))


def _column(tree: exp.Expression, schema: Schema) -> Changes:
    for column in list(tree.find_all(exp.Column)):
        if column.is_star or (isinstance(column.parent, exp.EQ) and _is_join_condition(column.parent)):
            continue
        for name in _neighbours(column, schema):
            if (yield f"{column.name} to {name}"):
                column.set("this", exp.to_identifier(name, quoted=not name.isidentifier()))
    if isinstance(tree, exp.Select) and len(tree.expressions) > 1 and (yield "drop the last output"):
        tree.set("expressions", tree.expressions[:-1])


def _neighbours(column: exp.Column, schema: Schema) -> list[str]:
    """The neighbouring columns of a column in its table; two mutants are enough, even of a wide table."""
    found = resolve(column, schema)
    table = schema.table(found[0][0]) if found else None
    if table is None:
        return []
    names = [c.name for c in table.columns]
    at = [name.lower() for name in names].index(found[0][1])
    return [
        n for n in dict.fromkeys((names[(at + 1) % len(names)], names[at - 1])) if n.lower() != found[0][1]
    ]


def _is_join_condition(node: exp.Expression) -> bool:
    return isinstance(node.this, exp.Column) and isinstance(node.expression, exp.Column)


def _join(tree: exp.Expression, schema: Schema) -> Changes:
    for join in list(tree.find_all(exp.Join)):
        condition = join.args.get("on")
        if condition is None:
            continue
        if not join.side and (yield "inner join to left join"):
            join.set("kind", None)
            join.set("side", "LEFT")
        if (yield "drop the join's condition"):
            join.set("on", None)
        for node in list(condition.find_all(exp.EQ)):
            for name in _other_columns(node.right, schema)[:2] if _is_join_condition(node) else ():
                if (yield f"join on {name}"):
                    node.right.set("this", exp.to_identifier(name, quoted=True))
    for select in list(tree.find_all(exp.Select)):
        joins = select.args.get("joins") or []
        unused = joins and not _is_used(select, joins[-1].this.alias_or_name, joins[-1])
        if unused and (yield "drop the last table"):
            select.set("joins", joins[:-1])


def _is_used(select: exp.Select, alias: str, but: exp.Expression) -> bool:
    inside = {id(node) for node in but.walk()}
    columns = [c for c in select.find_all(exp.Column) if id(c) not in inside]
    return any(not c.table or c.table.lower() == alias.lower() for c in columns)


def _other_columns(column: exp.Column, schema: Schema) -> list[str]:
    found = resolve(column, schema)
    table = schema.table(found[0][0]) if found else None
    return [c.name for c in table.columns if c.name.lower() != found[0][1]] if table else []


def _visible_columns(node: exp.Expression, schema: Schema) -> list[str]:
    names: list[str] = []
    for _, table_name in visible(node):
        table = schema.table(table_name)
        if table is not None:
            names += [column.name for column in table.columns if column.name not in table.primary]
    return names


def _condition(tree: exp.Expression, _schema: Schema) -> Changes:
    for name in ("where", "having"):
        for select in list(tree.find_all(exp.Select)):
            clause = select.args.get(name)
            if clause is None:
                continue
            if (yield f"drop {name.upper()}"):
                select.set(name, None)
            for node in list(clause.find_all(exp.And, exp.Or)):
                if (yield f"drop the right side of {node.key}"):
                    node.replace(node.left.copy())
                if (yield f"drop the left side of {node.key}"):
                    node.replace(node.right.copy())


def _group(tree: exp.Expression, _schema: Schema) -> Changes:
    for select in list(tree.find_all(exp.Select)):
        group = select.args.get("group")
        if group is None:
            continue
        if (yield "drop GROUP BY"):
            select.set("group", None)
        if len(group.expressions) > 1 and (yield "group by the first only"):
            group.set("expressions", group.expressions[:1])


def _order(tree: exp.Expression, _schema: Schema) -> Changes:
    for order in list(tree.find_all(exp.Order)):
        if (yield "drop ORDER BY"):
            order.pop()
        for term in order.expressions:
            if isinstance(term, exp.Ordered) and (yield "the other direction"):
                descending = not term.args.get("desc")
                term.set("desc", descending)
                # SQLite's default: NULL is the smallest value.
                term.set("nulls_first", not descending)


def _limit(tree: exp.Expression, _schema: Schema) -> Changes:
    for limit in list(tree.find_all(exp.Limit)):
        if (yield "drop LIMIT"):
            limit.pop()
        value = limit.expression
        if isinstance(value, exp.Literal) and value.name.isdigit():
            more = str(int(value.name) + 1)
            if (yield f"LIMIT {more}"):
                value.replace(exp.Literal.number(more))


_SET_OPERATION_SWAPS: dict[type[exp.Expression], tuple[type[exp.Expression], ...]] = {
    exp.Union: (exp.Intersect,),
    exp.Intersect: (exp.Union, exp.Except),
    exp.Except: (exp.Intersect, exp.Union),
}


def _set_operation(tree: exp.Expression, _schema: Schema) -> Changes:
    for node in list(tree.find_all(exp.SetOperation)):
        if isinstance(node, exp.Union) and node.args.get("distinct") and (yield "UNION to UNION ALL"):
            node.set("distinct", False)
        for other in _SET_OPERATION_SWAPS.get(type(node), ()):
            if (yield f"{node.key} to {other.key}"):
                # node.replace() cannot replace the root.
                node.__class__ = other
                node.set("distinct", True)
        if node is not tree and (yield "the first query alone"):
            node.replace(node.left.copy())


OPERATORS: dict[str, MutationOperator] = {
    "distinct": _distinct,
    "operator": _operator,
    "literal": _literal,
    "aggregate": _aggregate,
    "column": _column,
    "join": _join,
    "condition": _condition,
    "group": _group,
    "order": _order,
    "limit": _limit,
    "set operation": _set_operation,
}
