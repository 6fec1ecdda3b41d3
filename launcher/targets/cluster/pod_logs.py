"""Follows the logs of a stage's pods; every line once and in order.

Pods that are pending or replaced, rotated logs and lost connections are handled.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from launcher.outcome import Failure
from launcher.targets.cluster.api_errors import KubernetesApiError
from launcher.targets.cluster.client import Cluster
from launcher.targets.cluster.informer import Informer
from launcher.targets.cluster.log_lines import NewLines
from launcher.targets.cluster.stream import Stream

LONGEST_WAIT_S = 5.0
#: How often `ended` is called while there is no pod to read from.
LOOK_S = 2.0


class Stop:
    """Ends a `follow` from another thread, even during a read."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._stream: Stream | None = None

    def set(self) -> None:
        self._event.set()
        with self._lock:
            if self._stream is not None:
                self._stream.close()

    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self, timeout_s: float) -> bool:
        return self._event.wait(timeout_s)

    @contextmanager
    def closes(self, stream: Stream) -> Iterator[None]:
        """Context in which `set` closes this stream too."""
        with self._lock:
            self._stream = stream
        try:
            if self.is_set():
                stream.close()
            yield
        finally:
            with self._lock:
                self._stream = None


def follow(
    cluster: Cluster,
    labels: dict[str, str],
    container: str,
    write: Callable[[bytes], None],
    *,
    ended: Callable[[], bool],
    stop: Stop | None = None,
) -> None:
    """Write the lines of all pods with these labels as they arrive, one pod after the other in creation order.

    Returns when every pod is read to its end and `ended()`, called only then, is true, or soon after `stop` is
    set. `write` gets whole lines. For pods that run side by side, call it once per pod with labels that select one.
    Raises Failure if pods may not be listed or logs not be read.
    """
    stop = stop or Stop()
    done: set[str] = set()

    def read(pod: dict[str, Any]) -> None:
        _Pod(cluster, pods, pod, container, write, stop).follow()
        done.add(pod["metadata"]["uid"])

    with cluster.watch("Pod", labels=labels) as pods:
        while not stop.is_set():
            pods.changed.clear()
            unread = [p for p in _by_age(pods.objects().values()) if p["metadata"]["uid"] not in done]
            ready = [pod for pod in unread if _has_started(pod, container)]
            if ready:
                read(ready[0])
            elif all(_is_over(pod) for pod in unread) and ended():
                # The view may be a moment behind; no further pod will come after this list.
                for pod in _by_age(cluster.list("Pod", labels=labels)):
                    if pod["metadata"]["uid"] not in done and _has_started(pod, container):
                        read(pod)
                return
            else:
                pods.changed.wait(LOOK_S)


def follow_job(
    cluster: Cluster,
    job: str,
    container: str,
    write: Callable[[bytes], None],
    *,
    stop: Stop | None = None,
) -> None:
    """`follow` for the pods of one Job, replacements included, until the Job has finished or is gone."""

    def ended() -> bool:
        found = cluster.get("Job", job)
        conditions = (found or {}).get("status", {}).get("conditions") or ()
        finished = any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in conditions)
        return found is None or finished

    follow(cluster, {"batch.kubernetes.io/job-name": job}, container, write, ended=ended, stop=stop)


def whole(cluster: Cluster, pod: str, container: str) -> bytes:
    """All that the node still has of a container's log; empty if it never started or the pod is gone."""
    try:
        return cluster.pod_log(pod, container)
    except KubernetesApiError as error:
        if error.cause == "absent":
            return b""
        raise


class _Pod:
    """One pod's container, read to its end."""

    def __init__(
        self,
        cluster: Cluster,
        pods: Informer,
        pod: dict[str, Any],
        container: str,
        write: Callable[[bytes], None],
        stop: Stop,
    ):
        self._cluster, self._pods, self._container = cluster, pods, container
        self._name, self._uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        self._write, self._stop = write, stop
        self._lines = NewLines()

    def follow(self) -> None:
        idle = 0  # consecutive readings without a new line
        while not self._stop.is_set():
            # Checked before reading: after a container has ended, one more reading gets the rest.
            over = self._is_over()
            try:
                brought = self._read_to_end() if over else self._read_along()
            except Failure as failure:
                cause = failure.cause if isinstance(failure, KubernetesApiError) else ""
                if cause in ("forbidden", "unauthorized") and not self._cluster.connection.settling:
                    raise
                if over or cause == "absent":
                    return  # the pod or its node is gone, and the rest of the log with it
                brought = False
            if over:
                return
            idle = 0 if brought else idle + 1
            # The log ends a moment before the pod's status says so.
            self._stop.wait(min(LONGEST_WAIT_S, 0.1 * 2.0 ** min(idle, 10)))

    def _read_along(self) -> bool:
        """Read lines as they are written until the connection ends; whether any was new."""
        self._lines.read_again()
        stream = self._cluster.open_log(self._name, self._container, self._lines.since())
        brought = False
        with self._stop.closes(stream):
            for line in stream.lines():
                if line.endswith(b"\n"):  # a line without one is read again
                    brought = self._show(self._lines.take(line)) or brought
        return brought

    def _read_to_end(self) -> bool:
        self._lines.read_again()
        since = self._lines.since()
        log = self._cluster.pod_log(self._name, self._container, since_time=since, timestamps=True)
        for line in log.split(b"\n"):
            self._show(self._lines.take(line + b"\n"))
        return self._show(self._lines.end())

    def _show(self, lines: list[bytes]) -> bool:
        for line in lines:
            self._write(line)
        return bool(lines)

    def _is_over(self) -> bool:
        pod = self._pods.objects().get(self._name)
        if pod is None or pod["metadata"]["uid"] != self._uid:
            return True
        return _is_over(pod) or "terminated" in _state(pod, self._container)


def _by_age(pods: Any) -> list[dict[str, Any]]:
    return sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))


def _is_over(pod: dict[str, Any]) -> bool:
    """Whether no container of the pod will start any more."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed") or (
        "deletionTimestamp" in pod["metadata"] and not pod.get("status", {}).get("containerStatuses")
    )


def _has_started(pod: dict[str, Any], container: str) -> bool:
    state = _state(pod, container)
    return "running" in state or "terminated" in state


def _state(pod: dict[str, Any], container: str) -> dict[str, Any]:
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    return next((dict(s.get("state") or {}) for s in statuses if s["name"] == container), {})
