"""Background commits of checkpoints: a snapshot is a rename, its upload happens in a thread.

If snapshots come faster than uploads, only the newest one waits; the upload in progress is always finished.
`then` runs in the thread after a commit and deletes what it supersedes, so that one commit always exists.
"""

from __future__ import annotations

import shutil
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from launcher.store.artifact import Store


@dataclass(frozen=True)
class _Snapshot:
    prefix: str
    directory: Path
    meta: dict[str, Any]
    then: Callable[[], None] | None


class BackgroundCommits:
    """Commits snapshots one after the other. Use as a context manager, or call `drain` at the end."""

    def __init__(self, store: Store, scratch: Path) -> None:
        """Snapshots are moved to `scratch`, which must be on their file system."""
        self._store = store
        self._scratch = scratch
        self._news = threading.Condition()
        self._waiting: _Snapshot | None = None
        self._busy = False
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        #: Snapshots that a newer one replaced before their upload began.
        self.superseded = 0

    def submit(
        self, prefix: str, directory: Path, meta: dict[str, Any], then: Callable[[], None] | None = None
    ) -> None:
        """Move `directory` away and commit it in the background. Raises the failure of an earlier commit."""
        self._raise()
        taken = self._scratch / f"snapshot-{uuid.uuid4().hex[:12]}"
        directory.rename(taken)
        with self._news:
            if self._waiting is not None:
                shutil.rmtree(self._waiting.directory)
                self.superseded += 1
            self._waiting = _Snapshot(prefix, taken, meta, then)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True, name="tuneyard-commits")
                self._thread.start()

    def drain(self) -> None:
        """Wait until everything submitted is committed. Raises the failure of a commit."""
        with self._news:
            while (self._waiting is not None or self._busy) and self._failure is None:
                self._news.wait()
        self._raise()

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        while True:
            with self._news:
                if self._waiting is None or self._failure is not None:
                    self._thread = None
                    self._news.notify_all()
                    return
                snapshot, self._waiting, self._busy = self._waiting, None, True
            try:
                self._store.commit(snapshot.prefix, snapshot.directory, snapshot.meta)
                if snapshot.then is not None:
                    snapshot.then()
            except BaseException as error:  # raised again in the thread that submits or drains
                self._failure = error
            with self._news:
                self._busy = False
                self._news.notify_all()

    def __enter__(self) -> BackgroundCommits:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.drain()
