"""Scores cached by content: scoring the same answers again takes no time.

One SQLite file in the user's cache directory. A key is the digest of everything that a value depends on, so
entries are never stale. Without a usable cache everything is computed; no result depends on it.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import sys
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

#: A larger file is deleted and started again.
MAX_BYTES = 2 << 30
_KEYS_PER_QUERY = 500


def default_path() -> Path:
    """`score.sqlite` in TUNEYARD_CACHE, else in the user's cache directory."""
    named = os.environ.get("TUNEYARD_CACHE")
    base = (
        Path(named)
        if named
        else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tuneyard"
    )
    return base / "score.sqlite"


def key(*parts: Any) -> bytes:
    """The digest of JSON values."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).digest()


class Cache:
    """Key -> JSON value. Closed by `close`; `path` None keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self._connection: sqlite3.Connection | None = None
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = _opened(path)
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    def get(self, keys: Iterable[bytes]) -> dict[bytes, Any]:
        """The cached values of `keys`; missing keys are left out."""
        wanted = list(dict.fromkeys(keys))
        found: dict[bytes, Any] = {}
        try:
            for start in range(0, len(wanted) if self._connection else 0, _KEYS_PER_QUERY):
                part = wanted[start : start + _KEYS_PER_QUERY]
                found |= self._read(part)
        except (sqlite3.Error, zlib.error, ValueError) as error:
            self._give_up(error)
        return found

    def _read(self, keys: Sequence[bytes]) -> dict[bytes, Any]:
        assert self._connection is not None
        marks = ",".join("?" * len(keys))
        rows = self._connection.execute(f"SELECT key, value FROM entries WHERE key IN ({marks})", keys)
        return {bytes(name): json.loads(zlib.decompress(value)) for name, value in rows}

    def put(self, values: Mapping[bytes, Any]) -> None:
        """Store values; existing entries are kept."""
        if self._connection is None or not values:
            return
        try:
            with self._connection:
                self._connection.executemany(
                    "INSERT OR IGNORE INTO entries VALUES (?, ?)",
                    ((name, zlib.compress(json.dumps(value).encode(), 1)) for name, value in values.items()),
                )
        except sqlite3.Error as error:
            self._give_up(error)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _give_up(self, error: Exception) -> None:
        print(f"scores are not cached: {error}", file=sys.stderr)
        self.close()


def _opened(path: Path) -> sqlite3.Connection:
    if path.exists() and path.stat().st_size > MAX_BYTES:
        path.unlink()
    try:
        return _connected(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        # A file that was truncated or overwritten.
        path.unlink()
        return _connected(path)


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=20)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS entries (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID"
        )
    except sqlite3.Error:
        connection.close()
        raise
    return connection
