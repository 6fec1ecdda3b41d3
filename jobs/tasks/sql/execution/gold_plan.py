"""Which results a gold query allows, as a plan: its sort keys, LIMIT and OFFSET taken apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlglot import exp

from jobs.tasks.sql.execution.schema import Schema
from jobs.tasks.sql.execution.syntax import DIALECT, from_sources, unwrapped


@dataclass(frozen=True)
class GoldPlan:
    """How to run a gold query so that all results allowed by its ORDER BY and LIMIT are known.

    `mode`: "bag" if row order is free; "exact" if the rows must come in the order that `sql` returns;
    "choice" if rows with equal sort keys may come in any order and `limit` of them, from `offset` on, are
    expected. For "choice", `sql` is the gold query without LIMIT, with `appended` more outputs; `keys` are
    the output positions of the sort keys, from 0 or negative from the end.
    """

    sql: str
    mode: Literal["bag", "choice", "exact"]
    appended: int = 0
    keys: tuple[int, ...] = ()
    limit: int | None = None
    offset: int = 0

    def to_json(self) -> dict[str, object]:
        return {
            "sql": self.sql,
            "mode": self.mode,
            "appended": self.appended,
            "keys": self.keys,
            "limit": self.limit,
            "offset": self.offset,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> GoldPlan:
        return cls(
            value["sql"],
            value["mode"],
            value["appended"],
            tuple(value["keys"]),
            value["limit"],
            value["offset"],
        )


def plan_gold(gold: str, tree: exp.Expression | None, schema: Schema | None = None) -> GoldPlan:
    """The plan of a gold query; mode "exact" if the results it allows cannot be expressed otherwise.

    `schema` tells columns from output aliases inside sort expressions.
    """
    if tree is None:
        return GoldPlan(gold, "exact" if "order by" in gold.lower() else "bag")
    root = unwrapped(tree)
    order, limit, offset = (root.args.get(name) for name in ("order", "limit", "offset"))
    if not order and not limit:
        return GoldPlan(gold, "bag")
    wanted = _integer(limit), _integer(offset) if offset else 0
    if (limit and wanted[0] is None) or wanted[1] is None:
        return GoldPlan(gold, "exact")
    plain = root.copy()
    for name in ("limit", "offset"):
        plain.set(name, None)
    keys = _keys(plain, order.expressions if order else [], schema)
    if keys is None:
        return GoldPlan(gold, "exact")
    positions, appended = keys
    return GoldPlan(plain.sql(dialect=DIALECT), "choice", appended, positions, wanted[0], wanted[1])


def _integer(clause: Any) -> int | None:
    value = clause.expression if clause is not None else None
    if isinstance(value, exp.Literal) and not value.is_string and value.name.isdigit():
        return int(value.name)
    return None


def _keys(
    query: exp.Expression, terms: Iterable[exp.Expression], schema: Schema | None
) -> tuple[tuple[int, ...], int] | None:
    """Output positions of the sort keys and the number of outputs appended to `query`; None if impossible.

    A position counts from 0, or from the end for an appended output.
    """
    first: Any = query
    while isinstance(first, exp.SetOperation | exp.Subquery):
        first = first.this
    if not isinstance(first, exp.Select):
        return None
    can_append = first is query and not first.args.get("distinct")
    outputs = _Outputs(first, None if query.find(exp.With) else schema)
    positions: list[int] = []
    appended: list[exp.Expression] = []
    for term in terms:
        key = term.this if isinstance(term, exp.Ordered) else term
        found = outputs.position(key)
        if found is not None and not outputs.has_star and 0 <= found < len(first.expressions):
            positions.append(found)
            continue
        extra = outputs.as_output(key) if can_append else None
        if extra is None:
            return None
        appended.append(extra)
        positions.append(-len(appended))
    for expression in appended:
        first.append("expressions", expression)
    # -k is the k-th appended output: position k - 1 - len(appended) from the end.
    return tuple(p if p >= 0 else -(len(appended) + p + 1) for p in positions), len(appended)


class _Outputs:
    """Name resolution of ORDER BY terms against the outputs of a SELECT, by SQLite's rules.

    A name that is the whole term resolves to an output alias before a table column; inside an expression, to a
    table column before an alias. An output without alias matches the same column or the same text.
    """

    def __init__(self, select: exp.Select, schema: Schema | None) -> None:
        shown = list(select.expressions)
        self.has_star = any(output.is_star for output in shown)
        self._columns = _columns_of(select, schema)
        backwards = list(reversed(list(enumerate(shown))))
        self._aliases: dict[str, tuple[int, exp.Expression]] = {
            o.alias.lower(): (i, o.this) for i, o in backwards if isinstance(o, exp.Alias)
        }
        # USING and NATURAL merge two columns into one.
        merged = any(
            join.args.get("using") or join.args.get("method") for join in select.args.get("joins") or []
        )
        plain = [(i, o) for i, o in backwards if isinstance(o, exp.Column) and not merged]
        self._names: dict[str, int] = {output.name.lower(): i for i, output in plain}
        self._texts = {_text(output.unalias()): i for i, output in backwards}

    def position(self, key: exp.Expression) -> int | None:
        """The position, from 0, of the output that a sort key names; None if it is no output."""
        inner = _sorted_by(key)
        if _is_position(inner):
            return int(inner.name) - 1
        if isinstance(inner, exp.Column) and not inner.table:
            name = inner.name.lower()
            if name in self._aliases:
                return self._aliases[name][0]
            if name in self._names:
                return self._names[name]
        return self._texts.get(_text(inner))

    def as_output(self, key: exp.Expression) -> exp.Expression | None:
        """A sort key as an additional output, aliases replaced by what they name; None if a name is ambiguous."""
        inner = _sorted_by(key)
        if _is_position(inner):
            return None
        whole = isinstance(inner, exp.Column) and not inner.table and inner.name.lower() in self._aliases
        if whole and self._is_column(inner.name):
            # `*` also returns a column of that name: the first of the two outputs is the sort key.
            return None
        holder = exp.Paren(this=key.copy())
        for column in list(holder.find_all(exp.Column)):
            name = column.name.lower()
            if column.table or name not in self._aliases or self._is_column(name) is True:
                continue
            if self._is_column(name) is None or column.parent_select is not None:
                return None
            column.replace(exp.Paren(this=self._aliases[name][1].copy()))
        found: exp.Expression = holder.this
        return found

    def _is_column(self, name: str) -> bool | None:
        """Whether a source table has a column of that name; None if the columns are not known."""
        return None if self._columns is None else name.lower() in self._columns


#: Names of the row id, which every table has.
_ROW_ID_NAMES = frozenset({"rowid", "oid", "_rowid_"})


def _columns_of(select: exp.Select, schema: Schema | None) -> frozenset[str] | None:
    """Lower-case names of all columns a SELECT can name; None if a source is no table of the schema."""
    found: set[str] = set(_ROW_ID_NAMES)
    for source in from_sources(select):
        table = schema.table(source.name) if schema is not None and isinstance(source, exp.Table) else None
        if table is None or source.args.get("joins"):
            return None
        found |= {column.name.lower() for column in table.columns}
    return None if select.args.get("laterals") else frozenset(found)


def _sorted_by(key: exp.Expression) -> exp.Expression:
    """A sort key without parentheses and COLLATE, which SQLite ignores when it looks for an output."""
    while isinstance(key, exp.Paren | exp.Collate):
        key = key.this
    return key


def _is_position(key: exp.Expression) -> bool:
    return isinstance(key, exp.Literal) and not key.is_string and key.name.isdigit()


def _text(node: exp.Expression) -> str:
    """An expression as text, identifiers in lower case and unquoted."""
    copy = _sorted_by(node).copy()
    for identifier in copy.find_all(exp.Identifier):
        identifier.set("this", identifier.name.lower())
        identifier.set("quoted", False)
    return str(copy.sql(dialect=DIALECT))
