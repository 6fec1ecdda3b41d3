"""What sqlglot knows of a query: its normal form, what its order leaves open, how hard it is.

Parsing a hostile text can take long or deep: these functions are called in the sandbox only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from jobs.tasks.sql.execution.cpu_limit import OutOfCpu, within_cpu
from jobs.tasks.sql.execution.schema import Schema

DIALECT = "sqlite"
_MAX_DEPTH = 100
#: A longer query is nobody's answer.
_MAX_ANSWER_CHARACTERS = 10_000
#: Nor is one that takes longer to read: each JOIN without ON doubles sqlglot's time.
_ANSWER_CPU_S = 2.0


def parse(sql: str) -> exp.Expression | None:
    """The tree of one query, or None where sqlglot cannot read it as one."""
    try:
        trees = sqlglot.parse(sql, dialect=DIALECT)
    except (SqlglotError, RecursionError, ValueError):
        return None
    if len(trees) != 1 or not isinstance(trees[0], exp.Query) or not _is_shallow(trees[0]):
        return None
    return trees[0]


def parse_answer(sql: str) -> exp.Expression | None:
    """As `parse`, for a text that nobody vouches for: None as well where it is long, or takes long to read."""
    if len(sql) > _MAX_ANSWER_CHARACTERS:
        return None
    try:
        with within_cpu(_ANSWER_CPU_S):
            return parse(sql)
    except OutOfCpu:
        return None


def _is_shallow(tree: exp.Expression) -> bool:
    """Whether the functions of this package, which call themselves, can go through a tree."""
    depths = {id(tree): 0}
    for node in tree.walk(bfs=True):
        if node.parent is not None and node is not tree:
            depths[id(node)] = depths[id(node.parent)] + 1
            if depths[id(node)] > _MAX_DEPTH:
                return False
    return True


def unwrapped(tree: exp.Expression) -> exp.Expression:
    """The query inside parentheses that enclose it whole."""
    while isinstance(tree, exp.Subquery) and isinstance(tree.this, exp.Query) and not _own_clauses(tree):
        tree = tree.this
    return tree


def _own_clauses(tree: exp.Expression) -> bool:
    return any(tree.args.get(name) for name in ("order", "limit", "offset"))


@dataclass(frozen=True)
class GoldPlan:
    """How to run a gold query so that everything its order leaves open is seen.

    `sql` returns the gold's columns and then `appended` more; `keys` are the output positions
    (from 0) that its ORDER BY sorts by. Where `mode` is "choice", rows with equal keys may come
    in any order, and `limit` rows from `offset` on are wanted of them.
    """

    sql: str
    mode: Literal["bag", "choice", "exact"]
    appended: int = 0
    keys: tuple[int, ...] = ()
    limit: int | None = None
    offset: int = 0


def gold_plan(gold: str, tree: exp.Expression | None, schema: Schema | None = None) -> GoldPlan:
    """The plan of a gold query; "exact" (its rows in its order) where its freedom cannot be expressed.

    `schema` is asked which names are columns, where a sort key names an output's alias inside an expression.
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
    """Positions of the sort keys in the output, appending to `query` what is not there; None where impossible.

    A position is counted from 0, an appended one as -1, -2, … in reverse order of appending.
    """
    first: Any = query
    while isinstance(first, exp.SetOperation | exp.Subquery):
        first = first.this
    if not isinstance(first, exp.Select):
        return None
    free = first is query and not first.args.get("distinct")
    outputs = _Outputs(first, None if query.find(exp.With) else schema)
    positions: list[int] = []
    appended: list[exp.Expression] = []
    for term in terms:
        key = term.this if isinstance(term, exp.Ordered) else term
        found = outputs.position(key)
        if found is not None and not outputs.starred and 0 <= found < len(first.expressions):
            positions.append(found)
            continue
        hidden = outputs.hidden(key) if free else None
        if hidden is None:
            return None
        appended.append(hidden)
        positions.append(-len(appended))
    for expression in appended:
        first.append("expressions", expression)
    # -k was "the k-th appended"; counted from the end of the row it is the last but …
    return tuple(p if p >= 0 else -(len(appended) + p + 1) for p in positions), len(appended)


class _Outputs:
    """The outputs of a SELECT, as its ORDER BY sees them.

    SQLite's rule for a name: if it is the whole term, an output's alias goes before a table's column; inside
    an expression a table's column goes before an alias. An output without alias has no name: it is found as
    the same column or the same text.
    """

    def __init__(self, select: exp.Select, schema: Schema | None) -> None:
        shown = list(select.expressions)
        self.starred = any(output.is_star for output in shown)
        self._columns = _columns_of(select, schema)
        backwards = list(reversed(list(enumerate(shown))))
        self._aliases: dict[str, tuple[int, exp.Expression]] = {
            o.alias.lower(): (i, o.this) for i, o in backwards if isinstance(o, exp.Alias)
        }
        # USING and NATURAL make one column of two, whose name stands for either.
        merged = any(
            join.args.get("using") or join.args.get("method") for join in select.args.get("joins") or []
        )
        plain = [(i, o) for i, o in backwards if isinstance(o, exp.Column) and not merged]
        self._names: dict[str, int] = {output.name.lower(): i for i, output in plain}
        self._texts = {_text(output.unalias()): i for i, output in backwards}

    def position(self, key: exp.Expression) -> int | None:
        """Which output a sort key is, from 0."""
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

    def hidden(self, key: exp.Expression) -> exp.Expression | None:
        """A sort key as an output of its own: an output sees no alias of the others. None where it cannot be told."""
        inner = _sorted_by(key)
        if _is_position(inner):
            return None
        whole = isinstance(inner, exp.Column) and not inner.table and inner.name.lower() in self._aliases
        if whole and self._is_column(inner.name):
            # Among a star's columns one has the alias's name: which of the two stands first decides.
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
        """Whether a table that is read has a column of that name; None where that is not known."""
        return None if self._columns is None else name.lower() in self._columns


#: Columns that every table has.
_ROW_NUMBERS = frozenset({"rowid", "oid", "_rowid_"})


def _columns_of(select: exp.Select, schema: Schema | None) -> frozenset[str] | None:
    """Lower-case names of all columns a SELECT can name, or None where it reads what is no table of the schema."""
    found: set[str] = set(_ROW_NUMBERS)
    for source in _sources(select):
        table = schema.table(source.name) if schema is not None and isinstance(source, exp.Table) else None
        if table is None or source.args.get("joins"):
            return None
        found |= {column.name.lower() for column in table.columns}
    return None if select.args.get("laterals") else frozenset(found)


def _sorted_by(key: exp.Expression) -> exp.Expression:
    """A sort key without what SQLite looks through when it asks whether that is an output."""
    while isinstance(key, exp.Paren | exp.Collate):
        key = key.this
    return key


def _is_position(key: exp.Expression) -> bool:
    return isinstance(key, exp.Literal) and not key.is_string and key.name.isdigit()


def _text(node: exp.Expression) -> str:
    """An expression's text; names, not literals, in lower case."""
    copy = _sorted_by(node).copy()
    for identifier in copy.find_all(exp.Identifier):
        identifier.set("this", identifier.name.lower())
        identifier.set("quoted", False)
    return str(copy.sql(dialect=DIALECT))


def tables_used(tree: exp.Expression | None) -> frozenset[str]:
    """Lower-case names of the tables a query reads, common table expressions left out."""
    if tree is None:
        return frozenset()
    defined = {cte.alias_or_name.lower() for cte in tree.find_all(exp.CTE)}
    return frozenset(t.name.lower() for t in tree.find_all(exp.Table)) - defined


def normalised(tree: exp.Expression | None, columns: frozenset[str] = frozenset()) -> str | None:
    """One text for all spellings of a query: case, spacing, quoting, aliases, INNER, ASC, <> for !=.

    `columns` are the schema's column names in lower case: SQLite reads `"France"` as a text where
    no column has that name, and so does this. None where the query does not parse.
    """
    if tree is None:
        return None
    tree = unwrapped(tree.copy())
    for column in list(tree.find_all(exp.Column)):
        name = column.this
        if (
            isinstance(name, exp.Identifier)
            and name.quoted
            and not column.table
            and columns
            and name.name.lower() not in columns
        ):
            replacement = exp.Literal.string(name.name)
            if column is tree:
                return None
            column.replace(replacement)
    _rename_tables(tree)
    for identifier in tree.find_all(exp.Identifier):
        identifier.set("this", identifier.name.lower())
        identifier.set("quoted", False)
    for join in tree.find_all(exp.Join):
        if (join.args.get("kind") or "").upper() == "INNER":
            join.set("kind", None)
    for alias in list(tree.find_all(exp.Alias)):
        _drop_unused_alias(alias, tree)
    for ordered in tree.find_all(exp.Ordered):
        if not ordered.args.get("desc"):
            ordered.set("desc", None)
    return str(tree.sql(dialect=DIALECT, normalize_functions="lower"))


def _rename_tables(tree: exp.Expression) -> None:
    """Give tables the aliases t1, t2, … in order of appearance, scope by scope, and qualify nothing new."""
    number = 0
    for select in list(tree.find_all(exp.Select)):
        renamed: dict[str, str] = {}
        sources = [source for source in _sources(select) if isinstance(source, exp.Table | exp.Subquery)]
        for source in sources:
            number += 1
            old = source.alias_or_name.lower()
            renamed[old] = f"t{number}"
            source.set(
                "alias",
                exp.TableAlias(this=exp.to_identifier(f"t{number}"))
                if len(sources) > 1 or source.alias
                else None,
            )
        single = len(sources) == 1
        for column in select.find_all(exp.Column):
            if column.args.get("_renamed") or column.table.lower() not in renamed:
                continue
            local = column.parent_select is select
            column.set(
                "table", None if single and local else exp.to_identifier(renamed[column.table.lower()])
            )
            column.set("_renamed", True)
        if single and sources and isinstance(sources[0], exp.Table):
            sources[0].set("alias", None)


def _sources(select: exp.Select) -> list[exp.Expression]:
    clause = select.args.get("from_") or select.args.get("from")
    found = [clause.this] if clause is not None else []
    return found + [join.this for join in select.args.get("joins") or []]


def _drop_unused_alias(alias: exp.Alias, tree: exp.Expression) -> None:
    """An output's name changes nothing unless something refers to it."""
    if not isinstance(alias.parent, exp.Select):
        return
    name = alias.alias.lower()
    if any(column.name.lower() == name for column in tree.find_all(exp.Column)):
        return
    alias.replace(alias.this)
