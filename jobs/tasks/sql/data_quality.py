"""Counts known kinds of fault in the rows of text-to-SQL data.

Schemas and gold queries are untrusted: they are compiled in an empty database in memory, under an authorizer
that refuses access to anything else, and never run on rows.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from jobs.tasks.rows import Row

Fault = dict[str, str | int]

_STEPS_ALLOWED = 2_000_000
_REFUSED = {sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH, sqlite3.SQLITE_PRAGMA}
_NAME = re.compile(r"[A-Za-z_]\w*")


def find(part: str, rows: Sequence[Row], directory: Path) -> list[Fault]:
    """Faults of one part's rows as {"part", "what", "rows", "of"}; only those found in a row."""
    broken, narrow = compile_golds(rows)
    databases = Counter(row.fields["database"] for row in rows)
    missing = databases.pop(None, 0)
    empty = sum(count for name, count in databases.items() if has_no_rows(directory / name))
    counts = {
        "the gold query does not compile on a database built from the schema": broken,
        "there is no database: answers can only be compared on generated rows": missing,
        "the database has a schema and no rows": empty,
    }
    if narrow > len(rows) / 2:
        counts["the context names only columns that the gold query uses: schema linking is given away"] = (
            narrow
        )
    return [{"part": part, "what": what, "rows": n, "of": len(rows)} for what, n in counts.items() if n]


def compile_golds(rows: Sequence[Row]) -> tuple[int, int]:
    """(rows whose gold does not compile on their schema, rows whose gold names every column of it)."""
    by_schema: dict[str, list[str]] = {}
    for row in rows:
        by_schema.setdefault(row.fields["schema"], []).append(row.gold)
    broken = narrow = 0
    for schema, golds in by_schema.items():
        connection = sqlite3.connect(":memory:")
        try:
            columns = _build(connection, schema)
            for gold in golds:
                if columns is None or not _compiles(connection, gold):
                    broken += 1
                elif columns <= {name.lower() for name in _NAME.findall(gold)}:
                    narrow += 1
        finally:
            connection.close()
    return broken, narrow


def _build(connection: sqlite3.Connection, schema: str) -> set[str] | None:
    """Create the tables; the names of their columns in lower case, or None if that fails."""
    steps = iter(range(_STEPS_ALLOWED // 1000))
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.set_authorizer(_authorize)
    connection.set_progress_handler(lambda: next(steps, None) is None, 1000)
    try:
        connection.executescript(schema)
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        described = (connection.execute(f"SELECT * FROM {_quoted(name)}").description for (name,) in tables)
        return {column[0].lower() for columns in described for column in columns}
    except (sqlite3.Error, sqlite3.Warning, ValueError):
        return None


def _compiles(connection: sqlite3.Connection, gold: str) -> bool:
    """EXPLAIN compiles a statement and runs nothing of it."""
    try:
        connection.execute(f"EXPLAIN {gold}").close()
    except (sqlite3.Error, sqlite3.Warning, ValueError):
        return False
    return True


def _authorize(action: int, *_details: str | None) -> int:
    return sqlite3.SQLITE_DENY if action in _REFUSED else sqlite3.SQLITE_OK


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def has_no_rows(path: Path) -> bool:
    """Whether every table of an SQLite file is empty. Raises sqlite3.DatabaseError for what is none."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        tables = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE 'CREATE TABLE%'"
        ).fetchall()
        return not any(
            connection.execute(f"SELECT 1 FROM {_quoted(name)} LIMIT 1").fetchone() for (name,) in tables
        )
    finally:
        connection.close()
