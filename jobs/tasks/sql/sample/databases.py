"""The sample's databases: schemas from `domains`, rows from a seed, SQLite files with reproducible bytes."""

from __future__ import annotations

import random
import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from jobs.tasks.sql.sample import vocabulary
from jobs.tasks.sql.sample.domains import DOMAINS

Value = str | int | float

_NUMBERS = re.compile(r"(\d+)-(\d+)\Z")
_HALVES = re.compile(r"(\d+\.\d)-(\d+\.\d)\Z")
#: Rows of the first and the second table of a database.
ROWS = (18, 30)
#: Bytes 96 to 99 of an SQLite file hold the version of the library that wrote it.
_VERSION_OFFSET, _VERSION = 96, (3_040_000).to_bytes(4, "big")


@dataclass(frozen=True)
class Column:
    """One column; `kind` says how its values are drawn (see `domains`)."""

    name: str
    kind: str

    @property
    def label(self) -> str:
        """The column's name in a question."""
        return self.name.replace("_", " ")

    @property
    def sql_type(self) -> str:
        if _HALVES.match(self.kind):
            return "REAL"
        return "INTEGER" if _NUMBERS.match(self.kind) else "TEXT"

    @property
    def is_number(self) -> bool:
        return self.sql_type != "TEXT"

    @property
    def is_category(self) -> bool:
        return self.kind == "town" or "|" in self.kind


@dataclass(frozen=True)
class Table:
    """A table; its last column is a foreign key to `parent`."""

    plural: str
    singular: str
    columns: tuple[Column, ...]
    parent: Table | None = None

    @property
    def name(self) -> str:
        return self.plural

    @property
    def thing(self) -> str:
        """The name of one row in a question."""
        return self.singular.replace("_", " ")

    @property
    def key(self) -> str:
        """The name of a child's foreign key column."""
        return f"{self.singular}_id"

    @property
    def display(self) -> Column:
        return self.columns[0]


@dataclass(frozen=True)
class Database:
    """A schema with its rows: `rows[table name]` in insertion order, values in the order of `create`."""

    name: str
    tables: tuple[Table, ...]
    rows: dict[str, list[tuple[Value, ...]]]

    @property
    def schema(self) -> str:
        """CREATE TABLE text, one statement a line."""
        return ";\n".join(_create(table, len(self.tables) > 1) for table in self.tables)

    def column_values(self, table: Table, column: Column) -> list[Value]:
        offset = 1 if len(self.tables) > 1 and table.parent is None else 0
        index = table.columns.index(column) + offset
        return [row[index] for row in self.rows[table.name]]

    def connect(self) -> sqlite3.Connection:
        """The database in memory."""
        connection = sqlite3.connect(":memory:")
        self._fill(connection)
        return connection

    def write(self, path: Path) -> None:
        """Write the database as a file with the same bytes for every version of SQLite."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        connection = sqlite3.connect(path)
        try:
            connection.execute("PRAGMA page_size = 1024")
            connection.execute("PRAGMA encoding = 'UTF-8'")
            connection.execute("PRAGMA auto_vacuum = NONE")
            connection.execute("PRAGMA journal_mode = DELETE")
            self._fill(connection)
        finally:
            connection.close()
        with path.open("r+b") as stream:
            stream.seek(_VERSION_OFFSET)
            stream.write(_VERSION)

    def _fill(self, connection: sqlite3.Connection) -> None:
        with connection:
            connection.execute("BEGIN")
            for table in self.tables:
                connection.execute(_create(table, len(self.tables) > 1))
                marks = ", ".join("?" for _ in self.rows[table.name][0])
                connection.executemany(f"INSERT INTO {table.name} VALUES ({marks})", self.rows[table.name])


def _create(table: Table, linked: bool) -> str:
    parts = [f"{column.name} {column.sql_type}" for column in table.columns]
    if linked and table.parent is None:
        parts.insert(0, "id INTEGER PRIMARY KEY")
    if table.parent is not None:
        parts.append(f"{table.parent.key} INTEGER REFERENCES {table.parent.name}(id)")
    return f"CREATE TABLE {table.name} ({', '.join(parts)})"


def databases(seed: int) -> list[Database]:
    """Every database, in the order of `domains`; rows depend on the seed and the database's name."""
    found = []
    for name, tables in schemas():
        rng = random.Random(f"tuneyard sample rows {seed} {name}")
        rows: dict[str, list[tuple[Value, ...]]] = {}
        for table, count in zip(tables, ROWS, strict=False):
            columns: list[list[Value]] = [_values(column.kind, count, rng) for column in table.columns]
            if len(tables) > 1 and table.parent is None:
                columns.insert(0, list(range(1, count + 1)))
            if table.parent is not None:
                # The last parents have no children, so that questions about "no children" have answers.
                columns.append([rng.randint(1, ROWS[0] - 4) for _ in range(count)])
            rows[table.name] = list(zip(*columns, strict=True))
        found.append(Database(name, tables, rows))
    return found


def schemas() -> list[tuple[str, tuple[Table, ...]]]:
    """(name, tables) of every block of `domains`."""
    blocks: list[tuple[str, list[Table]]] = []
    for line in DOMAINS.strip().splitlines():
        head, colon, tail = line.partition(": ")
        if not colon:
            blocks.append((line, []))
            continue
        plural, singular = head.split("/")
        columns = tuple(Column(*item.split(":")) for item in tail.split(", "))
        tables = blocks[-1][1]
        tables.append(Table(plural, singular, columns, tables[0] if tables else None))
    return [(name, tuple(tables)) for name, tables in blocks]


def _values(kind: str, count: int, rng: random.Random) -> list[Value]:
    """`count` values of a kind; names are unique, numbers and categories repeat."""
    if match := _HALVES.match(kind):
        low, high = (round(float(text) * 2) for text in match.groups())
        return [rng.randint(low, high) / 2 for _ in range(count)]
    if match := _NUMBERS.match(kind):
        low, high = (int(text) for text in match.groups())
        return [_rounded(rng.randint(low, high), high) for _ in range(count)]
    if "|" in kind:
        return [rng.choice(kind.split("|")) for _ in range(count)]
    if kind == "town":
        towns = rng.sample(vocabulary.TOWNS, 6)
        return [rng.choice(towns) for _ in range(count)]
    return [*rng.sample(_names(kind), count)]


def _rounded(value: int, high: int) -> int:
    """Round large numbers, as 43,687 to 43,600; ranges below 3,000 (years) stay exact."""
    step = 1 if high < 3000 else 10 if high < 10_000 else 100
    return max(value // step * step, step if step > 1 else value)


def _names(kind: str) -> list[str]:
    if kind == "person":
        return [f"{first} {last}" for first in vocabulary.FIRST_NAMES for last in vocabulary.LAST_NAMES]
    if kind == "place":
        return [f"{first}{ending}" for first in vocabulary.PLACES for ending in vocabulary.PLACE_ENDINGS]
    if kind == "title":
        return [f"{first} {second}" for first in vocabulary.TITLE_FIRST for second in vocabulary.TITLE_SECOND]
    if kind == "brand":
        return [f"{brand} {number}" for brand in vocabulary.BRANDS for number in (2, 5, 7)]
    if kind == "thing":
        return [
            f"{first} {second}"
            for first in vocabulary.THINGS
            for second in vocabulary.THINGS
            if first != second
        ]
    assert kind == "code", kind
    return [f"{letter}{number}" for letter in "ABCDEFGHKLMNPRSTVW" for number in range(10, 100, 3)]
