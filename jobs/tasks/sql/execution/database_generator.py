"""Databases made to tell a gold query from its neighbours: seeded, small, from the query's own literals.

One call makes one database. Successive `variant`s differ in size, in how often values repeat, in
NULLs, in how often rows meet across tables: what kills one wrong query often hides another.
Foreign keys are respected, some parents have no children, and some variants leave a table empty.
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
    """How one variant is filled. Shares are probabilities."""

    rows: int
    distinct: int  # values that a column draws from, besides literals
    literal_share: float
    null_share: float
    empty_share: float  # that a table stays empty
    hit_share: (
        float  # that a row satisfies every condition of the query on its table, and half that: all but one
    )


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
#: Rows of a table that the query does not read: where it refers to one that the query reads, and elsewhere.
_REFERRING_ROWS, _OTHER_ROWS = 8, 3
#: Rows that a table may be given so that groups reach the size a HAVING asks for.
_MAX_ROWS = 150


def generate_database(
    schema: Schema,
    used: frozenset[str],
    facts: QueryConstraints,
    seed: int,
    variant: int,
    *,
    fill_all: bool = False,
) -> bytes:
    """The file image of one database: every table of `schema`, rows in those of `used` and what they refer to.

    With `fill_all`, a few rows in the others too: an answer that asks more of another table than the
    question does must not have its condition for free. The rows of `used` do not depend on it. The
    same arguments give the same bytes.
    """
    filler = _Filler(schema, facts, random.Random(f"{seed}/{variant}"), SHAPES[variant % len(SHAPES)])
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
    """The file image of the empty database; most of the time of making a candidate would go into its DDL."""
    connection = connections.unguarded_image()
    try:
        connection.execute("PRAGMA page_size=1024")
        for table in schema.tables:
            connection.execute(create_table(table))
        return connection.serialize("main")
    finally:
        connection.close()


def _with_parents(schema: Schema, used: frozenset[str]) -> set[str]:
    """Lower-case names of the used tables and of every table they refer to."""
    wanted, waiting = set(), list(used)
    while waiting:
        name = waiting.pop()
        table = schema.table(name)
        if table is not None and name not in wanted:
            wanted.add(name)
            waiting += [key.table.lower() for key in table.foreign]
    return wanted


def _parents_first(schema: Schema, wanted: set[str]) -> list[TableSchema]:
    """Tables in an order in which a referred table comes first; a cycle is cut where it closes."""
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
    """Rows table by table; remembers what was filled, so that children can refer to it."""

    def __init__(self, schema: Schema, facts: QueryConstraints, rng: random.Random, shape: Shape) -> None:
        self._schema, self._facts, self._rng, self._shape = schema, facts, rng, shape
        self._group = _groups(facts)
        self._pools: dict[ColumnKey, column_values.ColumnValues] = {}
        self._filled: dict[ColumnKey, list[Value]] = {}
        self._asked = {key for key, hits in {**facts.hits, **facts.patterns}.items() if hits}

    def rows(self, table: TableSchema) -> list[tuple[Value, ...]]:
        shape, rng = self._shape, self._rng
        count = 0 if rng.random() < shape.empty_share else max(1, round(self._size() * rng.uniform(0.6, 1.4)))
        modes = [self._mode(table) for _ in range(count)]
        return self._kept(table, [self._column(table, column, modes) for column in table.columns])

    def few_rows(self, table: TableSchema, read: Set[str]) -> list[tuple[Value, ...]]:
        """Rows of a table that the query does not read; more where it refers to one of `read`."""
        if self._rng.random() < self._shape.empty_share:
            return []
        refers = any(key.table.lower() in read for key in table.foreign)
        count = _REFERRING_ROWS if refers else _OTHER_ROWS
        return self._kept(table, [self._met_column(table, column, count) for column in table.columns])

    def _met_column(self, table: TableSchema, column: Column, count: int) -> list[Value]:
        """As `_column`, in which every other value is one of a column of the same name that is filled already."""
        found = self._column(table, column, [_no_column] * count)
        if column.key or is_implicit_key(table, column) or self._parent_values(table, column) is not None:
            return found
        name = column.name.lower()
        met = [value for key, values in self._filled.items() if key[1] == name for value in values]
        return [self._rng.choice(met) if met and place % 2 else value for place, value in enumerate(found)]

    def _kept(self, table: TableSchema, columns: Sequence[Sequence[Value]]) -> list[tuple[Value, ...]]:
        """The rows of a table's columns, remembered."""
        rows = list(zip(*columns, strict=True))
        if not table.primary and not any(column.key for column in table.columns):
            # Whole rows twice: what tells DISTINCT, UNION and counts apart.
            rows += [rows[self._rng.randrange(len(rows))] for _ in range(len(rows) // 5)]
        for place, column in enumerate(table.columns):
            self._filled[table.name.lower(), column.name.lower()] = [row[place] for row in rows]
        return rows

    def _size(self) -> int:
        wanted = [size for size in self._facts.sizes if 0 < size <= _MAX_ROWS // 3]
        return max([self._shape.rows, *(3 * (size + 1) for size in wanted)])

    def _mode(self, table: TableSchema) -> Callable[[str], bool]:
        """For one row: which of its columns (by lower-case name) must satisfy the query."""
        drawn, share = self._rng.random(), self._shape.hit_share
        if drawn < share:
            return lambda _column: True
        if drawn < 1.5 * share:
            asked = [
                c.name.lower() for c in table.columns if (table.name.lower(), c.name.lower()) in self._asked
            ]
            but = self._rng.choice(asked) if asked else ""
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
        pool = self._pool((table.name.lower(), name), kind_of(column))
        if unique:
            return pool.distinct(rng, len(modes))
        share = 0.0 if column.required or is_key_like(column) else self._shape.null_share
        return [
            pool.hit(rng) if mode(name) else None if rng.random() < share else pool.draw(rng)
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
        # Some parents stay without children, so that outer joins, IN and EXCEPT have something to find.
        chosen = [value for value in present if self._rng.random() < 0.75] or present
        share = self._shape.null_share / 2 if nulls else 0.0
        return [
            None if not chosen or self._rng.random() < share else self._rng.choice(chosen)
            for _ in range(count)
        ]

    def _pool(self, key: ColumnKey, kind: ColumnKind) -> column_values.ColumnValues:
        group = self._group.get(key, key)
        if group not in self._pools:
            members = [k for k, g in self._group.items() if g == group] or [key]
            self._pools[group] = column_values.column_values(
                kind,
                [v for member in sorted(members) for v in self._facts.literals.get(member, ())],
                [v for member in sorted(members) for v in self._facts.hits.get(member, ())],
                [p for member in sorted(members) for p in self._facts.patterns.get(member, ())],
                self._rng,
                self._shape.distinct,
                self._shape.literal_share,
            )
        return self._pools[group]


def _no_column(_column: str) -> bool:
    return False


def is_key_like(column: Column) -> bool:
    """Whether a column's name says that it identifies something: such columns are not NULL in real data."""
    name = column.name.lower()
    return column.key or name == "id" or name.endswith(("_id", "_code")) or column.name.endswith(("ID", "Id"))


def is_implicit_key(table: TableSchema, column: Column) -> bool:
    """Whether a column without declared key is the table's own (`singer.Singer_ID`): contexts declare none."""
    if table.primary:
        return False
    name, own = column.name.lower().replace("_", ""), table.name.lower().replace("_", "")
    return name == "id" or name in (f"{own}id", f"{own.removesuffix('s')}id")


def _groups(facts: QueryConstraints) -> dict[ColumnKey, ColumnKey]:
    """Column -> representative of the columns it is compared with: they draw from one pool, so that rows meet."""
    leader: dict[ColumnKey, ColumnKey] = {}

    def find(key: ColumnKey) -> ColumnKey:
        while leader.get(key, key) != key:
            key = leader[key]
        return key

    for a, b in facts.meeting:
        first, second = sorted((find(a), find(b)))
        leader[second] = first
        leader.setdefault(first, first)
    return {key: find(key) for key in sorted({*facts.literals, *facts.patterns, *leader})}
