"""Replacements of SQL functions that can run for a minute inside one call."""

from __future__ import annotations

import re
from functools import cache

import apsw

from jobs.tasks.sql.execution.compare import Value

#: `printf('%.*c', 1000000000, 'x')` runs a billion iterations before its result is refused.
_MAX_PRINTF_WIDTH = 9_999
_LONG_NUMBER = re.compile(r"\d{5}")


def install(connection: apsw.Connection) -> None:
    """Register the functions of this module on a connection."""
    for name in ("printf", "format"):
        connection.create_scalar_function(name, _printf, -1, deterministic=True)


def _printf(*arguments: Value) -> Value:
    """SQLite's printf. Raises OverflowError if a width or precision may exceed _MAX_PRINTF_WIDTH."""
    if not arguments or arguments[0] is None:
        return None
    text = str(arguments[0])
    wide = "*" in text and any(isinstance(a, int) and abs(a) > _MAX_PRINTF_WIDTH for a in arguments[1:])
    if wide or _LONG_NUMBER.search(text):
        raise OverflowError("width or precision above the limit")
    marks = ", ".join("?" * len(arguments))
    value: Value = _plain().execute(f"SELECT printf({marks})", arguments).get
    return value


@cache
def _plain() -> apsw.Connection:
    """A connection with SQLite's own printf."""
    return apsw.Connection(":memory:")
