"""What a worker finds out about a schema and about a database file of the data, both untrusted."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

from jobs.tasks.sql.execution.records import CompileJob, DatabaseJob, DatabaseState

_STEPS_ALLOWED = 2_000_000
_REFUSED = {sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH, sqlite3.SQLITE_PRAGMA}
_NAME = re.compile(r"[A-Za-z_]\w*")


def compile_golds(job: CompileJob) -> tuple[int, int]:
    """(golds that do not compile on the schema, golds that name every column of it).

    They are compiled in an empty database in memory and never run on rows.
    """
    broken = narrow = 0
    connection = sqlite3.connect(":memory:")
    try:
        columns = _build(connection, job.schema)
        for gold in job.golds:
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


def database_state(job: DatabaseJob) -> DatabaseState:
    """Whether every table of an SQLite file is empty, or why it cannot be read."""
    address = f"{Path(job.database).absolute().as_uri()}?mode=ro&immutable=1"
    try:
        connection = sqlite3.connect(address, uri=True)
        try:
            tables = connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE 'CREATE TABLE%'"
            ).fetchall()
            filled = any(
                connection.execute(f"SELECT 1 FROM {_quoted(name)} LIMIT 1").fetchone() for (name,) in tables
            )
        finally:
            connection.close()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        return DatabaseState(problem=str(error))
    return DatabaseState(empty=not filled)
