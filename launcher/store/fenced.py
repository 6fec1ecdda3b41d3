"""A store that its user may write only while it holds a lease."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from launcher.store.artifact import Artifact, Leftover, Manifest, Store
from launcher.store.lease import Lease


class FencedStore:
    """`store`, with `lease.check()` before every write. Reads are not checked. Writes raise LeaseLost."""

    def __init__(self, store: Store, lease: Lease) -> None:
        self._store = store
        self._lease = lease
        self.poll_interval_s = store.poll_interval_s

    @property
    def address(self) -> str:
        return self._store.address

    @property
    def local_root(self) -> Path:
        return self._store.local_root

    # -- writes ---------------------------------------------------------------------------
    def commit(self, prefix: str, directory: Path, meta: dict[str, Any]) -> Manifest:
        self._lease.check()
        return self._store.commit(prefix, directory, meta)

    def put_json(self, path: str, value: Any, *, create_once: bool = True) -> bool:
        self._lease.check()
        return self._store.put_json(path, value, create_once=create_once)

    def put_input(self, source: Path) -> str:
        self._lease.check()
        return self._store.put_input(source)

    def publish(self, path: str) -> None:
        self._lease.check()
        self._store.publish(path)

    def delete(self, prefix: str) -> None:
        self._lease.check()
        self._store.delete(prefix)

    def discard(self, leftover: Leftover) -> None:
        self._lease.check()
        self._store.discard(leftover)

    # -- reads ----------------------------------------------------------------------------
    def local_path(self, path: str) -> Path:
        return self._store.local_path(path)

    def open(self, prefix: str) -> Artifact:
        return self._store.open(prefix)

    def exists(self, prefix: str) -> bool:
        return self._store.exists(prefix)

    def list(self, prefix: str) -> list[str]:
        return self._store.list(prefix)

    def get_json(self, path: str) -> Any:
        return self._store.get_json(path)

    def age_s(self, path: str) -> float | None:
        return self._store.age_s(path)

    def has_input(self, sha256: str) -> bool:
        return self._store.has_input(sha256)

    def input(self, sha256: str) -> Path:
        return self._store.input(sha256)

    def fetch(self, path: str) -> Path | None:
        return self._store.fetch(path)

    def usage(self, prefix: str) -> int:
        return self._store.usage(prefix)

    def leftovers(self) -> tuple[Leftover, ...]:
        return self._store.leftovers()

    def lock(self, path: str) -> AbstractContextManager[bool]:
        return self._store.lock(path)
