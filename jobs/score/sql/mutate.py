"""Wrong queries made from a right one: one small change each, of the kind that models make.

They measure databases: a database on which a mutant returns what the gold returns cannot tell a
model's mistake of that kind from a right answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlglot import exp

from jobs.score.sql.facts import resolve, visible
from jobs.score.sql.schema import Schema
from jobs.score.sql.syntax import DIALECT, unwrapped

#: Mutants of one class of one query at most; a query with twenty columns has hundreds of the same kind.
MAX_PER_CLASS = 6


@dataclass(frozen=True)
class Mutant:
    """A changed query; `change` says what was changed, in words."""

    kind: str
    change: str
    sql: str


_Change = tuple[str, Callable[[], None]]
_Maker = Callable[[exp.Expression, Schema], Iterator[_Change]]


def mutants(tree: exp.Expression, schema: Schema) -> list[Mutant]:
    """The mutants of a query, in a fixed order, no two alike and none like the query."""
    root = unwrapped(tree)
    original = root.sql(dialect=DIALECT)
    found: dict[str, Mutant] = {}
    for kind, maker in _MAKERS.items():
        made = 0
        for index in range(len(list(maker(root.copy(), schema)))):
            changed = root.copy()
            change, apply = list(maker(changed, schema))[index]
            apply()
            sql = changed.sql(dialect=DIALECT)
            if sql != original and sql not in found:
                found[sql] = Mutant(kind, change, sql)
                made += 1
            if made == MAX_PER_CLASS:
                break
    return list(found.values())


def _distinct(tree: exp.Expression, _schema: Schema) -> Iterator[_Change]:
    for select in tree.find_all(exp.Select):
        if select.args.get("distinct"):
            yield "drop DISTINCT", lambda s=select: s.set("distinct", None)
        elif select is tree:
            yield "add DISTINCT", lambda s=select: s.set("distinct", exp.Distinct())
    for count in tree.find_all(exp.Count):
        inner = count.this
        if isinstance(inner, exp.Distinct):
            yield "count all instead of DISTINCT", lambda c=count, i=inner: c.set("this", i.expressions[0].copy())
        elif isinstance(inner, exp.Column) and not inner.is_star:
            yield "count DISTINCT", lambda c=count, i=inner: c.set("this", exp.Distinct(expressions=[i.copy()]))


_OPERATORS: dict[type[exp.Expression], tuple[type[exp.Expression], ...]] = {
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


def _operator(tree: exp.Expression, _schema: Schema) -> Iterator[_Change]:
    for node in tree.find_all(*_OPERATORS):
        if isinstance(node, exp.EQ) and isinstance(node.left, exp.Column) and isinstance(node.right, exp.Column):
            continue  # a join's condition: see _join
        for other in _OPERATORS[type(node)]:
            yield (
                f"{node.key} to {other.key}",
                lambda n=node, o=other: n.replace(o(this=n.left.copy(), expression=n.right.copy())),
            )
    for node in tree.find_all(exp.In, exp.Like, exp.Between, exp.Exists):
        if isinstance(node.parent, exp.Not):
            yield f"not {node.key} to {node.key}", lambda n=node: n.parent.replace(n.copy())
        else:
            yield f"{node.key} to not {node.key}", lambda n=node: n.replace(exp.Not(this=n.copy()))


def _literal(tree: exp.Expression, _schema: Schema) -> Iterator[_Change]:
    for node in tree.find_all(exp.Literal):
        if isinstance(node.parent, exp.Limit | exp.Offset | exp.Ordered):
            continue
        for text in _other_texts(node):
            make = exp.Literal.string if node.is_string else exp.Literal.number
            yield f"{node.name} to {text}", lambda n=node, t=text, m=make: n.replace(m(t))
    for column in tree.find_all(exp.Column):
        # SQLite reads "France" as a text where no column has that name.
        if column.this.args.get("quoted") and not column.table and not resolve(column, _schema):
            yield f"{column.name} in capitals", lambda c=column: c.replace(exp.Literal.string(c.name.swapcase() + "x"))


def _other_texts(node: exp.Literal) -> list[str]:
    if not node.is_string:
        try:
            number = int(node.name)
        except ValueError:
            return [f"{node.name}1"]
        return [str(number + 1), str(max(0, number - 1))]
    if isinstance(node.parent, exp.Like):
        return [node.name.replace("%", ""), f"{node.name.strip('%')}%", f"%{node.name.strip('%')}"]
    return [f"{node.name}x", node.name.swapcase()]


def _aggregate(tree: exp.Expression, schema: Schema) -> Iterator[_Change]:
    others: dict[type[exp.Expression], tuple[type[exp.Expression], ...]] = {
        exp.Max: (exp.Min, exp.Avg),
        exp.Min: (exp.Max, exp.Avg),
        exp.Avg: (exp.Sum, exp.Max),
        exp.Sum: (exp.Avg, exp.Count),
    }
    for node in tree.find_all(*others):
        for other in others[type(node)]:
            yield f"{node.key} to {other.key}", lambda n=node, o=other: n.replace(o(this=n.this.copy()))
    for count in tree.find_all(exp.Count):
        if isinstance(count.this, exp.Star):
            for name in _columns_at(count, schema)[:2]:
                yield f"count(*) to count({name})", lambda c=count, n=name: c.set("this", exp.column(n, quoted=True))


def _column(tree: exp.Expression, schema: Schema) -> Iterator[_Change]:
    for column in tree.find_all(exp.Column):
        if column.is_star or isinstance(column.parent, exp.EQ) and _joins(column.parent):
            continue
        found = resolve(column, schema)
        table = schema.table(found[0][0]) if found else None
        if table is None:
            continue
        names = [c.name for c in table.columns]
        at = [name.lower() for name in names].index(found[0][1])
        # The neighbours: for tables of twenty columns two wrong ones say as much as nineteen.
        for name in dict.fromkeys((names[(at + 1) % len(names)], names[at - 1])):
            if name.lower() != found[0][1]:
                yield (
                    f"{column.name} to {name}",
                    lambda c=column, n=name: c.set("this", exp.to_identifier(n, quoted=not n.isidentifier())),
                )
    for select in tree.find_all(exp.Select):
        if len(select.expressions) > 1 and select is tree:
            yield "drop the last output", lambda s=select: s.set("expressions", s.expressions[:-1])


def _joins(node: exp.Expression) -> bool:
    return isinstance(node.left, exp.Column) and isinstance(node.right, exp.Column)


def _join(tree: exp.Expression, schema: Schema) -> Iterator[_Change]:
    for join in tree.find_all(exp.Join):
        if join.args.get("on") is None:
            continue
        if not join.side:
            yield "inner join to left join", lambda j=join: (j.set("kind", None), j.set("side", "LEFT"))
        yield "drop the join's condition", lambda j=join: j.set("on", None)
        for node in join.args["on"].find_all(exp.EQ):
            if _joins(node):
                for name in _others_of(node.right, schema)[:2]:
                    yield f"join on {name}", lambda n=node, m=name: n.right.set("this", exp.to_identifier(m, quoted=True))
    for select in tree.find_all(exp.Select):
        joins = select.args.get("joins") or []
        if joins and not _mentions(select, joins[-1].this.alias_or_name, joins[-1]):
            yield "drop the last table", lambda s=select: s.set("joins", s.args["joins"][:-1])


def _mentions(select: exp.Select, alias: str, but: exp.Expression) -> bool:
    inside = {id(node) for node in but.walk()}
    columns = [c for c in select.find_all(exp.Column) if id(c) not in inside]
    return any(not c.table or c.table.lower() == alias.lower() for c in columns)


def _others_of(column: exp.Column, schema: Schema) -> list[str]:
    found = resolve(column, schema)
    table = schema.table(found[0][0]) if found else None
    return [c.name for c in table.columns if c.name.lower() != found[0][1]] if table else []


def _columns_at(node: exp.Expression, schema: Schema) -> list[str]:
    names: list[str] = []
    for _, table_name in visible(node):
        table = schema.table(table_name)
        if table is not None:
            names += [column.name for column in table.columns if column.name not in table.primary]
    return names


def _condition(tree: exp.Expression, _schema: Schema) -> Iterator[_Change]:
    for name in ("where", "having"):
        for select in tree.find_all(exp.Select):
            clause = select.args.get(name)
            if clause is None:
                continue
            yield f"drop {name.upper()}", lambda s=select, n=name: s.set(n, None)
            for node in clause.find_all(exp.And, exp.Or):
                yield f"drop the right side of {node.key}", lambda n=node: n.replace(n.left.copy())
                yield f"drop the left side of {node.key}", lambda n=node: n.replace(n.right.copy())


def _group(tree: exp.Expression, _schema: Schema) -> Iterator[_Change]:
    for select in tree.find_all(exp.Select):
        group = select.args.get("group")
        if group is None:
            continue
        yield "drop GROUP BY", lambda s=select: s.set("group", None)
        if len(group.expressions) > 1:
            yield "group by the first only", lambda g=group: g.set("expressions", g.expressions[:1])


def _order(tree: exp.Expression, _schema: Schema) -> Iterator[_Change]:
    for order in tree.find_all(exp.Order):
        yield "drop ORDER BY", lambda o=order: o.pop()
        for term in order.expressions:
            if isinstance(term, exp.Ordered):
                yield "the other direction", lambda t=term: _turn(t)


def _turn(term: exp.Ordered) -> None:
    descending = not term.args.get("desc")
    term.set("desc", descending)
    # As SQLite has it by default: NULL is the smallest value.
    term.set("nulls_first", not descending)


def _limit(tree: exp.Expression, _schema: Schema) -> Iterator[_Change]:
    for limit in tree.find_all(exp.Limit):
        yield "drop LIMIT", lambda n=limit: n.pop()
        value = limit.expression
        if isinstance(value, exp.Literal) and value.name.isdigit():
            more = str(int(value.name) + 1)
            yield f"LIMIT {more}", lambda v=value, m=more: v.replace(exp.Literal.number(m))


_SETS: dict[type[exp.Expression], tuple[type[exp.Expression], ...]] = {
    exp.Union: (exp.Intersect,),
    exp.Intersect: (exp.Union, exp.Except),
    exp.Except: (exp.Intersect, exp.Union),
}


def _set_operation(tree: exp.Expression, _schema: Schema) -> Iterator[_Change]:
    for node in tree.find_all(exp.SetOperation):
        if isinstance(node, exp.Union) and node.args.get("distinct"):
            yield "UNION to UNION ALL", lambda n=node: n.set("distinct", False)
        for other in _SETS.get(type(node), ()):
            yield f"{node.key} to {other.key}", lambda n=node, o=other: _become(n, o)
        if node is not tree:
            yield "the first query alone", lambda n=node: n.replace(n.left.copy())


def _become(node: exp.Expression, other: type[exp.Expression]) -> None:
    node.__class__ = other  # type: ignore[assignment]
    node.set("distinct", True)


_MAKERS: dict[str, _Maker] = {
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

KINDS: tuple[str, ...] = tuple(_MAKERS)
