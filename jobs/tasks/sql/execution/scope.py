"""Name resolution in one SELECT: where columns come from, which identify a row, which cannot be NULL.

All conditions are sufficient, not necessary: what cannot be resolved (a subquery in FROM, an ambiguous name)
has no source. Common table expressions are not supported.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from sqlglot import exp

from jobs.tasks.sql.execution.database_generator import is_key_like
from jobs.tasks.sql.execution.schema import Column, Schema, TableSchema

#: A column of one table of a SELECT: (the table's alias there, the column), both in lower case.
Source = tuple[str, str]

_REJECTS_NULL = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Like, exp.Between)


def sources(select: exp.Select) -> list[exp.Expression]:
    """The items of FROM, JOIN and LATERAL, in order."""
    clause = select.args.get("from_")
    found = [clause.this] if clause is not None else []
    return found + [join.this for join in joins(select)] + list(select.args.get("laterals") or [])


def joins(select: exp.Select) -> list[exp.Join]:
    """The joins of a SELECT."""
    return list(select.args.get("joins") or [])


@dataclass(frozen=True)
class Scope:
    """One SELECT on a schema."""

    select: exp.Select
    schema: Schema

    @cached_property
    def tables(self) -> dict[str, TableSchema | None]:
        """Lower-case alias -> table; None if it is no table of the schema or the alias is not unique."""
        found: dict[str, TableSchema | None] = {}
        for source in sources(self.select):
            plain = isinstance(source, exp.Table) and not source.args.get("joins")
            alias = source.alias_or_name.lower()
            found[alias] = self.schema.table(source.name) if plain and alias not in found else None
        return found

    def source(self, column: exp.Column) -> Source | None:
        """Where a column comes from; None if it is not certainly one of this SELECT's own tables."""
        alias, name = column.table.lower(), column.name.lower()
        if alias:
            return (alias, name) if alias in self.tables else None
        known = [(alias, table) for alias, table in self.tables.items() if table is not None]
        owners = [alias for alias, table in known if table.column(name) is not None]
        return (owners[0], name) if len(owners) == 1 and len(known) == len(self.tables) else None

    def column(self, source: Source | None) -> tuple[TableSchema, Column] | None:
        """The table and column of the schema that a source names."""
        table = self.tables.get(source[0]) if source is not None else None
        column = table.column(source[1]) if table is not None and source is not None else None
        return (table, column) if table is not None and column is not None else None

    def is_identifier(self, node: exp.Expression) -> bool:
        """Whether an expression is a declared key column: no two rows of its table share a value."""
        found = self.column(self.source(node)) if isinstance(node, exp.Column) else None
        return found is not None and found[1].key

    def only_table(self) -> TableSchema | None:
        """The table of a SELECT that reads exactly one."""
        return next(iter(self.tables.values())) if len(sources(self.select)) == 1 else None

    def has_value(self, source: Source | None) -> bool:
        """Whether a column is never NULL in its table."""
        found = self.column(source)
        if found is None:
            return False
        table, column = found
        # A reference to the own table is NULL at the root of the hierarchy.
        self_reference = any(
            key.table.lower() == table.name.lower() and column.name.lower() in map(str.lower, key.columns)
            for key in table.foreign
        )
        return column.required or (is_key_like(column) and not self_reference)

    @cached_property
    def nullable_aliases(self) -> frozenset[str]:
        """Aliases whose columns an outer join may fill with NULL."""
        found: set[str] = set()
        before: list[str] = [source.alias_or_name.lower() for source in sources(self.select)[:1]]
        for join in joins(self.select):
            alias = join.this.alias_or_name.lower()
            found |= {alias} if join.side in ("LEFT", "FULL") else set()
            found |= set(before) if join.side in ("RIGHT", "FULL") else set()
            before.append(alias)
        return frozenset(found)

    def not_null(self) -> frozenset[Source]:
        """Columns that cannot be NULL after WHERE and the inner joins."""
        where = self.select.args.get("where")
        clauses = [where.this] if where is not None else []
        # Rows that a later RIGHT or FULL join adds need not satisfy earlier conditions.
        if all(join.side in ("", "LEFT") for join in joins(self.select)):
            clauses += [
                join.args["on"] for join in joins(self.select) if join.args.get("on") and not join.side
            ]
        return frozenset().union(*(self._rejected(clause) for clause in clauses))

    def _rejected(self, condition: exp.Expression) -> frozenset[Source]:
        """Columns for which NULL makes a condition fail."""
        if isinstance(condition, exp.Paren):
            return self._rejected(condition.this)
        if isinstance(condition, exp.And):
            return self._rejected(condition.left) | self._rejected(condition.right)
        if isinstance(condition, exp.Or):
            return self._rejected(condition.left) & self._rejected(condition.right)
        inner = condition.this if isinstance(condition, exp.Not) else condition
        if isinstance(inner, exp.Is):
            rejects = inner is not condition and isinstance(inner.expression, exp.Null)
        elif isinstance(inner, exp.In):
            # NULL NOT IN (nothing) is true.
            rejects = inner is condition or bool(inner.expressions)
        else:
            rejects = isinstance(inner, _REJECTS_NULL)
        sides = (inner.this, inner.args.get("expression")) if rejects else ()
        found = {self.source(side) for side in sides if isinstance(side, exp.Column)}
        return frozenset(source for source in found if source is not None)
