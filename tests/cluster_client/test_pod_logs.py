"""Following a stage's log across pending pods, lost connections and replaced pods."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from launcher.outcome import Failure
from launcher.targets.cluster import pod_logs
from launcher.targets.cluster.client import Cluster
from tests.cluster_client.api_server import ApiServer, Asked, Reply, event, listing, status

Connect = Callable[..., Cluster]
LABELS = {"tuneyard.dev/stage": "train"}


class Node:
    """Pods, their logs and a Job, as an API server tells of them. Changes are announced to open watches."""

    def __init__(self) -> None:
        self.pods: dict[str, dict[str, Any]] = {}
        self.logs: dict[str, list[bytes]] = {}
        self.cuts: list[int] = []  # after how many lines each next following reading is cut
        self.asked_ended = 0
        self.finished = False
        self._changed = threading.Condition()
        self._events: list[bytes] = []

    def show(self, name: str, state: str, *, phase: str = "Running") -> None:
        with self._changed:
            version = str(len(self._events) + 1)
            statuses = [] if state == "waiting" else [{"name": "stage", "state": {state: {}}}]
            stamp = f"2026-11-22T08:00:0{len(self.pods)}Z"
            meta = {
                "name": name,
                "uid": f"uid-{name}",
                "resourceVersion": version,
                "creationTimestamp": stamp,
            }
            before = self.pods.get(name)
            if before:
                meta["creationTimestamp"] = before["metadata"]["creationTimestamp"]
            self.pods[name] = {"metadata": meta, "status": {"phase": phase, "containerStatuses": statuses}}
            self._events.append(event("MODIFIED" if before else "ADDED", self.pods[name]))
            self._changed.notify_all()

    def end(self, name: str) -> None:
        self.show(name, "terminated", phase="Succeeded")

    def ended(self) -> bool:
        self.asked_ended += 1
        return self.finished

    def answer(self, asked: Asked) -> Reply:
        if asked.path.endswith("/log"):
            return self._log(asked)
        if "watch" in asked.query:
            return Reply(chunks=self._since(int(asked.query["resourceVersion"])))
        with self._changed:
            return listing(str(len(self._events)), *self.pods.values())

    def _since(self, version: int) -> Iterator[bytes]:
        for _ in range(400):
            with self._changed:
                if len(self._events) == version:
                    self._changed.wait(0.05)
                fresh, version = self._events[version:], len(self._events)
            yield from fresh

    def _log(self, asked: Asked) -> Reply:
        name = asked.path.split("/")[-2]
        if name not in self.logs:
            return status(404, "NotFound", f'pods "{name}" not found')
        assert asked.query["timestamps"] == "true"
        when = asked.query.get("sinceTime", "")
        lines = [line for line in self.logs[name] if line[:19] >= when[:19].encode()]
        if "follow" not in asked.query:
            return Reply(body=b"".join(lines))
        cut = self.cuts.pop(0) if self.cuts else len(lines)
        sent = b"".join(lines[:cut]) + b"".join(lines[cut:])[:25]
        return Reply(chunks=[sent] if sent else [], cut=cut < len(lines))


def numbered(count: int, of: str = "line") -> list[bytes]:
    """Lines of which several share a timestamp, and some are equal."""
    return [f"2026-11-22T08:00:{i // 7:02d}.{i // 3:09d}Z {of} {i // 2}\n".encode() for i in range(count)]


def texts(log: list[bytes]) -> list[bytes]:
    return [line.partition(b" ")[2] for line in log]


@pytest.fixture
def node(server: ApiServer) -> Node:
    made = Node()
    server.answer = made.answer
    return made


@pytest.fixture
def following(node: Node, connect: Connect) -> Iterator[Callable[[], list[bytes]]]:
    """Begins to follow in a thread; the call returned waits for its end and gives what was written."""
    written: list[bytes] = []
    stop = pod_logs.Stop()
    cluster = connect()

    def run() -> None:
        pod_logs.follow(cluster, LABELS, "stage", written.append, ended=node.ended, stop=stop)

    thread = threading.Thread(target=run)
    thread.start()

    def result() -> list[bytes]:
        thread.join(30)
        assert not thread.is_alive(), "it did not end"
        return written

    result.written, result.stop = written, stop  # type: ignore[attr-defined]
    yield result
    stop.set()
    thread.join()


def until(condition: Callable[[], bool]) -> None:
    for _ in range(1500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to pass within 15 s")


def test_pending_pod_is_followed_across_lost_connections(
    node: Node, following: Callable[[], list[bytes]]
) -> None:
    node.cuts = [3, 0, 17, 5]
    node.logs["train-a"] = numbered(40)
    node.show("train-a", "waiting", phase="Pending")
    node.show("train-a", "running")
    until(lambda: not node.cuts)
    node.finished = True
    node.end("train-a")
    assert following() == texts(node.logs["train-a"])


def test_replacement_pod_is_followed(node: Node, following: Callable[[], list[bytes]]) -> None:
    node.logs = {"train-a": numbered(5, "first"), "train-b": numbered(5, "second")}
    node.show("train-a", "running")
    node.show("train-a", "terminated", phase="Failed")
    until(lambda: node.asked_ended > 0)
    node.show("train-b", "running")
    node.finished = True
    node.end("train-b")
    assert following() == texts(node.logs["train-a"]) + texts(node.logs["train-b"])


def test_deleted_pod_ends_its_log(node: Node, following: Callable[[], list[bytes]]) -> None:
    node.finished = True
    node.show("train-a", "running")  # its log answers 404
    node.logs["train-b"] = numbered(3)
    node.end("train-b")
    assert following() == texts(node.logs["train-b"])


def test_last_line_without_line_feed_is_shown(node: Node, following: Callable[[], list[bytes]]) -> None:
    node.logs["train-a"] = [*numbered(2), b"2026-11-22T08:00:30.0Z progress \r 50 %"]
    node.finished = True
    node.end("train-a")
    assert following() == [b"line 0\n", b"line 0\n", b"progress \r 50 %\n"]


def test_stop_ends_an_idle_follow(node: Node, following: Any) -> None:
    node.show("train-a", "waiting", phase="Pending")
    began = time.monotonic()
    following.stop.set()
    following()
    assert time.monotonic() - began < 5


def test_missing_log_permission_raises(node: Node, server: ApiServer, connect: Connect) -> None:
    node.show("train-a", "running")
    message = 'User "bob" cannot get resource "pods/log" in API group "" in the namespace "team"'

    def answer(asked: Asked) -> Reply:
        return status(403, "Forbidden", message) if asked.path.endswith("/log") else node.answer(asked)

    server.answer = answer
    with pytest.raises(Failure, match="bob may not get pods/log in namespace team"):
        pod_logs.follow(connect(), LABELS, "stage", lambda _: None, ended=lambda: True)


@pytest.mark.usefixtures("node")
def test_log_of_a_deleted_pod_is_empty(connect: Connect) -> None:
    assert pod_logs.whole(connect(), "nosuch", "stage") == b""
