"""A live view of some objects: list once, then watch; list again if the resource version has expired.

On a lost connection the view keeps its last state, and `check` raises if that is too old. An API server restart
costs a reconnect.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Protocol

from launcher.outcome import Failure
from launcher.system.json_text import parse_json
from launcher.targets.cluster.api_errors import KubernetesApiError, api_error
from launcher.targets.cluster.connection import RETRY_TIMEOUT_S
from launcher.targets.cluster.stream import Stream

#: The server ends a watch after this long; the next one continues from its last version.
WATCH_S = 300
LONGEST_WAIT_S = 15.0


class WatchSource(Protocol):
    """The part of `client.Cluster` that an informer uses."""

    @property
    def where(self) -> str: ...

    def list_with_version(
        self, kind: str, *, labels: dict[str, str], timeout_s: float | None = None
    ) -> tuple[list[dict[str, Any]], str]: ...

    def open_watch(self, kind: str, labels: dict[str, str], version: str, timeout_s: int) -> Stream: ...


class Informer:
    """Objects of one kind with some labels, kept current by a thread until `stop`.

    `changed` is set whenever the view changes; clear it before reading the view, then wait for it.
    """

    def __init__(self, cluster: WatchSource, kind: str, labels: dict[str, str]):
        self.changed = threading.Event()
        #: Since when (time.monotonic) every round has failed, and the last failure; None while the watch works.
        self._failing: tuple[float, Failure] | None = None
        self._cluster, self._kind, self._labels = cluster, kind, labels
        self._lock = threading.Lock()
        self._objects: dict[str, dict[str, Any]] = {}
        self._stream: Stream | None = None
        self._stopped = threading.Event()
        self._version = ""
        self._list(timeout_s=None)
        self._thread = threading.Thread(target=self._run, name=f"watch {kind}", daemon=True)
        self._thread.start()

    def objects(self) -> dict[str, dict[str, Any]]:
        """A snapshot of the objects by name; the objects themselves are never modified."""
        with self._lock:
            return dict(self._objects)

    def check(self, max_age_s: float = RETRY_TIMEOUT_S) -> None:
        """Raises the Failure that has kept the view from being updated for longer than `max_age_s`."""
        failing = self._failing
        if failing is not None and time.monotonic() - failing[0] > max_age_s:
            raise failing[1]

    def stop(self) -> None:
        """End the thread and close its connection; takes no longer than a request in progress."""
        self._stopped.set()
        with self._lock:
            if self._stream is not None:
                self._stream.close()
        self._thread.join()

    def __enter__(self) -> Informer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        short = 0
        while not self._stopped.is_set():
            began = time.monotonic()
            try:
                if not self._version:
                    self._list(timeout_s=0.0)
                self._follow()
            except Failure as failure:
                if isinstance(failure, KubernetesApiError) and failure.status == 410:
                    self._version = ""
                self._failing = (self._failing[0] if self._failing else began, failure)
            # Rounds that end at once, for any reason, are repeated with growing waits.
            short = short + 1 if time.monotonic() - began < 1.0 else 0
            self._stopped.wait(min(LONGEST_WAIT_S, 0.05 * 2.0 ** min(short, 20)))

    def _list(self, timeout_s: float | None) -> None:
        items, version = self._cluster.list_with_version(self._kind, labels=self._labels, timeout_s=timeout_s)
        with self._lock:
            self._objects = {item["metadata"]["name"]: item for item in items}
        self._version = version
        self._failing = None
        self.changed.set()

    def _follow(self) -> None:
        """Apply events until the server ends the watch. Raises Failure for anything else that ends it."""
        stream = self._cluster.open_watch(self._kind, self._labels, self._version, WATCH_S)
        with self._lock:
            self._stream = stream
        if self._stopped.is_set():
            stream.close()
        try:
            self._failing = None
            for line in stream.lines():
                self._apply(parse_json(line))
                self._failing = None
        except ValueError:
            return  # a truncated line: the connection was lost
        finally:
            with self._lock:
                self._stream = None

    def _apply(self, event: dict[str, Any]) -> None:
        event_type, item = event["type"], event["object"]
        if event_type == "ERROR":
            self._version = ""  # list again, whatever the error was
            raise api_error(
                item.get("code", 500), item, doing=f"watch {self._kind}", where=self._cluster.where
            )
        meta = item["metadata"]
        self._version = meta["resourceVersion"]
        if event_type == "BOOKMARK":
            return
        meta.pop("managedFields", None)
        with self._lock:
            if event_type == "DELETED":
                self._objects.pop(meta["name"], None)
            else:
                self._objects[meta["name"]] = item
        self.changed.set()
