"""Scores cached by content: scoring the same answers again takes no time.

One SQLite file in the user's cache directory. A key is the digest of everything that a value depends on, so
entries are never stale. Without a usable cache everything is computed; no result depends on it.

Cache directories are shared, so an entry counts only if this user wrote it: each value carries a keyed digest
(BLAKE2b) under a secret in the user's own data directory. Others' entries are ignored, counted and replaced.
`launcher verify` reads no cache at all.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import sqlite3
import sys
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

#: A larger file is deleted and started again.
MAX_BYTES = 2 << 30
_KEYS_PER_QUERY = 500
_SECRET_BYTES = 32
_MAC_BYTES = 16


def default_path() -> Path:
    """`score.sqlite` in TUNEYARD_CACHE, else in the user's cache directory."""
    named = os.environ.get("TUNEYARD_CACHE")
    base = (
        Path(named)
        if named
        else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tuneyard"
    )
    return base / "score.sqlite"


def secret_path() -> Path:
    """The file with the secret that authenticates this user's entries."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "tuneyard" / "score-cache.secret"


def key(*parts: Any) -> bytes:
    """The digest of JSON values."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).digest()


class Cache:
    """Key -> JSON value. Closed by `close`; `path` None keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self._connection: sqlite3.Connection | None = None
        self._secret = b""
        self._foreign_entries = 0
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._secret = _secret(secret_path())
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
        found = {}
        for name, value in rows:
            packed = self._authenticated(bytes(name), value)
            if packed is None:
                self._foreign_entries += 1
            else:
                found[bytes(name)] = json.loads(zlib.decompress(packed))
        return found

    def _authenticated(self, name: bytes, value: Any) -> bytes | None:
        """The packed value, or None if it was not written under this user's secret."""
        if not isinstance(value, bytes) or len(value) < _MAC_BYTES:
            return None
        mac, packed = value[:_MAC_BYTES], value[_MAC_BYTES:]
        return packed if hmac.compare_digest(mac, self._mac(name, packed)) else None

    def _mac(self, name: bytes, packed: bytes) -> bytes:
        # `name` is a digest of one length, so the two cannot be confused.
        return hashlib.blake2b(name + packed, key=self._secret, digest_size=_MAC_BYTES).digest()

    def _packed(self, name: bytes, value: Any) -> bytes:
        packed = zlib.compress(json.dumps(value).encode(), 1)
        return self._mac(name, packed) + packed

    def put(self, values: Mapping[bytes, Any]) -> None:
        """Store values."""
        if self._connection is None or not values:
            return
        try:
            with self._connection:
                self._connection.executemany(
                    "INSERT OR REPLACE INTO entries VALUES (?, ?)",
                    ((name, self._packed(name, value)) for name, value in values.items()),
                )
        except sqlite3.Error as error:
            self._give_up(error)

    def close(self) -> None:
        if self._foreign_entries:
            print(
                f"{self._foreign_entries} cached scores were not written by this user; they were computed again",
                file=sys.stderr,
            )
            self._foreign_entries = 0
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _give_up(self, error: Exception) -> None:
        print(f"scores are not cached: {error}", file=sys.stderr)
        self.close()


def _secret(path: Path) -> bytes:
    """This user's secret; made on first use. Raises OSError if others may read it or it is another user's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        pass
    else:
        with os.fdopen(handle, "wb") as stream:
            stream.write(secrets.token_bytes(_SECRET_BYTES))
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(handle, "rb") as stream:
        status = os.fstat(handle)
        secret = stream.read()
    if status.st_uid != os.geteuid() or status.st_mode & 0o077 or len(secret) != _SECRET_BYTES:
        raise OSError(
            f"{path} must belong to this user, be unreadable for others, and have {_SECRET_BYTES} bytes"
        )
    return secret


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
