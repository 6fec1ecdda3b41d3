"""Durable state of the server: objects in SQLite, file contents in files named by the server's ids.

Only the event loop's thread uses the connection. A file's bytes are synced before the row that names them, so
no acknowledged write is lost if the server is killed. Names chosen by clients are never part of a path.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMAT = 1
DATABASE = "rehearsal.sqlite"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, id TEXT NOT NULL UNIQUE,
  tenant TEXT NOT NULL, owner TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS objects_by_owner ON objects (kind, tenant, owner, seq);
CREATE INDEX IF NOT EXISTS objects_by_tenant ON objects (kind, tenant, seq);
CREATE TABLE IF NOT EXISTS answers (
  batch TEXT NOT NULL, line INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (batch, line));
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""


@dataclass(frozen=True)
class StoredObject:
    """One object. Keys of `body` that start with `_` are internal; clients do not see them."""

    seq: int
    kind: str
    id: str
    tenant: str
    owner: str
    body: dict[str, Any]

    def to_wire(self) -> dict[str, Any]:
        return {name: value for name, value in self.body.items() if not name.startswith("_")}


def new_id(prefix: str) -> str:
    """A random id with a prefix, such as `ftjob-…`."""
    return prefix + secrets.token_hex(12)


def now() -> int:
    """Unix time in whole seconds, as in the protocol."""
    return int(time.time())


class State:
    """The state in one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("files", "jobs"):
            (root / name).mkdir(parents=True, exist_ok=True)
            (root / name).chmod(0o700)
        self._connection = sqlite3.connect(root / DATABASE, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.executescript(_SCHEMA)
        for path in root.glob(f"{DATABASE}*"):
            path.chmod(0o600)
        self._depth = 0

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction; nested ones join the outermost."""
        if self._depth:
            yield
            return
        self._connection.execute("BEGIN IMMEDIATE")
        self._depth += 1
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        else:
            self._connection.execute("COMMIT")
        finally:
            self._depth -= 1

    # -- objects ----------------------------------------------------------------------------
    def add(self, kind: str, tenant: str, body: dict[str, Any], owner: str = "") -> StoredObject:
        with self.transaction():
            cursor = self._connection.execute(
                "INSERT INTO objects (kind, id, tenant, owner, body) VALUES (?, ?, ?, ?, ?)",
                (kind, body["id"], tenant, owner, json.dumps(body)),
            )
        return StoredObject(cursor.lastrowid or 0, kind, body["id"], tenant, owner, body)

    def get(self, kind: str, tenant: str, name: str) -> StoredObject | None:
        """An object of this tenant, or None."""
        row = self._connection.execute(
            "SELECT seq, kind, id, tenant, owner, body FROM objects WHERE kind = ? AND tenant = ? AND id = ?",
            (kind, tenant, name),
        ).fetchone()
        return _stored(row) if row else None

    def update(self, one: StoredObject, **changes: Any) -> StoredObject:
        """Read the object again, change these keys and store it."""
        with self.transaction():
            fresh = self.get(one.kind, one.tenant, one.id)
            body = {**(fresh or one).body, **changes}
            self._connection.execute("UPDATE objects SET body = ? WHERE id = ?", (json.dumps(body), one.id))
        return StoredObject(one.seq, one.kind, one.id, one.tenant, one.owner, body)

    def remove(self, one: StoredObject) -> None:
        self._connection.execute("DELETE FROM objects WHERE id = ?", (one.id,))

    def list(
        self,
        kind: str,
        *,
        tenant: str | None = None,
        owner: str | None = None,
        after: int | None = None,
        newest_first: bool = True,
        limit: int = -1,
        fields: dict[str, str] | None = None,
    ) -> list[StoredObject]:
        """Objects by creation; `after` is the sequence number of the last object of the previous page.

        `fields`: values of top-level keys of the body, compared by SQLite so that other objects are not decoded.
        """
        where, values = ["kind = ?"], [kind]
        for name, wanted in (fields or {}).items():
            where.append("json_extract(body, '$.' || ?) = ?")
            values += [name, wanted]
        for column, value in (("tenant", tenant), ("owner", owner)):
            if value is not None:
                where.append(f"{column} = ?")
                values.append(value)
        if after is not None:
            where.append("seq < ?" if newest_first else "seq > ?")
            values.append(str(after))
        order = "DESC" if newest_first else "ASC"
        rows = self._connection.execute(
            "SELECT seq, kind, id, tenant, owner, body FROM objects "
            f"WHERE {' AND '.join(where)} ORDER BY seq {order} LIMIT ?",
            (*values, limit),
        )
        return [_stored(row) for row in rows]

    # -- batch answers and counters ---------------------------------------------------------
    def put_answers(self, batch: str, answers: dict[int, dict[str, Any]]) -> None:
        with self.transaction():
            self._connection.executemany(
                "INSERT OR IGNORE INTO answers VALUES (?, ?, ?)",
                [(batch, line, json.dumps(body)) for line, body in answers.items()],
            )

    def answers(self, batch: str) -> dict[int, dict[str, Any]]:
        rows = self._connection.execute("SELECT line, body FROM answers WHERE batch = ?", (batch,))
        return {line: json.loads(body) for line, body in rows}

    def count(self, name: str, by: int = 1) -> int:
        """Add to a counter and return its new value."""
        with self.transaction():
            self._connection.execute(
                "INSERT INTO counters VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + ?",
                (name, by, by),
            )
            return int(
                self._connection.execute("SELECT value FROM counters WHERE name = ?", (name,)).fetchone()[0]
            )

    def counters(self) -> dict[str, int]:
        return dict(self._connection.execute("SELECT name, value FROM counters ORDER BY name"))

    # -- bytes ------------------------------------------------------------------------------
    def file_path(self, file_id: str) -> Path:
        """Path of a file's bytes; `file_id` must be an id of this server."""
        return self.root / "files" / file_id

    def add_file(self, tenant: str, data: bytes, *, filename: str, purpose: str) -> StoredObject:
        """Store `data` byte for byte; returns the file object."""
        file_id = new_id("file-")
        path = self.file_path(file_id)
        with path.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        body = {
            "id": file_id,
            "object": "file",
            "bytes": len(data),
            "created_at": now(),
            "filename": filename,
            "purpose": purpose,
            "status": "processed",
            "status_details": None,
            "expires_at": None,
            "_sha256": hashlib.sha256(data).hexdigest(),
        }
        return self.add("file", tenant, body)

    def delete_file(self, one: StoredObject) -> None:
        self.remove(one)
        self.file_path(one.id).unlink(missing_ok=True)

    def job_directory(self, job_id: str) -> Path:
        return self.root / "jobs" / job_id


def snapshot(root: Path, target: Path) -> None:
    """Copy a live server's directory consistently: the database first, then files.

    Files are written before their rows, so every file of a copied row exists.
    """
    target.mkdir(parents=True, exist_ok=True)
    source = sqlite3.connect(f"file:{root / DATABASE}?mode=ro", uri=True)
    copy = sqlite3.connect(target / DATABASE)
    try:
        source.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")
    finally:
        copy.close()
        source.close()
    for name in ("files", "jobs"):
        _copy_tree(root / name, target / name)


def _copy_tree(source: Path, target: Path) -> None:
    """Copy files except unfinished (hidden) ones and those that are deleted in the meantime."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.name.startswith(".") or path.name == "scratch" or path.suffix == ".log":
            continue
        try:
            if path.is_dir():
                _copy_tree(path, target / path.name)
            else:
                shutil.copyfile(path, target / path.name)
        except FileNotFoundError:
            continue


def _stored(row: tuple[Any, ...]) -> StoredObject:
    seq, kind, name, tenant, owner, body = row
    return StoredObject(int(seq), kind, name, tenant, owner, json.loads(body))
