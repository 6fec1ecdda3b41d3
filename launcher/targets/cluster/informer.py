"""A live view of some objects: list once, then watch; list again where the server has forgotten our place.

The view never goes back to nothing on a lost connection: it stays at what was last known, and whoever
relies on it asks `check` whether it is too old for that. An API server restart costs a reconnect.
"""

from __future__ import annotations

import json
import threading
import time
from typing import Any, Protocol

from launcher.outcome import Failure
from launcher.targets.cluster.api_errors import KubernetesApiError, api_error
from launcher.targets.cluster.connection import PATIENCE_S, Stream

#: The server ends a watch after this long, and it is opened again where it stopped.
WATCH_S = 300
LONGEST_WAIT_S = 15.0


class WatchSource(Protocol):
    """The part of `client.Cluster` that an informer uses."""

    @property
    def where(self) -> str: ...

    def list_with_version(
        self, kind: str, *, labels: dict[str, str], patience_s: float | None = None
    ) -> tuple[list[dict[str, Any]], str]: ...

    def open_watch(self, kind: str, labels: dict[str, str], version: str, timeout_s: int) -> Stream: ...


class Informer:
    """Objects of one kind with some labels, kept current by a thread until `stop`.

    `changed` is set whenever the view has changed; whoever waits for it clears it first and looks after.
    """

    def __init__(self, cluster: WatchSource, kind: str, labels: dict[str, str]):
        self.changed = threading.Event()
        #: What ended every round since then (time.monotonic); None while the server is heard.
        self._failing: tuple[float, Failure] | None = None
        self._cluster, self._kind, self._labels = cluster, kind, labels
        self._lock = threading.Lock()
        self._objects: dict[str, dict[str, Any]] = {}
        self._stream: Stream | None = None
        self._stopped = threading.Event()
        self._version = ""
        self._list(patience_s=None)
        self._thread = threading.Thread(target=self._run, name=f"watch {kind}", daemon=True)
        self._thread.start()

    def objects(self) -> dict[str, dict[str, Any]]:
        """The latest known objects by name: a snapshot; the objects themselves are never changed."""
        with self._lock:
            return dict(self._objects)

    def check(self, patience_s: float = PATIENCE_S) -> None:
        """Raises the Failure for which the view has been standing still for longer than that."""
        failing = self._failing
        if failing is not None and time.monotonic() - failing[0] > patience_s:
            raise failing[1]

    def stop(self) -> None:
        """End the thread; its connection is cut, so that this takes no longer than a request under way."""
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
                    self._list(patience_s=0.0)
                self._follow()
            except Failure as failure:
                if isinstance(failure, KubernetesApiError) and failure.status == 410:
                    self._version = ""
                self._failing = (self._failing[0] if self._failing else began, failure)
            # Rounds that end at once, for whatever reason, are tried at growing waits.
            short = short + 1 if time.monotonic() - began < 1.0 else 0
            self._stopped.wait(min(LONGEST_WAIT_S, 0.05 * 2.0 ** min(short, 20)))

    def _list(self, patience_s: float | None) -> None:
        items, version = self._cluster.list_with_version(
            self._kind, labels=self._labels, patience_s=patience_s
        )
        with self._lock:
            self._objects = {item["metadata"]["name"]: item for item in items}
        self._version = version
        self._heard()
        self.changed.set()

    def _follow(self) -> None:
        """Take in events until the server ends the watch. Raises Failure for anything else that ends it."""
        stream = self._cluster.open_watch(self._kind, self._labels, self._version, WATCH_S)
        with self._lock:
            self._stream = stream
        if self._stopped.is_set():
            stream.close()
        try:
            self._heard()
            for line in stream.lines():
                self._take(json.loads(line))
                self._heard()
        except ValueError:
            return  # a line cut in the middle: the connection was, too
        finally:
            with self._lock:
                self._stream = None

    def _take(self, event: dict[str, Any]) -> None:
        happened, item = event["type"], event["object"]
        if happened == "ERROR":
            self._version = ""  # whatever it was, a fresh list is right afterwards
            raise api_error(
                item.get("code", 500), item, doing=f"watch {self._kind}", where=self._cluster.where
            )
        meta = item["metadata"]
        self._version = meta["resourceVersion"]
        if happened == "BOOKMARK":
            return
        meta.pop("managedFields", None)
        with self._lock:
            if happened == "DELETED":
                self._objects.pop(meta["name"], None)
            else:
                self._objects[meta["name"]] = item
        self.changed.set()

    def _heard(self) -> None:
        self._failing = None
