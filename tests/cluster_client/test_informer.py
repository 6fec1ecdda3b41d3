"""The informer survives lost connections, expired versions and API server restarts, and stops at once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from launcher.outcome import Failure
from launcher.targets.cluster.client import Cluster
from launcher.targets.cluster.informer import Informer
from tests.cluster_client.api_server import ApiServer, Asked, Reply, event, listing, scripted, status

Connect = Callable[..., Cluster]
RUN = {"tuneyard.dev/run": "sql-1"}


def pod(name: str, version: int, phase: str = "Running") -> dict[str, Any]:
    metadata = {"name": name, "resourceVersion": str(version), "managedFields": [{}]}
    return {"metadata": metadata, "status": {"phase": phase}}


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; a test fails rather than hangs."""
    for _ in range(1500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to pass within 15 s")


class Script:
    """Lists and watches answered in turn; a watch without a script stays open until `over` is set."""

    def __init__(self, lists: list[Reply], watches: list[Reply]):
        self.over = threading.Event()
        self._lists, self._watches = scripted(*lists), watches

    def __call__(self, asked: Asked) -> Reply:
        if "watch" not in asked.query:
            return self._lists(asked)
        return self._watches.pop(0) if self._watches else Reply(chunks=self._silence())

    def _silence(self) -> Iterator[bytes]:
        self.over.wait(30)
        yield b"\n"


@pytest.fixture
def watch(server: ApiServer, connect: Connect) -> Iterator[Callable[..., Informer]]:
    begun: list[tuple[Informer, Script]] = []

    def begin(lists: list[Reply], *watches: Reply) -> Informer:
        script = Script(lists, list(watches))
        server.answer = script
        begun.append((connect().watch("Pod", labels=RUN), script))
        return begun[-1][0]

    yield begin
    for watched, script in begun:
        script.over.set()
        watched.stop()


def phases(watched: Informer) -> dict[str, str]:
    return {name: item["status"]["phase"] for name, item in watched.objects().items()}


def test_proxy_page_instead_of_a_list_does_not_end_the_watch(watch: Callable[..., Informer]) -> None:
    gone = status(410, "Expired", "too old resource version")
    page = Reply(body=b"<html>back soon</html>")
    watched = watch([listing("1", pod("a", 1)), page, page, listing("9", pod("b", 9))], gone)
    until(lambda: phases(watched) == {"b": "Running"})


def test_view_has_the_list_at_once_and_follows_events(
    server: ApiServer, watch: Callable[..., Informer]
) -> None:
    events = [
        event("ADDED", pod("b", 6)),
        event("MODIFIED", pod("a", 7, "Failed")),
        event("DELETED", pod("c", 8)),
    ]
    watched = watch([listing("5", pod("a", 3), pod("c", 4))], Reply(chunks=events))
    assert watched.changed.is_set()
    until(lambda: phases(watched) == {"a": "Failed", "b": "Running"})
    assert server.asked[0].query == {"labelSelector": "tuneyard.dev/run=sql-1"}
    assert server.asked[1].query["resourceVersion"] == "5"
    assert server.asked[1].query["allowWatchBookmarks"] == "true"
    assert "managedFields" not in watched.objects()["b"]["metadata"]


def test_dropped_watch_resumes_from_its_version(server: ApiServer, watch: Callable[..., Informer]) -> None:
    bookmark = event("BOOKMARK", {"metadata": {"resourceVersion": "9"}})
    half = event("ADDED", pod("b", 10))[:20]
    watched = watch(
        [listing("5")], Reply(chunks=[bookmark, half], cut=True), Reply(chunks=[event("ADDED", pod("b", 10))])
    )
    until(lambda: "b" in watched.objects())
    assert [a.query["resourceVersion"] for a in server.asked[1:3]] == ["5", "9"]
    assert server.count("GET") <= 5


def test_expired_version_lists_again(server: ApiServer, watch: Callable[..., Informer]) -> None:
    expired = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
    lists = [listing("5", pod("a", 3)), listing("20", pod("b", 15)), listing("30", pod("c", 25))]
    watched = watch(lists, Reply(chunks=[event("ERROR", expired)]), status(410, "Expired", "too old"))
    until(lambda: phases(watched) == {"c": "Running"})
    until(lambda: server.asked[-1].query.get("resourceVersion") == "30")


def test_view_is_kept_while_the_server_is_away(watch: Callable[..., Informer]) -> None:
    away = Reply(503, b"")
    watched = watch(
        [listing("5", pod("a", 3))], away, away, away, Reply(chunks=[event("ADDED", pod("b", 6))])
    )
    until(lambda: is_blind(watched))
    assert phases(watched) == {"a": "Running"}
    watched.check()  # not for long yet
    until(lambda: phases(watched) == {"a": "Running", "b": "Running"})
    assert not is_blind(watched)


def test_stale_view_raises_its_failure(watch: Callable[..., Informer]) -> None:
    message = (
        'pods is forbidden: User "bob" cannot watch resource "pods" in API group "" in the namespace "team"'
    )
    watched = watch([listing("5", pod("a", 3))], *[status(403, "Forbidden", message) for _ in range(100)])
    until(lambda: is_blind(watched))
    with pytest.raises(Failure, match="bob may not watch pods in namespace team"):
        watched.check(max_age_s=-1)


def is_blind(watched: Informer) -> bool:
    try:
        watched.check(max_age_s=-1)
    except Failure:
        return True
    return False


def test_watches_that_end_at_once_back_off(server: ApiServer, watch: Callable[..., Informer]) -> None:
    watched = watch([listing("5")], *[Reply(chunks=[]) for _ in range(1000)])
    began = time.monotonic()
    until(lambda: server.count("GET") >= 4)
    time.sleep(max(0.0, 1.0 - (time.monotonic() - began)))
    assert server.count("GET") < 10
    assert watched.objects() == {}


def test_stop_ends_a_silent_watch_quickly(server: ApiServer, watch: Callable[..., Informer]) -> None:
    watched = watch([listing("5")])
    until(lambda: server.count("GET") == 2)
    began = time.monotonic()
    watched.stop()
    assert time.monotonic() - began < 2.0
    assert not [t for t in threading.enumerate() if t.name == "watch Pod"]


def test_forbidden_list_raises_at_once(server: ApiServer, connect: Connect) -> None:
    message = (
        'pods is forbidden: User "bob" cannot list resource "pods" in API group "" in the namespace "team"'
    )
    server.answer = scripted(status(403, "Forbidden", message))
    with pytest.raises(Failure, match="bob may not list pods in namespace team"):
        connect().watch("Pod", labels=RUN)


def test_events_split_across_chunks_are_joined(watch: Callable[..., Informer]) -> None:
    whole = event("ADDED", pod("é-name", 6)) + event("ADDED", pod("b", 7))
    assert json.loads(whole.split(b"\n")[0])
    pieces = [whole[i : i + 3] for i in range(0, len(whole), 3)]
    watched = watch([listing("5")], Reply(chunks=pieces))
    until(lambda: set(watched.objects()) == {"é-name", "b"})
