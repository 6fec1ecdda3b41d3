"""Rendezvous of the stage processes on several nodes: each client holds one connection to node 0's server.

It says who is present, which checkpoint all continue from, and, within seconds, that a node failed or
is lost. Each stage process supervises the workers of its own node (`worker_pool`). The workers' own
rendezvous is a TCP store at worker 0, one port above this one.

`torchrun` is not used: its agent ends workers 30 s after a SIGTERM whatever they have left to save,
leaves them running if it is killed itself, and does not notice a lost node.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable
from types import TracebackType

from jobs.methods.node_connection import Begin, ClientFailed, Hello, NodeConnection, ServerEnded
from jobs.stage import Stopped
from launcher.outcome import Failure, Reason

#: How long the pods of all nodes may take to start after the first of them runs.
START_TIMEOUT_S = 600.0
_COMMIT_TIMEOUT_S = 3600.0
#: How long to wait for the root cause from another node after an effect of it on this one.
_ROOT_CAUSE_TIMEOUT_S = 3.0
_POLL_S = 0.2
_CHECK_POD = "kubectl describe its pod; does a NetworkPolicy let trainers reach each other?"


class RendezvousServer:
    """Node 0's side. As a context manager it sends the clients how the stage ended, commit included."""

    def __init__(self, clients: int, port: int, stage_key: str) -> None:
        self._stage_key = stage_key
        self._expected = clients
        self._clients: dict[int, NodeConnection] = {}
        self._unidentified: list[NodeConnection] = []
        self._listener = _listen(port)
        self._listener.setblocking(False)

    def start(self, checkpoint: str | None, check_stop: Callable[[], None]) -> None:
        """Wait for all clients, then send them the checkpoint to continue from.

        Raises Failure(NETWORK) if one does not connect in time.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while len(self._clients) < self._expected:
            check_stop()
            if time.monotonic() > deadline:
                missing = sorted(set(range(1, self._expected + 1)) - set(self._clients))
                raise Failure(
                    Reason.NETWORK,
                    f"node {', '.join(map(str, missing))} of {self._expected + 1} did not connect "
                    f"within {START_TIMEOUT_S:.0f} s",
                    next_step=_CHECK_POD,
                )
            self._accept()
            self.check()
            if any(client.stopped for client in self._clients.values()):
                raise Failure(Reason.TERMINATED, "another node was asked to stop before training began")
        for client in self._clients.values():
            client.send(Begin(checkpoint))

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            if selector.select(_POLL_S):
                self._unidentified.append(NodeConnection(self._listener.accept()[0], "unidentified"))
        for connection in list(self._unidentified):
            hello = next((m for m in connection.receive() if isinstance(m, Hello)), None)
            if hello and hello.stage_key == self._stage_key and 1 <= hello.node <= self._expected:
                self._unidentified.remove(connection)
                connection.name = f"node {hello.node}"
                if replaced := self._clients.pop(hello.node, None):
                    replaced.close()  # its pod was replaced
                self._clients[hello.node] = connection
            elif connection.lost:
                self._unidentified.remove(connection)
                connection.close()

    def check(self) -> None:
        """Raise the failure that a client reported, or Failure(KILLED) if one is lost."""
        for client in self._clients.values():
            for message in client.receive():
                if isinstance(message, ClientFailed):
                    if message.failure.reason is not Reason.TERMINATED:
                        raise message.failure
                    # The workers agree on the step to stop at; those of this node still save a checkpoint.
                    client.stopped = True
            if client.lost and not client.stopped:
                raise _lost(client.name)

    def __enter__(self) -> RendezvousServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients.values():
            client.send(ServerEnded(_as_failure(error)))
        for connection in [*self._clients.values(), *self._unidentified]:
            connection.close()
        self._listener.close()


class RendezvousClient:
    """The side of every node but node 0. As a context manager it sends the server its own failure."""

    def __init__(self, node: int, server: tuple[str, int], stage_key: str) -> None:
        self.node = node
        self._address = server
        self._stage_key = stage_key
        self._server: NodeConnection | None = None
        self._ended = False

    def join(self, check_stop: Callable[[], None]) -> str | None:
        """Wait until all nodes are connected; return the checkpoint to continue from.

        Raises Failure(NETWORK) if the server does not begin in time.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            check_stop()
            if time.monotonic() > deadline:
                host, port = self._address
                raise Failure(
                    Reason.NETWORK,
                    f"node 0 did not begin within {START_TIMEOUT_S:.0f} s",
                    where=f"{host}:{port}",
                    next_step=_CHECK_POD,
                )
            if self._server is None or self._server.lost:
                self._server = self._connect()
            for message in self._server.receive() if self._server else []:
                if isinstance(message, Begin):
                    return message.checkpoint
                if isinstance(message, ServerEnded):
                    self._end(message)
            time.sleep(_POLL_S)

    def _connect(self) -> NodeConnection | None:
        """A connection to the server; None while its name does not resolve or its port is closed."""
        try:
            connection = socket.create_connection(self._address, timeout=5)
        except OSError:
            return None
        server = NodeConnection(connection, "node 0")
        server.send(Hello(self.node, self._stage_key))
        return server

    def check(self) -> None:
        """Raise the failure that ended the stage on node 0, or Failure(KILLED) if node 0 is lost."""
        assert self._server is not None
        for message in self._server.receive():
            if isinstance(message, ServerEnded):
                self._end(message)
        if self._server.lost and not self._ended:
            raise _lost(self._server.name)

    def _end(self, message: ServerEnded) -> None:
        self._ended = True
        if message.failure:
            raise message.failure

    def wait_for_commit(self, check_stop: Callable[[], None]) -> None:
        """Wait until node 0 has committed the outputs. Raises the failure of node 0."""
        deadline = time.monotonic() + _COMMIT_TIMEOUT_S
        while not self._ended:
            check_stop()
            if time.monotonic() > deadline:
                raise Failure(Reason.NETWORK, f"node 0 did not commit within {_COMMIT_TIMEOUT_S:.0f} s")
            self.check()
            time.sleep(_POLL_S)

    def __enter__(self) -> RendezvousClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is None:
            return
        if failure := _as_failure(error):
            self._server.send(ClientFailed(failure))
        self._server.close()


Rendezvous = RendezvousServer | RendezvousClient


def root_cause(own: Failure, rendezvous: Rendezvous) -> Failure:
    """The failure to report: another node's if this node's workers failed only because of it."""
    if own.reason is not Reason.INTERNAL:
        return own
    deadline = time.monotonic() + _ROOT_CAUSE_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            rendezvous.check()
        except Failure as failure:
            return failure if failure.reason is not Reason.INTERNAL else own
        time.sleep(_POLL_S)
    return own


def _listen(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _lost(name: str) -> Failure:
    return Failure(
        Reason.KILLED,
        f"lost the connection to {name}",
        next_step="launcher retry RUN continues from the checkpoint",
    )


def _as_failure(error: BaseException | None) -> Failure | None:
    if error is None or isinstance(error, Failure):
        return error
    if isinstance(error, Stopped):
        return Failure(Reason.TERMINATED, "asked to stop; progress is saved")
    return Failure(Reason.INTERNAL, f"{type(error).__name__}: {error}")
