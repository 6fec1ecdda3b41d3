"""Generate small databases that distinguish a gold query from similar ones, from a seed and its literals.

Each `variant` has its own shape: size, repeated values, NULLs, share of rows that join. Data that kills one
mutant often hides another. Foreign keys are respected, some parents have no children, and some variants leave
a table empty.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache

from jobs.tasks.sql.execution import column_values, connections
from jobs.tasks.sql.execution.compare import Value
from jobs.tasks.sql.execution.query_constraints import ColumnKey, QueryConstraints
from jobs.tasks.sql.execution.schema import (
    Column,
    ColumnKind,
    Schema,
    TableSchema,
    create_table,
    kind_of,
    quoted,
)


@dataclass(frozen=True)
class Shape:
    """How a variant is filled; shares are probabilities.

    `distinct`: values per column besides literals. `empty_share`: that a table stays empty. `hit_share`: that a
    row satisfies all conditions of the query on its table; with half of it, all but one.
    """

    rows: int
    distinct: int
    literal_share: float
    null_share: float
    empty_share: float
    hit_share: float


SHAPES = (
    Shape(rows=12, distinct=6, literal_share=0.5, null_share=0.0, empty_share=0.0, hit_share=0.3),
    Shape(rows=20, distinct=4, literal_share=0.6, null_share=0.1, empty_share=0.0, hit_share=0.4),
    Shape(rows=8, distinct=12, literal_share=0.3, null_share=0.0, empty_share=0.0, hit_share=0.5),
    Shape(rows=30, distinct=3, literal_share=0.7, null_share=0.05, empty_share=0.0, hit_share=0.2),
    Shape(rows=5, distinct=3, literal_share=0.8, null_share=0.2, empty_share=0.0, hit_share=0.6),
    Shape(rows=16, distinct=8, literal_share=0.4, null_share=0.1, empty_share=0.2, hit_share=0.4),
    Shape(rows=40, distinct=10, literal_share=0.85, null_share=0.0, empty_share=0.0, hit_share=0.1),
    Shape(rows=14, distinct=6, literal_share=0.5, null_share=0.5, empty_share=0.0, hit_share=0.1),
)
#: Rows of a table that the query does not read: if it references one that the query reads, and otherwise.
_REFERRING_ROWS, _OTHER_ROWS = 8, 3
#: Upper bound on rows added so that groups reach the size in a HAVING.
_MAX_ROWS = 150


def generate_database(
    schema: Schema,
    used: frozenset[str],
    constraints: QueryConstraints,
    seed: int,
    variant: int,
    *,
    fill_all: bool = False,
) -> bytes:
    """The file image of a database with all tables of `schema`, and rows in `used` and the tables they reference.

    With `fill_all` the other tables have a few rows too, so that a wrong condition on one of them changes the
    result; the rows of `used` do not depend on it. The same arguments give the same bytes.
    """
    filler = _Filler(schema, constraints, random.Random(f"{seed}/{variant}"), SHAPES[variant % len(SHAPES)])
    read = _with_parents(schema, used)
    filled = [(table, filler.rows(table)) for table in _parents_first(schema, read)]
    if fill_all:
        everything = {table.name.lower() for table in schema.tables}
        others = [table for table in _parents_first(schema, everything) if table.name.lower() not in read]
        filled += [(table, filler.few_rows(table, read)) for table in others]
    connection = connections.unguarded_image(empty_database(schema))
    try:
        connection.execute("BEGIN")
        for table, rows in filled:
            places = ", ".join("?" * len(table.columns))
            connection.executemany(f"INSERT OR IGNORE INTO {quoted(table.name)} VALUES ({places})", rows)
        connection.execute("COMMIT")
        return connection.serialize("main")
    finally:
        connection.close()


@lru_cache(maxsize=8)
def empty_database(schema: Schema) -> bytes:
    """The file image of a database without rows; cached, because DDL takes most of the time of a candidate."""
    connection = connections.unguarded_image()
    try:
        connection.execute("PRAGMA page_size=1024")
        for table in schema.tables:
            connection.execute(create_table(table))
        return connection.serialize("main")
    finally:
        connection.close()


def _with_parents(schema: Schema, used: frozenset[str]) -> set[str]:
    """Lower-case names of the used tables and all tables they reference, transitively."""
    wanted, waiting = set(), list(used)
    while waiting:
        name = waiting.pop()
        table = schema.table(name)
        if table is not None and name not in wanted:
            wanted.add(name)
            waiting += [key.table.lower() for key in table.foreign]
    return wanted


def _parents_first(schema: Schema, wanted: set[str]) -> list[TableSchema]:
    """Tables in topological order, referenced tables first; cycles are broken."""
    placed: list[TableSchema] = []
    visiting: set[str] = set()

    def visit(table: TableSchema) -> None:
        if table.name.lower() in visiting:
            return
        visiting.add(table.name.lower())
        for key in table.foreign:
            parent = schema.table(key.table)
            if parent is not None:
                visit(parent)
        placed.append(table)

    for table in schema.tables:
        if table.name.lower() in wanted:
            visit(table)
    return placed


class _Filler:
    """Generates rows table by table; keeps the values, from which foreign keys are drawn."""

    def __init__(
        self, schema: Schema, constraints: QueryConstraints, rng: random.Random, shape: Shape
    ) -> None:
        self._schema, self._constraints, self._rng, self._shape = schema, constraints, rng, shape
        self._group = _groups(constraints)
        self._values: dict[ColumnKey, column_values.ColumnValues] = {}
        self._filled: dict[ColumnKey, list[Value]] = {}
        self._constrained = {
            key for key, hits in {**constraints.hits, **constraints.patterns}.items() if hits
        }

    def rows(self, table: TableSchema) -> list[tuple[Value, ...]]:
        shape, rng = self._shape, self._rng
        count = 0 if rng.random() < shape.empty_share else max(1, round(self._size() * rng.uniform(0.6, 1.4)))
        modes = [self._mode(table) for _ in range(count)]
        return self._kept(table, [self._column(table, column, modes) for column in table.columns])

    def few_rows(self, table: TableSchema, read: Set[str]) -> list[tuple[Value, ...]]:
        """Rows of a table that the query does not read; more if it references one of `read`."""
        if self._rng.random() < self._shape.empty_share:
            return []
        refers = any(key.table.lower() in read for key in table.foreign)
        count = _REFERRING_ROWS if refers else _OTHER_ROWS
        return self._kept(table, [self._matching_column(table, column, count) for column in table.columns])

    def _matching_column(self, table: TableSchema, column: Column, count: int) -> list[Value]:
        """As `_column`; every other value is drawn from filled columns of the same name."""
        found = self._column(table, column, [_no_column] * count)
        if column.key or is_implicit_key(table, column) or self._parent_values(table, column) is not None:
            return found
        name = column.name.lower()
        known = [value for key, values in self._filled.items() if key[1] == name for value in values]
        return [
            self._rng.choice(known) if known and place % 2 else value for place, value in enumerate(found)
        ]

    def _kept(self, table: TableSchema, columns: Sequence[Sequence[Value]]) -> list[tuple[Value, ...]]:
        """Zip columns into rows and keep them."""
        rows = list(zip(*columns, strict=True))
        if not table.primary and not any(column.key for column in table.columns):
            # Duplicate rows distinguish DISTINCT, UNION and counts.
            rows += [rows[self._rng.randrange(len(rows))] for _ in range(len(rows) // 5)]
        for place, column in enumerate(table.columns):
            self._filled[table.name.lower(), column.name.lower()] = [row[place] for row in rows]
        return rows

    def _size(self) -> int:
        wanted = [size for size in self._constraints.group_sizes if 0 < size <= _MAX_ROWS // 3]
        return max([self._shape.rows, *(3 * (size + 1) for size in wanted)])

    def _mode(self, table: TableSchema) -> Callable[[str], bool]:
        """For one row: a predicate on lower-case column names, True if the value must satisfy the query."""
        drawn, share = self._rng.random(), self._shape.hit_share
        if drawn < share:
            return lambda _column: True
        if drawn < 1.5 * share:
            constrained = [
                c.name.lower()
                for c in table.columns
                if (table.name.lower(), c.name.lower()) in self._constrained
            ]
            but = self._rng.choice(constrained) if constrained else ""
            return lambda column: column != but
        return _no_column

    def _column(
        self, table: TableSchema, column: Column, modes: Sequence[Callable[[str], bool]]
    ) -> list[Value]:
        name, rng = column.name.lower(), self._rng
        unique = column.key or is_implicit_key(table, column)
        parents = self._parent_values(table, column)
        if parents is not None:
            present = [value for value in parents if value is not None]
            return self._drawn(present, len(modes), unique, nulls=not column.required)
        drawn = self._column_values((table.name.lower(), name), kind_of(column))
        if unique:
            return drawn.distinct(rng, len(modes))
        share = 0.0 if column.required or is_key_like(column) else self._shape.null_share
        return [
            drawn.hit(rng) if mode(name) else None if rng.random() < share else drawn.draw(rng)
            for mode in modes
        ]

    def _parent_values(self, table: TableSchema, column: Column) -> list[Value] | None:
        for foreign in table.foreign:
            for source, target in zip(
                foreign.columns, foreign.targets or self._primary(foreign.table), strict=False
            ):
                if source.lower() == column.name.lower():
                    return self._filled.get((foreign.table.lower(), target.lower()))
        return None

    def _primary(self, table: str) -> Sequence[str]:
        found = self._schema.table(table)
        return found.primary if found is not None else ()

    def _drawn(self, present: Sequence[Value], count: int, unique: bool, nulls: bool) -> list[Value]:
        if unique:
            return self._rng.sample(present, min(count, len(present))) + [None] * max(0, count - len(present))
        # Some parents have no children, which outer joins, IN and EXCEPT distinguish.
        chosen = [value for value in present if self._rng.random() < 0.75] or present
        share = self._shape.null_share / 2 if nulls else 0.0
        return [
            None if not chosen or self._rng.random() < share else self._rng.choice(chosen)
            for _ in range(count)
        ]

    def _column_values(self, key: ColumnKey, kind: ColumnKind) -> column_values.ColumnValues:
        group = self._group.get(key, key)
        if group not in self._values:
            members = [k for k, g in self._group.items() if g == group] or [key]
            self._values[group] = column_values.column_values(
                kind,
                [v for member in sorted(members) for v in self._constraints.literals.get(member, ())],
                [v for member in sorted(members) for v in self._constraints.hits.get(member, ())],
                [p for member in sorted(members) for p in self._constraints.patterns.get(member, ())],
                self._rng,
                self._shape.distinct,
                self._shape.literal_share,
            )
        return self._values[group]


def _no_column(_column: str) -> bool:
    return False


def is_key_like(column: Column) -> bool:
    """Whether a column is a key or named like one; such columns are never NULL in real data."""
    name = column.name.lower()
    return column.key or name == "id" or name.endswith(("_id", "_code")) or column.name.endswith(("ID", "Id"))


def is_implicit_key(table: TableSchema, column: Column) -> bool:
    """Whether a column is the table's key by its name (`singer.Singer_ID`), in a schema that declares no keys."""
    if table.primary:
        return False
    name, own = column.name.lower().replace("_", ""), table.name.lower().replace("_", "")
    return name == "id" or name in (f"{own}id", f"{own.removesuffix('s')}id")


def _groups(constraints: QueryConstraints) -> dict[ColumnKey, ColumnKey]:
    """Column -> representative of the columns compared with it (union-find); they share values, so that rows join."""
    leader: dict[ColumnKey, ColumnKey] = {}

    def find(key: ColumnKey) -> ColumnKey:
        while leader.get(key, key) != key:
            key = leader[key]
        return key

    for a, b in constraints.compared:
        first, second = sorted((find(a), find(b)))
        leader[second] = first
        leader.setdefault(first, first)
    return {key: find(key) for key in sorted({*constraints.literals, *constraints.patterns, *leader})}
