"""SQLite connections restricted to reading: an authorizer, small limits, files opened read-only and immutable.

This is the inner sandbox; worker.py is the outer one. SQLite is the library bundled with apsw, not the
system's, so that verdicts do not depend on the machine.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import apsw

from jobs.tasks.sql.execution import sql_functions

#: Bytes of a value or a row. Also bounds calls that cannot be interrupted: instr(), trim() and others take
#: time quadratic in it.
MAX_VALUE_BYTES = 100_000
_SQLITE_LIMITS = {
    apsw.SQLITE_LIMIT_LENGTH: MAX_VALUE_BYTES,
    apsw.SQLITE_LIMIT_SQL_LENGTH: 110_000,
    apsw.SQLITE_LIMIT_COLUMN: 1_000,
    apsw.SQLITE_LIMIT_EXPR_DEPTH: 500,
    apsw.SQLITE_LIMIT_COMPOUND_SELECT: 100,
    apsw.SQLITE_LIMIT_VDBE_OP: 100_000,
    apsw.SQLITE_LIMIT_FUNCTION_ARG: 100,
    apsw.SQLITE_LIMIT_ATTACHED: 0,
    apsw.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1_000,
    apsw.SQLITE_LIMIT_VARIABLE_NUMBER: 0,
    apsw.SQLITE_LIMIT_TRIGGER_DEPTH: 1,
    apsw.SQLITE_LIMIT_WORKER_THREADS: 0,
}
#: A file is untrusted data: its pages may be corrupt and its views may call functions.
_FILE_PRAGMAS = ("query_only=ON", "trusted_schema=OFF", "cell_size_check=ON")
_READ_ACTIONS = frozenset({apsw.SQLITE_SELECT, apsw.SQLITE_READ, apsw.SQLITE_FUNCTION, apsw.SQLITE_RECURSIVE})
#: Functions that reach outside the database, or return random values.
REFUSED_FUNCTIONS = frozenset(
    {
        "load_extension",
        "fts3_tokenizer",
        "readfile",
        "writefile",
        "edit",
        "random",
        "randomblob",
        "sqlite_log",
    }
)


def open_file(path: Path, *, reverse: bool = False) -> apsw.Connection:
    """Open a database file read-only and immutable: no lock, no journal, no file created beside it.

    `reverse` sets PRAGMA reverse_unordered_selects: rows that no ORDER BY sorts come in reverse.
    """
    connection = unguarded_file(path)
    for pragma in _FILE_PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    return _guarded(connection, reverse)


def open_image(image: bytes, *, reverse: bool = False) -> apsw.Connection:
    """Open a database in memory from the bytes of its file; `reverse` as for `open_file`."""
    return _guarded(unguarded_image(image), reverse)


def replace_image(connection: apsw.Connection, image: bytes) -> None:
    """Replace the database of a connection made by `open_image`; three times faster than opening a new one."""
    # SQLite's deserialize() runs an ATTACH, which the authorizer denies.
    connection.authorizer = None
    connection.deserialize("main", image)
    connection.authorizer = _authorize


def unguarded_file(path: Path) -> apsw.Connection:
    """As `open_file` without the authorizer and limits, for our own statements (`pragma_table_info`) only."""
    address = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
    return apsw.Connection(
        address, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI, statementcachesize=0
    )


def unguarded_image(image: bytes | None = None) -> apsw.Connection:
    """As `open_image` without the authorizer and limits, for our own statements only; None: an empty database."""
    connection = apsw.Connection(":memory:", statementcachesize=0)
    if image is not None:
        connection.deserialize("main", image)
    return connection


def _guarded(connection: apsw.Connection, reverse: bool) -> apsw.Connection:
    # A large sort would otherwise open a temporary file, and RLIMIT_FSIZE 0 would kill the process.
    connection.execute("PRAGMA temp_store=MEMORY")
    if reverse:
        connection.execute("PRAGMA reverse_unordered_selects=ON")
    for limit, value in _SQLITE_LIMITS.items():
        connection.limit(limit, value)
    sql_functions.install(connection)
    connection.authorizer = _authorize
    return connection


def _authorize(
    action: int, first: str | None, second: str | None, _database: str | None, _trigger: str | None
) -> int:
    if action not in _READ_ACTIONS:
        return apsw.SQLITE_DENY
    if action == apsw.SQLITE_FUNCTION and (second or first or "").lower() in REFUSED_FUNCTIONS:
        return apsw.SQLITE_DENY
    return apsw.SQLITE_OK
