"""Nodes agree on a checkpoint to continue from, and each learns of another's failure or loss."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from jobs.methods import node_connection
from jobs.methods.rendezvous import RendezvousClient, RendezvousServer, root_cause
from jobs.stage import Stopped
from launcher.outcome import Failure, Reason

KEY = "stage-key"


def proceed() -> None:
    """No stop was requested."""


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def two_nodes(
    port: int, checkpoint: str | None = None
) -> Iterator[tuple[RendezvousServer, RendezvousClient]]:
    """A server and a client after `start` and `join`."""
    server, client = RendezvousServer(1, port, KEY), RendezvousClient(1, ("127.0.0.1", port), KEY)
    thread = threading.Thread(target=server.start, args=(checkpoint, proceed))
    thread.start()
    try:
        assert client.join(proceed) == checkpoint
        thread.join()
        yield server, client
    finally:
        client.__exit__(None, None, None)
        server.__exit__(None, None, None)


def raised(check: Callable[[], None]) -> Failure:
    """What `check` raises within seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            check()
        except Failure as failure:
            return failure
        time.sleep(0.01)
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize("checkpoint", [None, "step-000004"])
def test_all_nodes_continue_from_the_checkpoint_of_node_0(port: int, checkpoint: str | None) -> None:
    with two_nodes(port, checkpoint) as (server, client):
        server.__exit__(None, None, None)
        client.wait_for_commit(proceed)


def test_a_failure_of_node_0_ends_the_clients(port: int) -> None:
    with two_nodes(port) as (server, client):
        server.__exit__(Failure, Failure(Reason.DIVERGED, "the loss is nan"), None)
        failure = raised(client.check)
    assert (failure.reason, failure.what) == (Reason.DIVERGED, "the loss is nan")


def test_a_failure_of_a_client_ends_node_0(port: int) -> None:
    with two_nodes(port) as (server, client):
        client.__exit__(Failure, Failure(Reason.OUT_OF_MEMORY, "too large"), None)
        failure = raised(server.check)
    assert (failure.reason, failure.what) == (Reason.OUT_OF_MEMORY, "too large")


def test_a_stopped_client_is_not_a_lost_one(port: int) -> None:
    with two_nodes(port) as (server, client):
        client.__exit__(Stopped, Stopped(), None)
        for _ in range(20):
            server.check()
            time.sleep(0.01)


def test_a_closed_connection_is_a_lost_node(port: int) -> None:
    with two_nodes(port) as (server, client):
        client.__exit__(None, None, None)
        failure = raised(server.check)
    assert (failure.reason, failure.what) == (Reason.KILLED, "lost the connection to node 1")


def test_a_silent_node_is_a_lost_node(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_connection, "_PING_INTERVAL_S", 3600.0)
    with two_nodes(port) as (_, client):
        client.check()
        monkeypatch.setattr(node_connection, "TIMEOUT_S", 0.2)
        failure = raised(client.check)
    assert failure.what == "lost the connection to node 0"


def test_the_root_cause_is_the_other_nodes_failure(port: int) -> None:
    own = Failure(Reason.INTERNAL, "worker 0 of 1 ended with code 1")
    with two_nodes(port) as (server, client):
        client.__exit__(Failure, Failure(Reason.OUT_OF_MEMORY, "too large"), None)
        assert root_cause(own, server).what == "too large"
        diverged = Failure(Reason.DIVERGED, "the loss is nan")
        assert root_cause(diverged, server) is diverged


@pytest.mark.parametrize(
    "hello",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        json.dumps({"kind": "hello", "node": 1, "stage": "another"}).encode() + b"\n",
        json.dumps({"kind": "hello", "node": 7, "stage": KEY}).encode() + b"\n",
        b"[1]\n",
    ],
    ids=["not JSON", "another stage", "no such node", "no object"],
)
def test_connections_of_strangers_are_ignored(port: int, hello: bytes) -> None:
    client = RendezvousClient(1, ("127.0.0.1", port), KEY)
    with RendezvousServer(1, port, KEY) as server, socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(hello)
        thread = threading.Thread(target=server.start, args=(None, proceed))
        thread.start()
        with client:
            assert client.join(proceed) is None
            thread.join()
            server.check()


def test_a_waiting_node_can_be_stopped(port: int) -> None:
    def stop() -> None:
        raise Stopped

    with RendezvousServer(1, port, KEY) as server:
        with pytest.raises(Stopped):
            server.start(None, stop)
        with RendezvousClient(1, ("127.0.0.1", port), KEY) as client, pytest.raises(Stopped):
            client.join(stop)
