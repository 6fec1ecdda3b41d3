"""How the stage's processes on several nodes know of each other: one connection from each to the first.

`torchrun` would start the workers as well, but its agent ends them 30 s after a SIGTERM, whatever they
have yet to save, leaves them alive where it is killed itself, and does not notice a node that is gone.
So the stage's process supervises its own workers, as on one machine, and this is what it adds: who
is there, which checkpoint all continue from, and, within seconds, that one of them failed or is gone.
Workers meet as torchrun's do, at the TCP store of the first of them, one port above this one.

One JSON object a line. Every side says something each second; silence is a lost node.
"""

from __future__ import annotations

import json
import selectors
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from jobs.stage import Stopped
from launcher.outcome import Failure, Reason

_PING_S = 1.0
#: A node that says nothing for so long is lost. Its kernel closes the connection of a process that merely died.
SILENCE_S = 20.0
#: How long all pods may take to come up once the first of them runs.
ASSEMBLY_S = 600.0
#: How long the word of a node that failed first may take, after what its failure did to this one.
_WORD_S = 3.0
_END_S = 3600.0
_TICK_S = 0.2
_LINE_BYTES = 1 << 20


class _Line:
    """A connection that carries JSON lines and never blocks."""

    def __init__(self, connection: socket.socket, name: str) -> None:
        connection.setblocking(False)
        self.connection = connection
        self.name = name
        self.heard_at = time.monotonic()
        self.gone = False
        #: It said that it was asked to stop: its end is no surprise any more.
        self.stopped = False
        self._saying = threading.Lock()
        self._pending = b""
        threading.Thread(target=self._ping, daemon=True, name="tuneyard-ping").start()

    def _ping(self) -> None:
        """Beside the work: a store that makes its callers wait must not look like a lost node."""
        while not self.gone:
            self.say(kind="ping")
            time.sleep(_PING_S)

    def say(self, **message: Any) -> None:
        """Send a few bytes; what a lost peer no longer takes shows itself when listening."""
        try:
            with self._saying:
                self.connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self.gone = True

    def hear(self) -> list[dict[str, Any]]:
        """What has arrived since."""
        try:
            while data := self.connection.recv(1 << 16):
                self._pending += data
                self.heard_at = time.monotonic()
            self.gone = True
        except BlockingIOError:
            self.gone = self.gone or time.monotonic() - self.heard_at > SILENCE_S
        except OSError:
            self.gone = True
        *lines, self._pending = self._pending.split(b"\n")
        if len(self._pending) > _LINE_BYTES:
            self.gone = True
        try:
            messages = [json.loads(line) for line in lines]
        except ValueError:
            self.gone = True
            return []
        return [
            message for message in messages if isinstance(message, dict) and message.get("kind") != "ping"
        ]

    def close(self) -> None:
        self.gone = True
        self.connection.close()


def _lost(name: str) -> Failure:
    return Failure(
        Reason.KILLED, f"{name} is gone", next_step="launcher retry RUN continues from the checkpoint"
    )


def _listen(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


class First:
    """The first node's side. As a context manager it tells the others how the stage ended, commit included."""

    def __init__(self, others: int, port: int, stage_key: str) -> None:
        self._stage_key = stage_key
        self._expected = others
        self._lines: dict[int, _Line] = {}
        self._strangers: list[_Line] = []
        self._failure: Failure | None = None
        self._listener = _listen(port)
        self._listener.setblocking(False)

    def assemble(self, begin: dict[str, Any], check_stop: Callable[[], None]) -> None:
        """Wait for all others, then tell them to begin. Raises Failure(NETWORK) where some do not come."""
        deadline = time.monotonic() + ASSEMBLY_S
        while len(self._lines) < self._expected:
            check_stop()
            if time.monotonic() > deadline:
                missing = sorted(set(range(1, self._expected + 1)) - set(self._lines))
                raise Failure(
                    Reason.NETWORK,
                    f"node {', '.join(map(str, missing))} of {self._expected + 1} did not come "
                    f"within {ASSEMBLY_S:.0f} s",
                    next_step="kubectl describe its pod; does a NetworkPolicy let trainers reach each other?",
                )
            self._admit()
            self.check()
            if any(line.stopped for line in self._lines.values()):
                raise Failure(Reason.TERMINATED, "another node was asked to stop before training began")
        for line in self._lines.values():
            line.say(kind="begin", **begin)

    def _admit(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            if selector.select(_TICK_S):
                self._strangers.append(_Line(self._listener.accept()[0], "a stranger"))
        for line in list(self._strangers):
            for message in line.hear():
                node = message.get("node")
                if message.get("stage") != self._stage_key or not isinstance(node, int):
                    continue
                if 1 <= node <= self._expected:
                    line.name = f"node {node}"
                    if old := self._lines.pop(node, None):
                        old.close()  # the pod was replaced
                    self._lines[node] = line
                    self._strangers.remove(line)
                    break
            if line.gone and line in self._strangers:
                line.close()
                self._strangers.remove(line)

    def check(self) -> None:
        """Raises the failure of a node that failed, or Failure(KILLED) for one that is gone."""
        for line in self._lines.values():
            for message in line.hear():
                if message.get("kind") == "failed":
                    failure = Failure.from_json(message["failure"])
                    if failure.reason is not Reason.TERMINATED:
                        raise failure
                    # The workers agree on where they stop; this node's have a checkpoint to write.
                    line.stopped = True
            if line.gone and not line.stopped:
                raise _lost(line.name)

    def __enter__(self) -> First:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failure = _as_failure(error)
        for line in self._lines.values():
            line.say(kind="ended", failure=failure.to_json() if failure else None)
        for line in [*self._lines.values(), *self._strangers]:
            line.close()
        self._listener.close()


class Other:
    """Any other node's side. As a context manager it tells the first where it fails."""

    def __init__(self, node: int, first: tuple[str, int], stage_key: str) -> None:
        self.node = node
        self._first = first
        self._stage_key = stage_key
        self._line: _Line | None = None
        self._ended = False

    def join(self, check_stop: Callable[[], None]) -> dict[str, Any]:
        """Wait for the first node and for its word to begin. Raises Failure(NETWORK) where it does not come."""
        deadline = time.monotonic() + ASSEMBLY_S
        while True:
            check_stop()
            if time.monotonic() > deadline:
                host, port = self._first
                raise Failure(
                    Reason.NETWORK,
                    f"the first node did not begin within {ASSEMBLY_S:.0f} s",
                    where=f"{host}:{port}",
                    next_step="kubectl describe its pod; does a NetworkPolicy let trainers reach each other?",
                )
            if self._line is None or self._line.gone:
                self._line = self._connect()
            for message in self._line.hear() if self._line else []:
                if message.get("kind") == "begin":
                    return message
                if message.get("kind") == "ended":
                    self._end(message)
            time.sleep(_TICK_S)

    def _connect(self) -> _Line | None:
        """A connection to the first node; None where its name or its port is not there yet."""
        try:
            connection = socket.create_connection(self._first, timeout=5)
        except OSError:
            return None
        line = _Line(connection, "the first node")
        line.say(kind="hello", node=self.node, stage=self._stage_key)
        return line

    def check(self) -> None:
        """Raises what ended the stage on the first node, or Failure(KILLED) where that is gone."""
        assert self._line is not None
        for message in self._line.hear():
            if message.get("kind") == "ended":
                self._end(message)
        if self._line.gone and not self._ended:
            raise _lost(self._line.name)

    def _end(self, message: dict[str, Any]) -> None:
        self._ended = True
        if message.get("failure"):
            raise Failure.from_json(message["failure"])

    def wait_for_commit(self, check_stop: Callable[[], None]) -> None:
        """Until the first node has committed. Raises what it failed with."""
        deadline = time.monotonic() + _END_S
        while not self._ended:
            check_stop()
            if time.monotonic() > deadline:
                raise Failure(Reason.NETWORK, f"the first node did not end within {_END_S:.0f} s")
            self.check()
            time.sleep(_TICK_S)

    def __enter__(self) -> Other:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._line is None:
            return
        if failure := _as_failure(error):
            self._line.say(kind="failed", failure=failure.to_json())
        self._line.close()


Peers = First | Other


def cause(own: Failure, peers: Peers) -> Failure:
    """What really happened: where this node's workers failed because another node's did, that node's word."""
    if own.reason is not Reason.INTERNAL:
        return own
    deadline = time.monotonic() + _WORD_S
    while time.monotonic() < deadline:
        try:
            peers.check()
        except Failure as failure:
            return failure if failure.reason is not Reason.INTERNAL else own
        time.sleep(_TICK_S)
    return own


def _as_failure(error: BaseException | None) -> Failure | None:
    if error is None or isinstance(error, Failure):
        return error
    if isinstance(error, Stopped):
        return Failure(Reason.TERMINATED, "asked to stop; progress is saved")
    return Failure(Reason.INTERNAL, f"{type(error).__name__}: {error}")
