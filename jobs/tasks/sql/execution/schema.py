"""Schemas: read from CREATE TABLE text or from a database, and written back as safe DDL.

Only names, declared types and keys are kept. The text is untrusted data: checks, triggers, defaults and views
are dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import apsw

ColumnKind = Literal["integer", "real", "text", "time", "boolean"]


@dataclass(frozen=True)
class Column:
    """`declared` is the type; `key`: the whole primary key, or unique; `required`: NOT NULL."""

    name: str
    declared: str
    key: bool
    required: bool


@dataclass(frozen=True)
class ForeignKey:
    """Columns that refer to another table."""

    columns: tuple[str, ...]
    table: str
    targets: tuple[str, ...]


@dataclass(frozen=True)
class TableSchema:
    """One table."""

    name: str
    columns: tuple[Column, ...]
    primary: tuple[str, ...]
    foreign: tuple[ForeignKey, ...]

    def column(self, name: str) -> Column | None:
        return next((column for column in self.columns if column.name.lower() == name.lower()), None)


@dataclass(frozen=True)
class Schema:
    """All tables of a database."""

    tables: tuple[TableSchema, ...]

    def table(self, name: str) -> TableSchema | None:
        return next((table for table in self.tables if table.name.lower() == name.lower()), None)

    @property
    def column_names(self) -> frozenset[str]:
        return frozenset(column.name.lower() for table in self.tables for column in table.columns)


class SchemaError(Exception):
    """SQLite refuses the CREATE TABLE text."""


_STATEMENT = re.compile(
    r"""(?:'(?:[^']|'')*(?:'|\Z)|"(?:[^"]|"")*(?:"|\Z)|`[^`]*(?:`|\Z)|\[[^\]]*(?:\]|\Z)|--[^\n]*|/\*.*?(?:\*/|\Z)|[^;])+""",
    re.DOTALL,
)
_DDL_ACTIONS = frozenset(
    {
        apsw.SQLITE_CREATE_TABLE,
        apsw.SQLITE_CREATE_INDEX,
        apsw.SQLITE_INSERT,
        apsw.SQLITE_UPDATE,
        apsw.SQLITE_READ,
        apsw.SQLITE_REINDEX,
        apsw.SQLITE_FUNCTION,
        apsw.SQLITE_TRANSACTION,
    }
)


def statements(text: str) -> Iterator[str]:
    """The statements of a script, split at semicolons outside quotes and comments."""
    for match in _STATEMENT.finditer(text):
        if match[0].strip():
            yield match[0].strip()


def from_text(text: str) -> Schema:
    """The schema that CREATE TABLE statements define. Raises SchemaError."""
    connection = apsw.Connection(":memory:", statementcachesize=0)
    try:
        connection.limit(apsw.SQLITE_LIMIT_ATTACHED, 0)
        connection.authorizer = lambda action, *_: (
            apsw.SQLITE_OK if action in _DDL_ACTIONS else apsw.SQLITE_DENY
        )
        for statement in statements(text):
            connection.execute(statement)
        connection.authorizer = None
        return read(connection)
    except (apsw.Error, ValueError) as error:
        raise SchemaError(str(error)[:300]) from None
    finally:
        connection.close()


def read(connection: apsw.Connection) -> Schema:
    """The schema of an open database; needs a connection that allows `pragma_table_info`."""
    names = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid"
    )
    return Schema(tuple(_read_table(connection, str(name)) for (name,) in names.fetchall()))


def _read_table(connection: apsw.Connection, name: str) -> TableSchema:
    info: list[Any] = connection.execute(
        'SELECT name, type, pk, "notnull" FROM pragma_table_info(?)', (name,)
    ).fetchall()
    primary = tuple(str(column) for place, column in sorted((int(r[2]), str(r[0])) for r in info) if place)
    unique = _unique_columns(connection, name)
    columns = tuple(
        Column(
            str(column),
            str(declared),
            primary == (column,) or column in unique,
            bool(required) or column in primary,
        )
        for column, declared, _, required in info
    )
    foreign: dict[int, list[tuple[str, str, str | None]]] = {}
    for number, table, source, target in connection.execute(
        'SELECT id, "table", "from", "to" FROM pragma_foreign_key_list(?) ORDER BY id, seq', (name,)
    ):
        foreign.setdefault(number, []).append((str(table), str(source), target))
    return TableSchema(
        name,
        columns,
        primary,
        tuple(
            ForeignKey(
                tuple(s for _, s, _ in parts),
                parts[0][0],
                tuple(str(t) for _, _, t in parts if t is not None),
            )
            for _, parts in sorted(foreign.items())
        ),
    )


def _unique_columns(connection: apsw.Connection, table: str) -> set[str]:
    single = set()
    indexes = connection.execute(
        'SELECT name FROM pragma_index_list(?) WHERE "unique" AND NOT partial', (table,)
    )
    for (index,) in indexes.fetchall():
        parts = connection.execute("SELECT name FROM pragma_index_info(?)", (index,)).fetchall()
        if len(parts) == 1 and parts[0][0] is not None:
            single.add(str(parts[0][0]))
    return single


def quoted(name: str) -> str:
    """A quoted identifier."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def create_table(table: TableSchema) -> str:
    """DDL with names, types and the primary key; INTEGER PRIMARY KEY stays an alias of the row id."""
    columns = []
    for column in table.columns:
        declared = re.sub(r"[^A-Za-z0-9_ (),.]", "", column.declared)
        columns.append(f"{quoted(column.name)} {declared}".rstrip())
    if table.primary:
        columns.append(f"PRIMARY KEY ({', '.join(map(quoted, table.primary))})")
    return f"CREATE TABLE {quoted(table.name)} ({', '.join(columns)})"


def kind_of(column: Column) -> ColumnKind:
    """The kind of a column's values, by its declared type and, for dates kept as text, its name."""
    declared, name = column.declared.lower(), column.name.lower()
    if "bool" in declared or declared == "bit":
        return "boolean"
    if "date" in declared or "time" in declared:
        return "time"
    if "int" in declared or "number" in declared:
        return "integer"
    if any(word in declared for word in ("char", "clob", "text")):
        return "time" if re.search(r"(^|_)(date|time)(_|$)|date$", name) else "text"
    if any(word in declared for word in ("real", "floa", "doub")):
        return "real"
    return "integer" if any(word in declared for word in ("num", "dec")) else "text"
